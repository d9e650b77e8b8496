//! Records that are not written although the writer was given them, or will be: they were withdrawn, or are items of refused jobs.
//!
//! In their place there are fillers, so that no other record has another place than was said. A filler in place of items is a hole in
//! its file and takes next to no room: what fills the disk may be these items.

use std::collections::BTreeSet;

use farpool_proto::v1::journal_record::Body;

use super::place::Place;

/// What is left out of all groups that come.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    /// Records that were withdrawn before they came.
    pub(super) withdrawn: Vec<Place>,
    pub(super) refused: Refused,
}

/// Jobs that were refused since nothing could be written: nobody wants their items. Each is in it until the record is durable that
/// forgets it.
#[derive(Debug, Default)]
pub(super) struct Refused {
    jobs: BTreeSet<u64>,
    /// How many times some were added.
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

    /// Whether nobody wants this record. What a job was opened with stays until the job is forgotten: items that are
    /// somewhere else would be found without a name.
    pub(super) fn is_unwanted(&self, body: &Body) -> bool {
        matches!(body, Body::Items(items) if self.jobs.contains(&items.job))
    }

    /// Records that forget these jobs are durable: no more items of them come.
    pub(super) fn forget(&mut self, jobs: &[u64]) {
        jobs.iter().for_each(|job| _ = self.jobs.remove(job));
    }
}

/// The job that a record forgets.
pub(super) fn forgets(body: &Body) -> Option<u64> {
    match body {
        Body::JobForgotten(forgotten) => Some(forgotten.job),
        _ => None,
    }
}
