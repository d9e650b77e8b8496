//! Records that are not written although the writer got them or will get them: withdrawn records, and items of refused
//! jobs.
//!
//! Fillers take their places, so that all other records keep theirs. A filler in place of items is a hole in the file
//! and takes almost no room: these items may be what fills the disk.

use std::collections::BTreeSet;

use farpool_proto::v1::journal_record::Body;

use super::location::RecordLocation;

/// The records that all later groups leave out.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    /// Records that were withdrawn before the writer got them.
    pub(super) withdrawn: Vec<RecordLocation>,
    pub(super) refused: Refused,
}

/// Jobs that were refused because nothing could be written, so that their items are not needed. A job stays here until
/// the record that forgets it is durable.
#[derive(Debug, Default)]
pub(super) struct Refused {
    jobs: BTreeSet<u64>,
    /// Number of additions.
    pub(super) version: u64,
}

impl Refused {
    pub(super) fn extend(&mut self, jobs: impl IntoIterator<Item = u64>) {
        let before = self.jobs.len();
        self.jobs.extend(jobs);
        self.version += u64::from(self.jobs.len() > before);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Whether this record is unneeded. The record that opened a job stays until the job is forgotten: otherwise its
    /// items elsewhere would be found without a name.
    pub(super) fn is_unwanted(&self, body: &Body) -> bool {
        matches!(body, Body::Items(items) if self.jobs.contains(&items.job))
    }

    /// Records that forget these jobs are durable: no more items of them will come.
    pub(super) fn forget(&mut self, jobs: &[u64]) {
        jobs.iter().for_each(|job| _ = self.jobs.remove(job));
    }
}

/// Returns the job that a record forgets.
pub(super) fn forgets(body: &Body) -> Option<u64> {
    match body {
        Body::JobForgotten(forgotten) => Some(forgotten.job),
        _ => None,
    }
}
