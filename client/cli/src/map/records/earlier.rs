//! The records of an earlier run, from which `--resume` continues.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::MapError;
use super::super::item::Item;
use super::super::queue::Queue;
use super::file::LineFile;
use super::{Program, Record};
use crate::text::shortened;

/// The items of an earlier run.
#[derive(Debug, Default)]
pub(in super::super) struct Earlier {
    /// Items with a record, by index.
    known: BTreeMap<u64, Known>,
    program: Option<Program>,
    path: String,
    /// Whether failed items run again.
    failed_again: bool,
}

#[derive(Debug)]
struct Known {
    digest: String,
    /// The item as the record names it.
    item: String,
    failed: bool,
}

/// Where a map resumes.
#[derive(Debug, Default)]
pub(in super::super) struct Remaining {
    /// Items that were read and must run, by index.
    pub(in super::super) pending: Vec<(u64, Item)>,
    /// Indices of items that do not run again.
    pub(in super::super) done: Vec<u64>,
    /// How many of these have failed.
    pub(in super::super) failed: u64,
    /// Index of the next item to read.
    pub(in super::super) next: u64,
}

impl Earlier {
    pub(super) fn read(lines: &mut LineFile, program: &Program, failed_again: bool) -> Result<Earlier, MapError> {
        let path = lines.path().display().to_string();
        let mut known = BTreeMap::new();
        lines.read(|number, line| {
            let wrong = |why: String| MapError::Failed(format!("cannot resume from {path}: line {number} {why}"));
            let record: Record = serde_json::from_slice(line)
                .map_err(|error| wrong(format!("is not a record of `farpool map --results`: {error}")))?;
            let (Some(item), Some(digest), Some(of), Some(index)) =
                (record.item, record.digest, record.program, record.index.checked_sub(1))
            else {
                return Err(wrong("does not say which command and item it belongs to".to_owned()));
            };
            if of != program.shown {
                return Err(wrong(format!("belongs to another command, '{of}', but this one is '{}'", program.shown)));
            }
            let failed = record.exit_code != Some(0);
            let item = shortened(item.as_bytes());
            known.insert(index, Known { digest: digest.into_owned(), item, failed });
            Ok(())
        })?;
        Ok(Earlier { known, program: Some(program.clone()), path, failed_again })
    }

    /// Compares the items that have records with the input, before anything runs.
    pub(in super::super) fn compare(self, queue: &Queue) -> Result<Remaining, MapError> {
        let mut rest = Remaining::default();
        let Some(end) = self.known.last_key_value().map(|(last, _)| last + 1) else { return Ok(rest) };
        let program = self.program.as_ref().expect("the program is missing");
        for index in 0..end {
            let Some(item) = queue.pop(Duration::MAX) else {
                let why = format!("it has a record of item {end}, but the input ends after {index} items");
                return Err(self.mismatch(&why));
            };
            match self.known.get(&index) {
                None => rest.pending.push((index, item)),
                Some(known) if known.digest != program.digest(&item) => {
                    return Err(self.mismatch(&what_differs(index, known, &item)));
                }
                Some(known) if known.failed && self.failed_again => rest.pending.push((index, item)),
                Some(known) => {
                    rest.done.push(index);
                    rest.failed += u64::from(known.failed);
                }
            }
        }
        rest.next = end;
        Ok(rest)
    }

    fn mismatch(&self, why: &str) -> MapError {
        MapError::Failed(format!("cannot resume from {}: {why}; nothing was run", self.path))
    }
}

fn what_differs(index: u64, known: &Known, item: &Item) -> String {
    let (number, now) = (index + 1, shortened(&item.name));
    match known.item == now {
        false => format!("item {number} was \"{}\", but is \"{now}\" in the input", known.item),
        true if item.block.is_some() => format!("block {number} of the input, --block or the command differs"),
        true => format!(
            "item {number}, \"{now}\", or the command differs in a part that is not shown, or --colsep or -n differs"
        ),
    }
}
