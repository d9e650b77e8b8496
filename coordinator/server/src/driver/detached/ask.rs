//! What the owners of detached jobs ask, and when jobs go.

use farpool_common::log::{info, warn};
use farpool_coordinator::Principal;
use farpool_proto::v1::{
    CancelDetachedRequest, ClosePool, DetachedJob, DetachedState, DiscardDetachedRequest, ListDetachedReply,
    client_message,
};
use farpool_store::{Ended, Job, JobStoreError, Phase};
use tokio::sync::oneshot;
use tonic::Status;

use super::super::Driver;
use super::attach::{check_id, not_found};
use super::begin::{no_journal, status};
use super::durable::Then;

type Reply = oneshot::Sender<Result<(), Status>>;

impl Driver {
    /// Lists the jobs of a tenant.
    pub(in super::super) fn list_detached(&self, tenant: &str) -> Result<ListDetachedReply, Status> {
        let store = self.detached.store.as_ref().ok_or_else(no_journal)?;
        let mut jobs: Vec<DetachedJob> =
            store.jobs().filter(|job| job.known.owner.tenant() == tenant).map(|job| self.describe(job)).collect();
        jobs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(ListDetachedReply { jobs })
    }

    pub(super) fn describe(&self, job: &Job) -> DetachedJob {
        let (known, counts) = (&job.known, job.counts());
        let expiry = self.detached.store.as_ref().map_or(0, |store| store.expiry().as_millis());
        let expiry = u64::try_from(expiry).unwrap_or(u64::MAX);
        let state = match job.phase() {
            // It may be in the store already that it is complete, but not durable.
            _ if self.detached.receiving.contains_key(&job.number) => DetachedState::Receiving,
            Phase::Feeding => DetachedState::Receiving,
            Phase::Running => DetachedState::Running,
            Phase::Ended(_) if self.detached.ending.contains(&job.number) => DetachedState::Running,
            Phase::Ended(Ended::Finished) => DetachedState::Finished,
            Phase::Ended(Ended::Cancelled) => DetachedState::Cancelled,
            Phase::Ended(Ended::Failed) => DetachedState::Failed,
        };
        let detached_ms = if state == DetachedState::Receiving { 0 } else { job.complete_ms };
        let ended_ms = if state == DetachedState::Running { 0 } else { job.ended_ms };
        DetachedJob {
            name: known.name.clone(),
            label: known.label.clone(),
            state: state.into(),
            items: counts.items,
            done: counts.done,
            failed: counts.failed,
            result: known.result.clone(),
            format: known.format,
            detached_ms,
            ended_ms,
            expires_ms: if ended_ms == 0 { 0 } else { ended_ms.saturating_add(expiry) },
            id: known.id.clone(),
        }
    }

    pub(in super::super) fn cancel_detached(&mut self, by: &Principal, request: &CancelDetachedRequest, reply: Reply) {
        let number = match self.find_detached(by, &request.name, &request.id) {
            Ok(number) => number,
            Err(status) => return drop(reply.send(Err(status))),
        };
        let phase = self.detached.store.as_ref().and_then(|store| store.job(number)).map(|job| job.phase());
        match phase {
            // What is not complete has no outcomes that could stay.
            _ if self.detached.receiving.contains_key(&number) => return self.discard(number, reply),
            Some(Phase::Running) => match self.detached.clients.get(&number) {
                Some(&id) => {
                    if let Some(run) = self.detached.runs.get_mut(&id) {
                        run.cancels.push(reply);
                    }
                    return self.cancel_run(id);
                }
                None => self.end_unopened(number, true, None),
            },
            Some(Phase::Ended(ended)) if request.must_run => {
                let how = match ended {
                    Ended::Finished => "has finished",
                    Ended::Cancelled => "was cancelled before",
                    Ended::Failed => "has failed",
                };
                let message = format!("job {:?} {how}: there is nothing left to cancel", request.name);
                return drop(reply.send(Err(Status::failed_precondition(message))));
            }
            _ => {}
        }
        self.detached.then.push(Then::Answer(reply));
    }

    pub(in super::super) fn discard_detached(
        &mut self,
        by: &Principal,
        request: &DiscardDetachedRequest,
        reply: Reply,
    ) {
        match self.find_detached(by, &request.name, &request.id) {
            Ok(number) => self.discard(number, reply),
            Err(status) => drop(reply.send(Err(status))),
        }
    }

    fn discard(&mut self, number: u64, reply: Reply) {
        match self.try_to_forget(number) {
            Ok(()) => self.detached.then.push(Then::Answer(reply)),
            Err(error) => drop(reply.send(Err(status(&error)))),
        }
    }

    fn find_detached(&self, by: &Principal, name: &str, id: &[u8]) -> Result<u64, Status> {
        let store = self.detached.store.as_ref().ok_or_else(no_journal)?;
        let job = store.find(by.tenant(), name).ok_or_else(|| not_found(name))?;
        check_id(job, id)?;
        Ok(job.number)
    }

    /// Drops all of a job; if that cannot be written, it is tried again when its time has come again.
    pub(super) fn forget_job(&mut self, number: u64) {
        if let Err(error) = self.try_to_forget(number) {
            warn!(self.link.log, %error, "cannot drop a detached job yet");
        }
    }

    fn try_to_forget(&mut self, number: u64) -> Result<(), JobStoreError> {
        let Some(store) = &mut self.detached.store else { return Ok(()) };
        store.forget(number)?;
        self.has_gone(number);
        Ok(())
    }

    /// The store does not have a job any more.
    pub(super) fn has_gone(&mut self, number: u64) {
        self.break_off(number, Status::not_found("the job was discarded"));
        self.detached.receiving.remove(&number);
        self.detached.pins.remove(&number);
        self.detached.ending.remove(&number);
        if let Some(id) = self.detached.clients.remove(&number)
            && let Some(run) = self.detached.runs.get_mut(&id)
        {
            run.ended = true;
            run.feed.forget();
            self.say_for(id, client_message::Body::ClosePool(ClosePool { now: true }));
        }
        self.serve_jobs(&[number]);
    }

    /// Drops jobs that ended long ago.
    pub(super) fn expire_jobs(&mut self) {
        let now = self.now_ms();
        let Some(store) = self.detached.store.as_mut().filter(|_| self.detached.failing.is_none()) else { return };
        if store.next_expiry().is_none_or(|at| at > now) {
            return;
        }
        match store.expire(now) {
            Ok(gone) => {
                for (number, name) in gone {
                    info!(self.link.log, job = %name, "detached job expired");
                    self.has_gone(number);
                }
            }
            Err(error) => warn!(self.link.log, %error, "cannot expire detached jobs yet"),
        }
    }
}
