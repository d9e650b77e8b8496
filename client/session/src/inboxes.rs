//! The inboxes of a session's jobs, and the delivery of the coordinator's messages to them, in local mode and on a cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::{ClientEvent, ItemsDone, ItemsFailed};

use crate::error::{Error, ErrorKind};
use crate::inbox::{End, Inbox, Wakes};

/// The jobs that have not ended, and whether further ones are admitted.
#[derive(Default)]
pub(crate) struct Inboxes {
    /// In the order in which they were opened, so that wake-ups have the same order each time.
    open: BTreeMap<u64, Arc<Inbox>>,
    /// The inbox that was delivered to last, since the next outcome is likely to be of the same job.
    latest: Option<Arc<Inbox>>,
    failure: Option<Error>,
    closing: bool,
    closed: bool,
    /// The threads and tasks to wake once the session's lock is released.
    wakes: Vec<Wakes>,
    /// Something reached an inbox since this was last cleared.
    pub(crate) delivered: bool,
}

impl Inboxes {
    /// Adds a job: its messages go to this inbox.
    pub(crate) fn admit(&mut self, inbox: &Arc<Inbox>) -> Result<(), Error> {
        if let Some(error) = self.failure.clone() {
            return Err(error);
        }
        if self.closing {
            return Err(Error::new(ErrorKind::Closed, "the pool was closed before the call"));
        }
        if inbox.awaits_anything() {
            self.open.insert(inbox.job(), Arc::clone(inbox));
        }
        Ok(())
    }

    /// Removes a job that could not be opened.
    pub(crate) fn forget(&mut self, job: u64) {
        self.open.remove(&job);
    }

    /// Refuses further jobs.
    pub(crate) fn stop_admitting(&mut self) {
        self.closing = true;
    }

    /// Delivers events about jobs and about the end of the pool; returns other events.
    pub(crate) fn deliver(&mut self, event: ClientEvent) -> Option<Event> {
        self.delivered = true;
        match event.body? {
            Event::ItemsDone(done) => {
                let ItemsDone { job, first, data, ends, attempts, .. } = done;
                let wakes = self.inbox(job).map(|inbox| inbox.deliver_done(first, data, ends, attempts));
                self.wake_later(wakes);
            }
            Event::ItemsFailed(failed) => {
                let ItemsFailed { job, first, failure, count } = *failed;
                let wakes =
                    self.inbox(job).map(|inbox| inbox.deliver_failed(first, count, failure.unwrap_or_default()));
                self.wake_later(wakes);
            }
            Event::Window(window) => {
                let wakes = self.inbox(window.job).map(|inbox| inbox.grant(window.limit));
                self.wake_later(wakes);
            }
            Event::JobEnded(ended) => {
                self.end(ended.job, if ended.cancelled { End::Cancelled } else { End::Finished });
            }
            Event::PoolFailed(failed) => self.fail(Error::from_failure(failed.failure.unwrap_or_default())),
            Event::PoolClosed(_) => self.close(),
            other => return Some(other),
        }
        None
    }

    /// Notes how many items of a job that is being detached are durable.
    pub(crate) fn note_durable(&mut self, job: u64, items: u64) {
        let wakes = self.inbox(job).map(|inbox| inbox.note_durable(items));
        self.wake_later(wakes);
    }

    /// Notes how many items a job has that another client has sent.
    pub(crate) fn note_items(&mut self, job: u64, items: u64) {
        if let Some(inbox) = self.inbox(job) {
            inbox.set_pulled(items);
        }
    }

    /// Ends all jobs as cancelled: no other end will arrive.
    pub(crate) fn cancel_all(&mut self) {
        self.end_all(&End::Cancelled);
    }

    /// Sets the limit of each job: another coordinator has the jobs.
    pub(crate) fn set_limits(&mut self, limit: impl Fn(u64) -> u64) {
        let Inboxes { open, wakes, .. } = self;
        let woken = open.values().map(|inbox| inbox.set_limit(limit(inbox.job())));
        wakes.extend(woken.filter(|wakes| !wakes.is_empty()));
    }

    /// Fails the pool: all jobs end with this error.
    pub(crate) fn fail(&mut self, error: Error) {
        self.end_all(&End::PoolFailed(error.clone()));
        self.failure.get_or_insert(error);
    }

    /// Notes that the session has ended.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.end_all(&End::Closed);
    }

    /// Returns why the pool can no longer run anything, if it failed.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.failure.clone()
    }

    /// Returns whether the session has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Returns the inboxes of jobs that have not ended.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Inbox>> {
        self.open.values()
    }

    /// Takes what deliveries wake: the caller wakes it after releasing the session's lock.
    pub(crate) fn take_wakes(&mut self) -> Vec<Wakes> {
        std::mem::take(&mut self.wakes)
    }

    fn inbox(&mut self, job: u64) -> Option<&Arc<Inbox>> {
        if self.latest.as_ref().is_none_or(|inbox| inbox.job() != job) {
            self.latest = self.open.get(&job).cloned();
        }
        self.latest.as_ref()
    }

    /// Ends a job.
    pub(crate) fn end(&mut self, job: u64, end: End) {
        self.latest = None;
        let wakes = self.open.remove(&job).map(|inbox| inbox.end(end));
        self.wake_later(wakes);
    }

    fn end_all(&mut self, end: &End) {
        self.delivered = true;
        while let Some((&job, _)) = self.open.first_key_value() {
            self.end(job, end.clone());
        }
    }

    /// Schedules wake-ups for when the session's lock is released.
    pub(crate) fn wake_later(&mut self, wakes: Option<Wakes>) {
        self.wakes.extend(wakes.filter(|wakes| !wakes.is_empty()));
    }
}
