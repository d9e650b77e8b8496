//! What the session's thread and the program's threads both touch.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use farpool_net::{Frames, Incoming, Outgoing, outgoing};
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{ClientEvent, ClientMessage, EventFrame};
use tokio::sync::Notify;
use tonic::Streaming;

use super::Address;
use crate::error::Error;
use crate::gate::Gate;
use crate::inbox::{Inbox, Wakes};
use crate::inboxes::Inboxes;

pub(super) struct Shared {
    pub(super) address: Address,
    /// Workers that were asked for; 0: all slots.
    asked: u32,
    /// Workers that there can be at once, as the coordinator said last.
    slots: AtomicU32,
    outgoing: Outgoing<ClientMessage>,
    pub(super) gate: Arc<Gate>,
    /// The session's thread is to look: nobody wants the session any more, or a job begins while nothing can run.
    pub(super) bell: Notify,
    abandoned: AtomicBool,
    state: Mutex<State>,
    over: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) inboxes: Inboxes,
    /// Why nothing of the pool can run for now.
    pub(super) waiting: Option<String>,
    /// Everything ends at once: nobody reads results any more.
    terminated: bool,
    /// The session's thread is through.
    over: bool,
}

/// The side of the program.
impl Shared {
    pub(super) fn new(address: Address, asked: u32) -> (Arc<Self>, Frames<ClientMessage>) {
        // Each job's window bounds what waits to be sent, so nobody waits for it to become less.
        let (outgoing, frames) = outgoing(0, Arc::default());
        let shared = Self {
            address,
            asked,
            slots: AtomicU32::new(0),
            outgoing,
            gate: Arc::default(),
            bell: Notify::new(),
            abandoned: AtomicBool::new(false),
            state: Mutex::default(),
            over: Condvar::new(),
        };
        (Arc::new(shared), frames)
    }

    pub(super) fn submit(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error> {
        let mut state = self.state();
        if let Err(error) = state.inboxes.admit(inbox) {
            messages.clear();
            return Err(error);
        }
        let waiting = state.waiting.is_some();
        // Under the lock, so that no job is opened behind the pool's end.
        self.say_all(messages);
        drop(state);
        if waiting {
            self.bell.notify_one();
        }
        Ok(())
    }

    pub(super) fn send(&self, messages: &mut Vec<Body>) {
        let close = messages.iter().find_map(|body| match body {
            Body::ClosePool(close) => Some(close.now),
            _ => None,
        });
        let Some(now) = close else { return self.say_all(messages) };
        let mut state = self.state();
        state.inboxes.stop_admitting();
        state.terminated |= now;
        self.say_all(messages);
        drop(state);
        self.gate.knock();
    }

    /// What the coordinator says on a stream.
    pub(super) fn incoming(&self, stream: Streaming<EventFrame>, limit: u64) -> Incoming<ClientEvent> {
        self.outgoing.incoming(stream, limit)
    }

    pub(super) fn say(&self, body: Body) {
        self.outgoing.push(ClientMessage { body: Some(body) });
    }

    fn say_all(&self, messages: &mut Vec<Body>) {
        self.outgoing.extend(messages.drain(..).map(|body| ClientMessage { body: Some(body) }));
    }

    /// Blocks until the session is over; `false` if the deadline came first.
    pub(super) fn wait_until_over(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.state();
        while !state.over {
            let Some(deadline) = deadline else {
                state = self.over.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            (state, _) = self.over.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// Workers that run at once.
    pub(super) fn processes(&self) -> u32 {
        if self.asked > 0 { self.asked } else { self.slots.load(Ordering::Relaxed) }
    }

    /// Nobody wants the session any more: its thread is to end, whatever the coordinator does.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.bell.notify_one();
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements: a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The side of the session's thread.
impl Shared {
    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    /// Does something with the state, and wakes whoever has got something by it.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let outcome = change(&mut state);
        let wakes = state.inboxes.take_wakes();
        drop(state);
        wakes.into_iter().for_each(Wakes::wake);
        outcome
    }

    /// Something of the pool can run, with so many workers.
    pub(super) fn note_slots(&self, state: &mut State, slots: u32) {
        self.slots.store(slots, Ordering::Relaxed);
        state.waiting = None;
    }

    /// Whether anybody waits for anything that the coordinator may say.
    pub(super) fn is_waited_for(&self) -> bool {
        let state = self.state();
        state.terminated || state.inboxes.iter().any(|inbox| inbox.is_waited_for())
    }

    /// How many jobs have not ended.
    pub(super) fn open_jobs(&self) -> usize {
        self.state().inboxes.iter().len()
    }

    /// The thread is through: nothing more will come.
    pub(super) fn end(&self, error: Option<Error>) {
        self.change(|state| {
            if let Some(error) = error {
                state.inboxes.fail(error);
            }
            state.inboxes.close();
            state.waiting = None;
            state.over = true;
        });
        self.over.notify_all();
    }
}
