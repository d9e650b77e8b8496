//! `--results FILE`: a line of JSON an item.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::MapError;
use super::finished::Finished;
use super::task::Ended;

pub(super) struct Records {
    path: PathBuf,
    file: BufWriter<File>,
}

/// The keys are promised to stay.
#[derive(Serialize)]
struct Record<'a> {
    /// As text: what is not UTF-8 is replaced; `null`: it is not known here.
    item: Option<Cow<'a, str>>,
    /// From 1, as `{#}`.
    index: u64,
    /// `null`: it did not exit by itself.
    exit_code: Option<i32>,
    signal: Option<i32>,
    timed_out: bool,
    error: Option<String>,
    host: Option<&'a str>,
    seconds: Option<f64>,
    attempts: u32,
}

impl Records {
    pub(super) fn create(path: &Path) -> Result<Records, MapError> {
        let file = File::create(path)
            .map_err(|error| MapError::Told(format!("cannot write the results to {}: {error}", path.display())))?;
        Ok(Records { path: path.to_owned(), file: BufWriter::new(file) })
    }

    pub(super) fn write(&mut self, finished: &Finished) -> Result<(), MapError> {
        let ended = finished.result.as_ref().ok().map(|outcome| &outcome.ended);
        let record = Record {
            item: finished.item.as_deref().map(String::from_utf8_lossy),
            index: finished.index + 1,
            exit_code: if let Some(Ended::Code(code)) = ended { Some(*code) } else { None },
            signal: if let Some(Ended::Signal(signal)) = ended { Some(*signal) } else { None },
            timed_out: ended == Some(&Ended::TimedOut),
            error: finished.reason(),
            host: finished.host(),
            seconds: finished.took().map(|took| took.as_secs_f64()),
            attempts: finished.attempts,
        };
        let written = serde_json::to_writer(&mut self.file, &record).map_err(std::io::Error::from);
        let written = written.and_then(|()| self.file.write_all(b"\n"));
        written.map_err(|error| self.broken(&error))
    }

    pub(super) fn flush(&mut self) -> Result<(), MapError> {
        self.file.flush().map_err(|error| self.broken(&error))
    }

    fn broken(&self, error: &std::io::Error) -> MapError {
        MapError::Told(format!("cannot write the results to {}: {error}", self.path.display()))
    }
}
