//! Refuses jobs that cannot be stored, and tells their clients why.
//!
//! **Nothing of a refused job ever runs**, whenever the coordinator stops and whatever is on disk. A job is refused only if the record that
//! makes it complete is not on disk, and that record is never written afterwards. Most jobs have not got that far. If the writer has the
//! record, the store is asked to withdraw it. The store first retries the write: if that succeeds, the job is detached. Otherwise it cuts
//! off everything that is not durable, including the record, and only then is the job refused. If that fails, the record may or may not
//! be on disk, and the client waits until this is known.
//!
//! A refused job may be the one that fills the disk. So its items are no longer written, and are cut off from the log's end
//! (`group.rs` of the embedded store). The rest is dropped when writing works again. If the coordinator stops before that, the job is
//! incomplete at the next start, and is dropped like every job that no client continues.

use tonic::Status;

use super::super::round::Round;
use super::intake::Intake;
use super::receiving::Receiving;
use super::tracked_store::TrackedStore;

/// These methods return the jobs that were dropped.
impl Intake {
    /// Returns whether a client waits for the store.
    pub(super) fn waits_for_store(&self, tracked: &TrackedStore) -> bool {
        self.has_parked() || !self.jobs_that_wait(tracked).is_empty()
    }

    /// Refuses the jobs that wait for the store, if writing has failed for too long.
    pub(super) fn refuse_unwritable(&mut self, tracked: &mut TrackedStore, round: &Round) -> Vec<u64> {
        let Some(why) = tracked.cannot_keep(round.now) else { return Vec::new() };
        let mut gone = Vec::new();
        for job in self.jobs_that_wait(tracked) {
            if self.all()[&job].completion_appended {
                tracked.store_mut().withdraw_end(job);
            } else {
                gone.extend(self.refuse(tracked, round, job, why.clone()));
            }
        }
        gone
    }

    /// Refuses an incomplete job and drops it.
    pub(super) fn refuse(&mut self, tracked: &mut TrackedStore, round: &Round, job: u64, why: Status) -> Option<u64> {
        self.end_session_of(round, job, why);
        tracked.store_mut().forget_incomplete(job).ok()?;
        self.drop_job(tracked, round, job);
        Some(job)
    }

    /// Returns the jobs whose clients wait for the store.
    fn jobs_that_wait(&self, tracked: &TrackedStore) -> Vec<u64> {
        let items = |job: &u64| tracked.job(*job).map(|job| job.end);
        let waits = |(job, receiving): &(&u64, &Receiving)| {
            let session = self.session_of(receiving);
            session.is_some_and(|session| receiving.input_ended || session.waits_for_disk(items(job)))
        };
        self.all().iter().filter(waits).map(|(job, _)| *job).collect()
    }
}
