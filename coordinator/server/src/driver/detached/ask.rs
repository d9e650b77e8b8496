//! Requests about detached jobs: describe, list, cancel, discard.

use farpool_coordinator::Principal;
use farpool_proto::v1::{
    CancelDetachedRequest, DescribeDetachedRequest, DetachedJob, DiscardDetachedRequest, ListDetachedReply,
};
use farpool_store::{Ended, Job, Phase};
use tokio::sync::oneshot;
use tonic::Status;

use super::super::round::Round;
use super::checks::{check_id, not_found, status};
use super::durable::OnDurable;
use super::jobs::Jobs;

/// The answer to a request, sent when its effect is durable.
pub(super) type Reply = oneshot::Sender<Result<(), Status>>;

impl Jobs {
    /// Describes a job.
    pub(super) fn describe(&self, by: &Principal, request: &DescribeDetachedRequest) -> Result<DetachedJob, Status> {
        Ok(self.tracked.describe(self.find(by, &request.name, &request.id)?))
    }

    /// Lists the jobs of a tenant.
    pub(super) fn list(&self, tenant: &str) -> ListDetachedReply {
        let all = self.tracked.store().jobs().filter(|job| job.known.owner.tenant() == tenant);
        let mut jobs: Vec<DetachedJob> = all.map(|job| self.tracked.describe(job)).collect();
        jobs.sort_by(|a, b| a.name.cmp(&b.name));
        ListDetachedReply { jobs }
    }

    pub(super) fn cancel(&mut self, round: &mut Round, by: &Principal, request: &CancelDetachedRequest, reply: Reply) {
        let (number, phase, is_received) = match self.find(by, &request.name, &request.id) {
            Ok(job) => (job.number, job.phase(), self.tracked.is_received(job)),
            Err(status) => return drop(reply.send(Err(status))),
        };
        let tracked = &mut self.tracked;
        let answer = match phase {
            // An incomplete job has no outcomes that could be kept.
            _ if is_received => return self.forget(round, number, reply),
            Phase::Running => {
                let reply = self.runner.cancel(tracked, round, number, reply);
                if reply.is_some() {
                    tracked.end(number, true, None, round.now, &round.link);
                }
                reply
            }
            Phase::Ended(ended) if request.must_run => {
                let how = match ended {
                    Ended::Finished => "has finished",
                    Ended::Cancelled => "was cancelled before",
                    Ended::Failed => "has failed",
                };
                let message = format!("job {:?} {how}: there is nothing left to cancel", request.name);
                return drop(reply.send(Err(Status::failed_precondition(message))));
            }
            _ => Some(reply),
        };
        answer.into_iter().for_each(|reply| tracked.when_durable(OnDurable::Answer(reply)));
    }

    pub(super) fn discard(
        &mut self,
        round: &mut Round,
        by: &Principal,
        request: &DiscardDetachedRequest,
        reply: Reply,
    ) {
        match self.find(by, &request.name, &request.id).map(|job| job.number) {
            Ok(number) => self.forget(round, number, reply),
            Err(status) => drop(reply.send(Err(status))),
        }
    }

    fn forget(&mut self, round: &mut Round, number: u64, reply: Reply) {
        if let Err(error) = self.tracked.store_mut().forget(number) {
            return drop(reply.send(Err(status(&error))));
        }
        self.job_dropped(round, number);
        self.tracked.when_durable(OnDurable::Answer(reply));
    }

    /// Returns the job that a request is about.
    fn find(&self, by: &Principal, name: &str, id: &[u8]) -> Result<&Job, Status> {
        let job = self.tracked.store().find(by.tenant(), name).ok_or_else(|| not_found(name))?;
        check_id(job, id)?;
        Ok(job)
    }
}
