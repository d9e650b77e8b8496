//! Items that were read and not dispatched yet: bounded, so that endless input takes constant memory.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::item::Item;

/// A queue from the thread that reads items to the one that dispatches them.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    room: Condvar,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    end: Option<io::Result<()>>,
    /// The receiver takes no more items.
    abandoned: bool,
    waker: Option<Waker>,
}

const MAX_ITEMS: usize = 1024;
const MAX_BYTES: usize = 4 << 20;

impl Queue {
    /// Waits for room and adds an item. Returns false if the receiver takes no more.
    pub(super) fn push(&self, item: Item) -> bool {
        let full = |state: &mut State| !state.abandoned && (state.items.len() >= MAX_ITEMS || state.bytes >= MAX_BYTES);
        let mut state = self.room.wait_while(self.lock(), full).unwrap_or_else(PoisonError::into_inner);
        if state.abandoned {
            return false;
        }
        state.bytes += item.bytes();
        state.items.push_back(item);
        self.notify(state);
        true
    }

    /// Ends the queue.
    pub(super) fn end(&self, how: io::Result<()>) {
        let mut state = self.lock();
        state.end = Some(how);
        self.notify(state);
    }

    /// Waits for the next item, up to `timeout`.
    pub(super) fn pop(&self, timeout: Duration) -> Option<Item> {
        let empty = |state: &mut State| state.items.is_empty() && state.end.is_none();
        let (mut state, _) =
            self.changed.wait_timeout_while(self.lock(), timeout, empty).unwrap_or_else(PoisonError::into_inner);
        let item = state.items.pop_front()?;
        state.bytes -= item.bytes();
        drop(state);
        self.room.notify_one();
        Some(item)
    }

    /// Returns whether there is an item, or how the input ended. Otherwise wakes the caller when that changes.
    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<Result<bool, io::Error>> {
        let mut state = self.lock();
        if !state.items.is_empty() {
            return Poll::Ready(Ok(true));
        }
        match state.end.take() {
            Some(how) => {
                state.end = Some(Ok(()));
                Poll::Ready(how.map(|()| false))
            }
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Stops the queue: the receiver takes no more, so the reading thread may end.
    pub(super) fn abandon(&self) {
        self.lock().abandoned = true;
        self.room.notify_one();
    }

    fn notify(&self, mut state: MutexGuard<'_, State>) {
        let waker = state.waker.take();
        drop(state);
        self.changed.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
