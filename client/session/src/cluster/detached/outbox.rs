//! A job that is being sent to the coordinator, between the encoding thread and the sending thread.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{EndItems, Items};
use tokio::sync::Notify;

use super::super::kept::batch::cut;
use crate::counted::Counted;
use crate::error::Error;

/// No further items are pulled at this many bytes that are not durable.
const MOST_BYTES: usize = 16 << 20;

#[derive(Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    changed: Condvar,
    /// Notified when there is something to send, or the job is no longer wanted.
    bell: Notify,
}

#[derive(Default)]
struct State {
    /// Messages that are not durable yet, in order.
    kept: VecDeque<Items>,
    bytes: usize,
    /// How many of `kept` were sent on this connection, and whether the end was sent.
    sent: usize,
    sent_end: bool,
    /// Number of items so far, and whether there are more.
    items: u64,
    ended: bool,
    durable: u64,
    /// The coordinator has accepted the job's name.
    taken: bool,
    abandoned: bool,
    over: Option<Result<(), Error>>,
}

/// Why the coordinator's report of what is durable is impossible.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Untrue {
    /// Items that were durable no longer are.
    Lost,
    /// Items that were never sent.
    TooMany,
}

/// The encoding thread's side.
impl Outbox {
    /// Blocks until the coordinator has accepted the job.
    pub(super) fn wait_until_taken(&self) -> Result<(), Error> {
        self.wait(|state| state.taken)
    }

    /// Blocks until there is room, then appends items.
    pub(super) fn put(&self, items: Items) -> Result<(), Error> {
        self.wait(|state| state.bytes < MOST_BYTES)?;
        self.push(items);
        Ok(())
    }

    /// Appends items, even without room.
    pub(super) fn push(&self, items: Items) {
        let mut state = self.state();
        state.items += count(&items);
        state.bytes += size(&items);
        state.kept.push_back(items);
        drop(state);
        self.bell.notify_one();
    }

    /// Ends the input, and blocks until the whole job is durable.
    pub(super) fn finish(&self) -> Result<(), Error> {
        self.end_input();
        self.wait(|_| false)
    }

    /// Ends the input.
    pub(super) fn end_input(&self) {
        self.state().ended = true;
        self.bell.notify_one();
    }

    /// Withdraws the job, and blocks until the coordinator was told, if it can be.
    pub(super) fn abandon(&self) {
        self.give_up();
        // It has ended in an error, or it has ended so.
        let _ = self.wait(|_| false);
    }

    /// Withdraws the job: it is no longer wanted.
    pub(super) fn give_up(&self) {
        self.state().abandoned = true;
        self.bell.notify_one();
    }

    fn wait(&self, enough: impl Fn(&State) -> bool) -> Result<(), Error> {
        let _lent = farpool_worker::lend();
        let wait = |state: &mut State| state.over.is_none() && !enough(state);
        let state = self.changed.wait_while(self.state(), wait).unwrap_or_else(PoisonError::into_inner);
        state.over.clone().unwrap_or(Ok(()))
    }
}

/// The sending thread's side.
impl Outbox {
    /// Returns what to send next.
    pub(super) fn unsent(&self, job: u64) -> Vec<Body> {
        let mut state = self.state();
        let mut messages: Vec<_> = state.kept.iter().skip(state.sent).cloned().map(Body::Items).collect();
        state.sent = state.kept.len();
        if state.ended && !std::mem::replace(&mut state.sent_end, true) {
            messages.push(Body::EndItems(EndItems { job }));
        }
        messages
    }

    /// Notes that items before this one are durable. `anew`: the rest must be sent on another connection.
    pub(super) fn note_durable(&self, durable: u64, anew: bool) -> Result<(), Untrue> {
        let mut state = self.state();
        if durable < state.durable {
            return Err(Untrue::Lost);
        }
        if durable > state.items {
            return Err(Untrue::TooMany);
        }
        state.drop_front(durable);
        if anew {
            (state.sent, state.sent_end) = (0, false);
        }
        state.taken = true;
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Notes the coordinator's report that it has the whole job, which is valid only after the end of the input.
    pub(super) fn note_complete(&self) -> Result<(), Untrue> {
        let mut state = self.state();
        if !state.ended {
            return Err(Untrue::TooMany);
        }
        let items = state.items;
        state.drop_front(items);
        Ok(())
    }

    /// Completes when there is something to send, or the job is no longer wanted.
    pub(super) async fn rung(&self) {
        self.bell.notified().await;
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.state().abandoned
    }

    /// Returns how sending ended, if it has.
    pub(super) fn outcome(&self) -> Option<Result<(), Error>> {
        self.state().over.clone()
    }

    pub(super) fn end(&self, how: Result<(), Error>) {
        self.state().over.get_or_insert(how);
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn drop_front(&mut self, durable: u64) {
        self.durable = durable;
        while let Some(front) = self.kept.front_mut() {
            let (first, all) = (front.first, count(front));
            let through = durable.saturating_sub(first);
            if through < all {
                if through > 0 {
                    self.bytes -= size(front);
                    (front.data, front.ends) =
                        cut(&front.data, &front.ends, through as usize, (all - through) as usize);
                    front.first = durable;
                    self.bytes += size(front);
                }
                return;
            }
            self.bytes -= size(front);
            self.kept.pop_front();
            self.sent = self.sent.saturating_sub(1);
        }
    }
}

impl Counted for Outbox {
    fn count(&self) -> u64 {
        self.state().durable
    }

    fn is_over(&self) -> bool {
        self.state().over.is_some()
    }
}

fn count(items: &Items) -> u64 {
    (items.ends.len() / 4) as u64
}

fn size(items: &Items) -> usize {
    items.data.len() + items.ends.len()
}
