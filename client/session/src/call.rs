//! A job on the client's side while its messages are being sent: its session, its inbox, and the messages to send.

use std::sync::Arc;

use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{CancelJob, OpenJob, StopRetries};

use crate::error::Error;
use crate::fork::Owned;
use crate::inbox::{Inbox, Interest};
use crate::session::Session;

/// A job that is cancelled when this is dropped before [`Call::settle`]: on an early return, a panic, or when the
/// consumer has lost interest.
pub struct Call {
    /// The session that the job belongs to.
    pub session: Session,
    /// The inbox that its outcomes arrive in.
    pub inbox: Owned<Arc<Inbox>>,
    /// The messages that the next [`Call::flush`] sends; the first of all is [`Body::OpenJob`].
    pub messages: Vec<Body>,
    opened: bool,
    settled: bool,
    /// Whether shared values that are dropped now stay until it is open.
    begins: bool,
}

impl Session {
    /// Creates a job with a new number; the first flush opens it at the coordinator. Errors name `verb`, the call that
    /// started it, and `label`.
    ///
    /// # Errors
    /// In a fork of the process that has opened the pool, and if the function is too large for its coordinator.
    pub fn begin(&self, verb: &'static str, label: &str, open: OpenJob, interest: Interest) -> Result<Call, Error> {
        let carrier = self.here()?;
        let open = OpenJob { job: self.next_job(), ..open };
        let inbox = Inbox::new(open.job, verb, label, interest).in_session(carrier.window(), carrier.gate());
        self.check_function(open.function.len()).map_err(|error| inbox.add_context(error))?;
        Ok(Call::new(self.clone(), inbox, open))
    }
}

impl Call {
    /// Creates a job; the first flush opens it at the coordinator.
    pub fn new(session: Session, inbox: Inbox, open: OpenJob) -> Self {
        // A job of one item has two more messages.
        let mut messages = Vec::with_capacity(3);
        messages.push(Body::OpenJob(Box::new(open)));
        let inbox = Owned::of(session.owner(), Arc::new(inbox));
        session.dropped_values().call_begins();
        Self { session, inbox, messages, opened: false, settled: false, begins: true }
    }

    /// Sends all messages.
    pub fn flush(&mut self) -> Result<(), Error> {
        if !self.opened {
            return self.open(Session::submit);
        }
        let sent = self.session.send(&mut self.messages);
        sent.map_err(|error| self.inbox.add_context(error))
    }

    /// Sends all messages of a job of one item, and waits until something of it has arrived. It may return early.
    pub fn flush_and_wait(&mut self) -> Result<(), Error> {
        // Dropped values must not wait for the outcome.
        self.open(if self.session.dropped_values().used() { Session::submit } else { Session::call })
    }

    /// Sends all messages of a job that no thread waits for yet.
    pub fn flush_soon(&mut self) -> Result<(), Error> {
        self.open(Session::submit_soon)
    }

    /// Says that no item is encoded before [`resume`](Self::resume), or never.
    pub fn postpone(&mut self) {
        if std::mem::take(&mut self.begins) && self.session.owner().is_here() {
            self.session.dropped_values().call_opened();
        }
    }

    /// Says that items are about to be encoded, which may use shared values.
    pub fn resume(&mut self) {
        if !self.opened && !std::mem::replace(&mut self.begins, true) {
            self.session.dropped_values().call_begins();
        }
    }

    /// Opens the job with its first messages.
    #[inline]
    fn open(
        &mut self,
        send: impl FnOnce(&Session, &Arc<Inbox>, &mut Vec<Body>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.opened = true;
        let opened = send(&self.session, &self.inbox, &mut self.messages).inspect_err(|_| self.settled = true);
        self.postpone();
        opened.map_err(|error| self.inbox.add_context(error))
    }

    /// Lets the job continue when this is dropped.
    pub fn settle(&mut self) {
        self.settled = true;
    }

    /// Stops retrying items that panic or count as failed.
    pub fn stop_retries(&mut self) {
        for message in &mut self.messages {
            if let Body::OpenJob(open) = message {
                (open.retry_panics, open.retry_failed) = (false, false);
            }
        }
        if self.opened && !self.settled && !self.inbox.ended() {
            // It fails only if the session has ended, which ends the job.
            let _ = self.session.send(&mut vec![Body::StopRetries(StopRetries { job: self.inbox.job() })]);
        }
    }

    /// Cancels the job, unless it has ended.
    pub fn cancel(&mut self) {
        if self.opened && !std::mem::replace(&mut self.settled, true) {
            cancel(&self.session, &self.inbox);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.session.owner().is_here() {
            self.postpone();
            self.cancel();
            self.inbox.lose_consumer();
        }
    }
}

/// Asks the session to end a job, unless it has ended.
pub fn cancel(session: &Session, inbox: &Inbox) {
    if !inbox.ended() {
        // A session that refuses messages has ended the job, or will.
        let _ = session.send(&mut vec![Body::CancelJob(CancelJob { job: inbox.job() })]);
    }
}
