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

use tonic::Status;

use super::super::round::Round;
use super::intake::Intake;
use super::keeper::Keeper;
use super::receiving::Receiving;

/// All return the jobs that have gone.
impl Intake {
    /// Whether somebody waits for the store to take something.
    pub(super) fn waits_for_store(&self, keeper: &Keeper) -> bool {
        self.has_parked() || !self.jobs_that_wait(keeper).is_empty()
    }

    /// It was tried, and the store does not take it: refuses the jobs of which something waits for it.
    pub(super) fn refuse_what_cannot_be_kept(&mut self, keeper: &mut Keeper, round: &Round) -> Vec<u64> {
        let Some(why) = keeper.cannot_keep(round.now) else { return Vec::new() };
        let mut gone = Vec::new();
        for job in self.jobs_that_wait(keeper) {
            if self.all()[&job].completes {
                keeper.store_mut().withdraw_end(job);
            } else {
                gone.extend(self.refuse(keeper, round, job, why.clone()));
            }
        }
        gone
    }

    /// Tells whoever detaches a job that it is not kept, and forgets what there is of it. It is not complete.
    pub(super) fn refuse(&mut self, keeper: &mut Keeper, round: &Round, job: u64, why: Status) -> Option<u64> {
        self.break_off(round, job, why);
        keeper.store_mut().forget_incomplete(job).ok()?;
        self.drop_job(keeper, round, job);
        Some(job)
    }

    /// Jobs that are being detached, and of which the store is to take something.
    fn jobs_that_wait(&self, keeper: &Keeper) -> Vec<u64> {
        let items = |job: &u64| keeper.job(*job).map(|job| job.end);
        let waits = |(job, receiving): &(&u64, &Receiving)| receiving.waits_for_disk(items(job));
        self.all().iter().filter(waits).map(|(job, _)| *job).collect()
    }
}
