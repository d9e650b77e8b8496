//! The programs of detached jobs. A job is complete only when its program is durable.

use farpool_programs::{Digest, InUse};
use farpool_proto::v1::ProgramWanted;
use farpool_proto::v1::client_event::Body;
use tonic::{Code, Status};

use super::super::round::Round;
use super::intake::Intake;
use super::tracked_store::TrackedStore;

impl Intake {
    /// Returns whether a job that is being detached waits for this program.
    pub(super) fn wants(&self, digest: Digest) -> bool {
        self.all().values().any(|receiving| receiving.wants == Some(digest))
    }

    /// Handles the arrival of a program.
    pub(super) fn program_arrived(&self, tracked: &TrackedStore, round: &Round, digest: Digest) {
        let waiting = self.jobs_where(|receiving| receiving.wants == Some(digest));
        waiting.into_iter().for_each(|job| tracked.pin(job, digest, &round.link));
    }

    /// Handles that a program could not be received. Returns the jobs that were dropped.
    pub(super) fn program_failed(
        &mut self,
        tracked: &mut TrackedStore,
        round: &Round,
        digest: Digest,
        why: &Status,
    ) -> Vec<u64> {
        // Other errors may be temporary: a client may reconnect, and another one may send the program.
        if !matches!(why.code(), Code::ResourceExhausted | Code::Internal) {
            return Vec::new();
        }
        let waiting = self.jobs_where(|receiving| receiving.wants == Some(digest));
        waiting.into_iter().filter_map(|job| self.refuse(tracked, round, job, not_kept(why))).collect()
    }

    /// Handles the result of a search for a program, which is durable if it was found. Returns the job if it was dropped.
    pub(super) fn handle_program(
        &mut self,
        tracked: &mut TrackedStore,
        round: &Round,
        job: u64,
        pinned: Result<Option<InUse>, Status>,
    ) -> Option<u64> {
        // An earlier search may have found it.
        if tracked.is_pinned(job) {
            return None;
        }
        let receiving = self.receiving(job)?;
        match pinned {
            Ok(Some(program)) => {
                receiving.wants = None;
                tracked.add_pin(job, program);
                self.try_to_complete(tracked, round.now, job);
            }
            Ok(None) => {
                let digest = receiving.pool?.program;
                receiving.wants = Some(digest);
                if let Some(session) = self.all().get(&job).and_then(|receiving| self.session_of(receiving)) {
                    session.send(Body::ProgramWanted(ProgramWanted { digest: digest.to_bytes() }));
                }
            }
            Err(why) => return self.refuse(tracked, round, job, not_kept(&why)),
        }
        None
    }
}

/// Refuses a job whose program cannot be stored. Sending it again would not help.
fn not_kept(why: &Status) -> Status {
    Status::failed_precondition(format!(
        "the job's program cannot be stored: {}. Nothing of the job is kept",
        why.message()
    ))
}
