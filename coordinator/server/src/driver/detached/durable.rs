//! What follows when something outlives the coordinator.
//!
//! The store is given what there is when it writes nothing, and what comes meanwhile goes together.

use std::collections::VecDeque;

use farpool_coordinator::ClientId;
use tokio::sync::oneshot;
use tonic::Status;

use super::super::super::link::StreamId;

/// What waits for the store.
pub(super) enum Then {
    /// What the client of a pool heard up to this message counts as taken in.
    Acknowledge(ClientId, u64),
    /// Items may be given out: it is noted that they may have been.
    Give(ClientId),
    /// Items in front of this index came on a stream.
    Received(u64, StreamId, u64),
    /// A job is complete.
    Complete(u64),
    /// A job has ended.
    Ended(u64),
    /// Somebody is told that something was done.
    Answer(oneshot::Sender<Result<(), Status>>),
}

/// What follows when all that was appended so far is acknowledged, and when the entries up to a number are.
#[derive(Default)]
pub(super) struct Durable {
    then: Vec<Then>,
    waiting: VecDeque<(u64, Then)>,
}

impl Durable {
    pub(super) fn follows(&mut self, then: Then) {
        self.then.push(then);
    }

    /// All that was appended so far is acknowledged with this number.
    pub(super) fn flushed(&mut self, number: u64) {
        self.waiting.extend(self.then.drain(..).map(|then| (number, then)));
    }

    /// The next thing that follows, if entries up to this number are acknowledged.
    pub(super) fn next(&mut self, acknowledged: u64) -> Option<Then> {
        let is_due = self.waiting.front().is_some_and(|(number, _)| *number <= acknowledged);
        is_due.then(|| self.waiting.pop_front()).flatten().map(|(_, then)| then)
    }
}
