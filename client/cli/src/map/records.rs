//! `--results FILE`: a line of JSON an item, as soon as it has finished.

mod earlier;
mod file;

use std::borrow::Cow;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::MapError;
use super::finished::Finished;
use super::item::Item;
use super::task::Ended;
use crate::text::shortened;
pub(super) use earlier::{Earlier, Rest};
use file::Lines;

/// Where the records go, and what is to become of those that are there.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) mode: Mode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// There are to be none.
    New,
    Overwrite,
    /// What they say is done is not run again. `failed`: what has failed is.
    Resume {
        failed: bool,
    },
}

/// The file of records.
pub(super) struct Records {
    lines: Lines,
    /// The command, before items are put in; `None`: it is not known here.
    program: Option<Program>,
}

/// A command as records name it.
#[derive(Clone, Debug)]
pub(super) struct Program {
    text: Vec<u8>,
    /// What cuts items into columns.
    columns: Option<Vec<u8>>,
    shown: String,
}

/// The keys are promised to stay.
#[derive(Debug, Deserialize, Serialize)]
struct Record<'a> {
    /// As text: what is not UTF-8 is replaced; `null`: it is not known here.
    item: Option<Cow<'a, str>>,
    /// From 1, as `{#}`.
    index: u64,
    /// `null`: it did not exit by itself.
    exit_code: Option<i32>,
    signal: Option<i32>,
    timed_out: bool,
    error: Option<Cow<'a, str>>,
    host: Option<Cow<'a, str>>,
    seconds: Option<f64>,
    attempts: u32,
    /// The command before items are put in, cut if it is long; `null`: it is not known here.
    #[serde(default)]
    program: Option<Cow<'a, str>>,
    /// Of the whole command, before the item is put in, and the item, byte for byte.
    #[serde(default)]
    digest: Option<Cow<'a, str>>,
}

impl Program {
    pub(super) fn new(text: &[u8]) -> Program {
        Program { text: text.to_vec(), columns: None, shown: shortened(text) }
    }

    /// The same for items that are cut into columns.
    pub(super) fn with_columns(self, separator: &[u8]) -> Program {
        Program { columns: Some(separator.to_vec()), ..self }
    }

    /// What tells this command and item from all others.
    fn digest(&self, item: &Item) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(self.text.len() as u64).to_le_bytes()).update(&self.text).update(&item.name);
        // No command has a NUL byte, so what follows one is of no other item.
        for end in item.ends() {
            hasher.update(b"\0value").update(&(*end as u64).to_le_bytes());
        }
        if let Some(columns) = &self.columns {
            hasher.update(b"\0columns").update(columns);
        }
        if let Some(digest) = item.block.as_ref().and_then(|block| block.digest.as_ref()) {
            hasher.update(b"\0block").update(digest);
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }
}

impl Records {
    /// Opens the file, and reads what is in it if the map goes on from there. Nothing of it is changed before the first record
    /// is written, or [`end`](Self::end).
    pub(super) fn open(place: &Place, program: Option<Program>) -> Result<(Records, Earlier), MapError> {
        let mut lines = Lines::open(&place.path, place.mode)?;
        let earlier = match (place.mode, &program) {
            (Mode::Resume { failed }, Some(program)) => Earlier::read(&mut lines, program, failed)?,
            _ => Earlier::default(),
        };
        Ok((Records { lines, program }, earlier))
    }

    /// Takes a record, which is in the file after the next [`flush`](Self::flush).
    pub(super) fn write(&mut self, finished: &Finished) -> Result<(), MapError> {
        let ended = finished.result.as_ref().ok().map(|outcome| &outcome.ended);
        let program = self.program.as_ref();
        let item = finished.item.as_ref();
        let record = Record {
            item: item.map(|item| String::from_utf8_lossy(&item.name)),
            index: finished.index + 1,
            exit_code: if let Some(Ended::Code(code)) = ended { Some(*code) } else { None },
            signal: if let Some(Ended::Signal(signal)) = ended { Some(*signal) } else { None },
            timed_out: ended == Some(&Ended::TimedOut),
            error: finished.reason().map(Cow::from),
            host: finished.host().map(Cow::from),
            seconds: finished.took().map(|took| took.as_secs_f64()),
            attempts: finished.attempts,
            program: program.map(|program| Cow::from(program.shown.as_str())),
            digest: program.zip(item).map(|(program, item)| Cow::from(program.digest(item))),
        };
        let line = serde_json::to_vec(&record).map_err(|error| self.lines.broken(&error.into()))?;
        self.lines.add(&line);
        Ok(())
    }

    /// Writes what was taken.
    pub(super) fn flush(&mut self) -> Result<(), MapError> {
        self.lines.flush()
    }

    /// The map has come to its end.
    pub(super) fn end(&mut self) -> Result<(), MapError> {
        self.lines.end()
    }
}
