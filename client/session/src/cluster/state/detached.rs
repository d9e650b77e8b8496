//! Events in sessions that detach or read a job.

use farpool_proto::v1::ClientEvent;
use farpool_proto::v1::client_event::Body as Event;

use super::super::kept::Violation;
use super::SessionState;
use crate::error::Error;
use crate::inbox::End;

impl SessionState {
    pub(super) fn receive_detaching(&mut self, mut event: ClientEvent) -> Result<Option<Event>, Violation> {
        let Some(body) = &mut event.body else { return Ok(None) };
        match body {
            Event::Durable(durable) => {
                self.kept.note_durable(durable.job, durable.items, durable.complete)?;
                if durable.complete {
                    self.kept.end_job(durable.job);
                    self.inboxes.end(durable.job, End::Finished);
                } else {
                    self.inboxes.note_durable(durable.job, durable.items);
                }
                Ok(event.body)
            }
            Event::Window(window) => {
                window.limit = self.kept.translate(window.job, window.limit);
                Ok(self.inboxes.deliver(event))
            }
            Event::JobEnded(ended) if ended.cancelled => {
                self.kept.end_job(ended.job);
                Ok(self.inboxes.deliver(event))
            }
            Event::PoolClosed(_) if self.is_done() || self.terminated => Ok(self.inboxes.deliver(event)),
            Event::JobEnded(_) | Event::PoolClosed(_) => {
                Err(Violation::Invalid("ended the job before the whole of it was durable".to_owned()))
            }
            Event::Welcome(_) | Event::ProgramWanted(_) => Ok(event.body),
            // Nothing of the job runs in this session.
            _ => Ok(None),
        }
    }

    pub(super) fn receive_reading(&mut self, event: ClientEvent) -> Result<Option<Event>, Violation> {
        let SessionState { kept, inboxes, closed, .. } = self;
        let (Some(attached), Some(body)) = (kept.attached(), &event.body) else { return Ok(None) };
        let number = attached.number();
        match body {
            Event::DetachedJob(job) => {
                attached.describe(job)?;
                inboxes.note_items(number, job.items);
                Ok(None)
            }
            Event::ItemsDone(done) if done.job == number && !done.ends.is_empty() => {
                attached.advance(done.first, (done.ends.len() / 4) as u64)?;
                Ok(inboxes.deliver(event))
            }
            Event::ItemsFailed(failed) if failed.job == number && failed.count > 0 => {
                attached.advance(failed.first, failed.count)?;
                Ok(inboxes.deliver(event))
            }
            Event::JobEnded(ended) if ended.job == number => {
                attached.check_described()?;
                Ok(inboxes.deliver(event))
            }
            Event::PoolFailed(failed) => {
                attached.check_described()?;
                let failure = failed.failure.clone().unwrap_or_default();
                inboxes.end(number, End::PoolFailed(Error::from_failure(failure)));
                Ok(None)
            }
            Event::PoolClosed(_) if attached.waits() && !(*closed && inboxes.iter().len() == 0) => {
                Err(Violation::Invalid("ended the session before the job had ended".to_owned()))
            }
            Event::PoolClosed(_) => {
                attached.check_described()?;
                Ok(inboxes.deliver(event))
            }
            Event::Welcome(_) => Ok(event.body),
            // Unknown to this version.
            _ => Ok(None),
        }
    }
}
