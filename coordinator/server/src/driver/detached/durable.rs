//! Actions that wait until entries are durable.
//!
//! Entries are handed to the store's writer when it is idle. Entries that are appended meanwhile are written together.

use std::collections::VecDeque;

use farpool_coordinator::ClientId;
use tokio::sync::oneshot;
use tonic::Status;

/// An action for when an entry is durable.
pub(super) enum OnDurable {
    /// Acknowledge an internal client's events up to this one.
    Acknowledge(ClientId, u64),
    /// Give items to the pool: the store has noted that they may have been given out.
    Give(ClientId),
    /// Report to the session in which this job is detached that items before this index are durable, and this many of
    /// the bytes that the session has sent.
    Received(u64, ClientId, u64, u64),
    /// Report to a session that its job is withdrawn.
    Withdrawn(ClientId),
    /// Run a job: it is complete.
    Complete(u64),
    /// Close the pool of a job: it has ended.
    Ended(u64),
    /// Answer a request.
    Answer(oneshot::Sender<Result<(), Status>>),
}

/// Actions that wait: for the entries appended since the last flush, and for entries up to a number.
#[derive(Default)]
pub(super) struct Durable {
    then: Vec<OnDurable>,
    waiting: VecDeque<(u64, OnDurable)>,
}

impl Durable {
    pub(super) fn when_durable(&mut self, then: OnDurable) {
        self.then.push(then);
    }

    /// Notes that everything appended so far is acknowledged with this number.
    pub(super) fn flushed(&mut self, number: u64) {
        self.waiting.extend(self.then.drain(..).map(|then| (number, then)));
    }

    /// Takes the next thing to do if entries up to this number are acknowledged.
    pub(super) fn next(&mut self, acknowledged: u64) -> Option<OnDurable> {
        let is_due = self.waiting.front().is_some_and(|(number, _)| *number <= acknowledged);
        is_due.then(|| self.waiting.pop_front()).flatten().map(|(_, then)| then)
    }
}
