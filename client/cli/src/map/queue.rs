//! Items that have been read and not been given out: bounded, so that endless input takes constant memory.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::item::Item;

/// A queue from the thread that reads to the one that gives out.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    room: Condvar,
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    end: Option<io::Result<()>>,
    /// Nobody takes any more.
    abandoned: bool,
    waker: Option<Waker>,
}

const MOST_ITEMS: usize = 1024;
const MOST_BYTES: usize = 4 << 20;

impl Queue {
    /// Waits for room. Returns whether anybody wants it.
    pub(super) fn push(&self, item: Item) -> bool {
        let full =
            |state: &mut State| !state.abandoned && (state.items.len() >= MOST_ITEMS || state.bytes >= MOST_BYTES);
        let mut state = self.room.wait_while(self.lock(), full).unwrap_or_else(PoisonError::into_inner);
        if state.abandoned {
            return false;
        }
        state.bytes += item.bytes();
        state.items.push_back(item);
        self.tell(state);
        true
    }

    /// No more will come.
    pub(super) fn end(&self, how: io::Result<()>) {
        let mut state = self.lock();
        state.end = Some(how);
        self.tell(state);
    }

    /// The next item, if there is one by then.
    pub(super) fn pop(&self, patience: Duration) -> Option<Item> {
        let empty = |state: &mut State| state.items.is_empty() && state.end.is_none();
        let (mut state, _) =
            self.news.wait_timeout_while(self.lock(), patience, empty).unwrap_or_else(PoisonError::into_inner);
        let item = state.items.pop_front()?;
        state.bytes -= item.bytes();
        drop(state);
        self.room.notify_one();
        Some(item)
    }

    /// Whether there is an item, or else how the input ended. If neither: wakes when there is.
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

    /// Nobody will take any more: the thread that reads may end.
    pub(super) fn abandon(&self) {
        self.lock().abandoned = true;
        self.room.notify_one();
    }

    fn tell(&self, mut state: MutexGuard<'_, State>) {
        let waker = state.waker.take();
        drop(state);
        self.news.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
