//! Jobs that cannot be kept: the disk does not take what comes of them, and whoever detaches one is told why.
//!
//! **Nothing of a job runs that was refused**, whenever the coordinator ends and whatever the disk has of it: it is refused only while the
//! record is nowhere on disk that makes it complete, and from then on that is not written. Most jobs have not come so
//! far. Where the record is on its way the store is asked to withdraw it. It does so after another attempt to write it: that may
//! succeed, and the job is detached. Otherwise all that is not durable is cut off from the log, the record with it,
//! and only then is the job refused. If it cannot be cut off, the disk may have the record or not: its client waits until one or the other
//! is known.
//!
//! What is on disk of a job that was refused may be what fills it: so its items are not written any more, and cut off from the
//! log's end (`group.rs` of the embedded store). The rest is forgotten as soon as something can be written. If the coordinator ends before, it is found
//! incomplete, and goes like every job that nobody continues to detach.

use std::sync::Arc;

use tonic::Status;

use super::super::Driver;
use super::receive::Receiving;

/// How long nothing can have been written when whoever detaches a job is told so, in ns: a disk that fails for a moment is waited for.
const PATIENCE_NS: u64 = 500_000_000;

/// How soon it may be tried again since somebody waits: what is written may be much.
const NEXT_TRY_NS: u64 = 200_000_000;

/// Nothing can be written.
pub(super) struct Failing {
    /// As operators were told.
    pub(super) why: Arc<str>,
    pub(super) since: u64,
    /// When it may be tried again since somebody waits.
    pub(super) try_at: u64,
}

impl Failing {
    /// `before`: why nothing could be written by now.
    pub(super) fn new(why: Arc<str>, before: Option<&Self>, now: u64) -> Self {
        let (since, try_at) = before.map_or((now, now + PATIENCE_NS), |before| (before.since, before.try_at));
        Self { why, since, try_at }
    }
}

impl Driver {
    /// What those are told who detach jobs, if nothing can be written and has not been for too long.
    pub(super) fn cannot_keep(&self) -> Option<Status> {
        let failing = self.detached.failing.as_ref().filter(|failing| failing.since + PATIENCE_NS <= self.now)?;
        let directory = self.detached.store.as_ref()?.location();
        let why = &failing.why;
        Some(Status::failed_precondition(format!(
            "the journal in {directory} cannot be written to: {why}. Nothing of the job is kept; detach it again when there is room"
        )))
    }

    /// When it is to be tried again, since somebody waits to be told.
    pub(super) fn next_try(&self) -> Option<u64> {
        let failing = self.detached.failing.as_ref()?;
        let waits = !self.detached.parked.is_empty() || !self.jobs_that_wait_for_the_disk().is_empty();
        waits.then_some(failing.try_at)
    }

    /// Nobody is refused before it was tried for him, or until it is tried by itself.
    pub(super) fn try_for_who_waits(&mut self) {
        if self.next_try().is_some_and(|at| at <= self.now)
            && let (Some(store), Some(failing)) = (&self.detached.store, &mut self.detached.failing)
        {
            failing.try_at = self.now + NEXT_TRY_NS;
            store.try_again();
        }
    }

    /// It was tried, and the disk does not take it: refuses the jobs of which something waits for it.
    pub(super) fn refuse_what_cannot_be_kept(&mut self) {
        let Some(why) = self.cannot_keep() else { return };
        for job in self.jobs_that_wait_for_the_disk() {
            if self.detached.receiving[&job].completes {
                self.detached.store.iter_mut().for_each(|store| store.withdraw_end(job));
            } else {
                self.refuse(job, why.clone());
            }
        }
    }

    /// Jobs that are being detached, and of which the disk is to take something.
    fn jobs_that_wait_for_the_disk(&self) -> Vec<u64> {
        let Some(store) = &self.detached.store else { return Vec::new() };
        let items = |job: &u64| store.job(*job).map(|job| job.counts().items);
        let waits = |(job, receiving): &(&u64, &Receiving)| receiving.waits_for_disk(items(job));
        self.detached.receiving.iter().filter(waits).map(|(job, _)| *job).collect()
    }

    /// Tells whoever detaches a job that it is not kept, and forgets what there is of it. It is not complete.
    pub(super) fn refuse(&mut self, job: u64, why: Status) {
        self.break_off(job, why);
        if let Some(store) = &mut self.detached.store
            && store.forget_incomplete(job).is_ok()
        {
            self.has_gone(job);
        }
    }
}
