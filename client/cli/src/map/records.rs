//! `--results FILE`: writes a line of JSON for each item as soon as it has finished.

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
pub(super) use earlier::{Earlier, Remaining};
use file::LineFile;

/// The file of records, and how to treat existing ones.
#[derive(Clone, Debug)]
pub(super) struct RecordsOption {
    pub(super) path: PathBuf,
    pub(super) mode: Mode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// There must be none.
    New,
    Overwrite,
    /// Items that are done are skipped. `failed`: failed ones run again.
    Resume {
        failed: bool,
    },
}

/// The file of records.
pub(super) struct Records {
    lines: LineFile,
    /// The command before items are filled in; `None`: unknown here.
    program: Option<Program>,
}

/// A command as records name it.
#[derive(Clone, Debug)]
pub(super) struct Program {
    text: Vec<u8>,
    /// The separator that splits items into columns.
    columns: Option<Vec<u8>>,
    shown: String,
}

/// A record. Its keys are a public format and must not change.
#[derive(Debug, Deserialize, Serialize)]
struct Record<'a> {
    /// The item as text, with invalid UTF-8 replaced; `null`: unknown.
    item: Option<Cow<'a, str>>,
    /// Starts at 1, as `{#}` does.
    index: u64,
    /// `null`: it did not exit by itself.
    exit_code: Option<i32>,
    signal: Option<i32>,
    timed_out: bool,
    error: Option<Cow<'a, str>>,
    host: Option<Cow<'a, str>>,
    seconds: Option<f64>,
    attempts: u32,
    /// The command before items are filled in, shortened if it is long; `null`: unknown.
    #[serde(default)]
    program: Option<Cow<'a, str>>,
    /// Digest of the whole command before the item is filled in, and of the item, byte for byte.
    #[serde(default)]
    digest: Option<Cow<'a, str>>,
}

impl Program {
    pub(super) fn new(text: &[u8]) -> Program {
        Program { text: text.to_vec(), columns: None, shown: shortened(text) }
    }

    /// Returns the same command for items that are split into columns.
    pub(super) fn with_columns(self, separator: &[u8]) -> Program {
        Program { columns: Some(separator.to_vec()), ..self }
    }

    /// Returns a digest that identifies this command and item.
    fn digest(&self, item: &Item) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(self.text.len() as u64).to_le_bytes()).update(&self.text).update(&item.name);
        // A command contains no NUL byte, so these cannot be confused with another item.
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
    /// Opens the file, and reads it if the map resumes. The file does not change before the first record is written, or
    /// [`end`](Self::end).
    pub(super) fn open(option: &RecordsOption, program: Option<Program>) -> Result<(Records, Earlier), MapError> {
        let mut lines = LineFile::open(&option.path, option.mode)?;
        let earlier = match (option.mode, &program) {
            (Mode::Resume { failed }, Some(program)) => Earlier::read(&mut lines, program, failed)?,
            _ => Earlier::default(),
        };
        Ok((Records { lines, program }, earlier))
    }

    /// Adds a record, which is written by the next [`flush`](Self::flush).
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

    /// Writes the added records.
    pub(super) fn flush(&mut self) -> Result<(), MapError> {
        self.lines.flush()
    }

    /// Completes the file.
    pub(super) fn end(&mut self) -> Result<(), MapError> {
        self.lines.end()
    }
}
