//! Outcomes that arrived and were not taken yet, between the reading thread and the consumer.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use farpool_proto::v1::{DetachedJob, ItemsDone};
use tokio::sync::Notify;

use crate::error::Error;

/// The reading thread pauses at this many bytes until some were taken.
const MOST_BYTES: usize = 4 << 20;
/// Bytes that a failed item counts for, besides its message.
const FAILURE_BYTES: usize = 256;

#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    news: Condvar,
    /// Notified when an outcome was taken.
    taken: Notify,
    /// The consumer is gone.
    gone: Notify,
    /// Notified when a wait may have begun or ended.
    waits: Notify,
}

#[derive(Default)]
struct State {
    arrivals: VecDeque<(Arrival, usize)>,
    bytes: usize,
    items: u64,
    end: Option<End>,
    waker: Option<Waker>,
    /// Threads that wait for news.
    waiting: usize,
    abandoned: bool,
}

pub(super) enum Arrival {
    Done(ItemsDone),
    /// Consecutive items: the first, how many, and their error.
    Failed(u64, u64, Error),
}

/// What follows the last outcome.
#[derive(Clone, Debug)]
pub enum End {
    /// Every item has its outcome.
    Finished,
    /// It was cancelled.
    Cancelled,
    /// Its pool cannot run.
    Failed(Error),
    /// The job can no longer be read.
    Broken(Error),
    /// All outcomes so far were read, as requested; the job is still running.
    Running,
}

/// The reading thread's side.
impl Inbox {
    pub(super) fn put(&self, arrival: Arrival) {
        let bytes = match &arrival {
            Arrival::Done(done) => done.data.len() + done.ends.len(),
            Arrival::Failed(.., error) => FAILURE_BYTES + error.message().len(),
        };
        self.change(|state| {
            state.bytes += bytes;
            state.arrivals.push_back((arrival, bytes));
        });
    }

    /// Sets how many items the job has.
    pub(super) fn describe(&self, job: &DetachedJob) {
        self.state().items = job.items;
    }

    /// Sets the end; only the first one counts.
    pub(super) fn end(&self, end: End) {
        self.change(|state| {
            state.end.get_or_insert(end);
        });
    }

    /// Completes when there is room for more.
    pub(super) async fn room(&self) {
        while self.state().bytes >= MOST_BYTES {
            self.taken.notified().await;
        }
    }

    /// Completes when the consumer is gone.
    pub(super) async fn abandoned(&self) {
        while !self.state().abandoned {
            self.gone.notified().await;
        }
    }

    /// Completes when the consumer's waiting state differs from `before`, and returns that state. May be dropped at any time.
    pub(super) async fn waits_changed(&self, before: bool) -> bool {
        loop {
            let is_awaited = self.state().is_awaited();
            if is_awaited != before {
                return is_awaited;
            }
            self.waits.notified().await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let waker = state.waker.take();
        drop(state);
        self.news.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The consumer's side.
impl Inbox {
    /// Returns the next outcomes, or how the job ended; `None` if nothing has arrived yet.
    pub(super) fn take(&self) -> Option<Result<Arrival, End>> {
        let mut state = self.state();
        let Some((arrival, bytes)) = state.arrivals.pop_front() else {
            return state.end.clone().map(Err);
        };
        state.bytes -= bytes;
        drop(state);
        self.taken.notify_one();
        Some(Ok(arrival))
    }

    /// Returns how many items the job has.
    pub(super) fn items(&self) -> u64 {
        self.state().items
    }

    /// Returns the bytes that were not taken yet.
    pub(super) fn bytes(&self) -> usize {
        self.state().bytes
    }

    /// Blocks until there is news.
    pub(super) fn wait(&self) {
        let _lent = farpool_worker::lend();
        let mut state = self.state();
        if state.has_news() {
            return;
        }
        state.waiting += 1;
        self.waits.notify_one();
        let mut state = self.news.wait_while(state, |state| !state.has_news()).unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        self.waits.notify_one();
    }

    /// Wakes the task at the next news; returns whether there already is some.
    pub(super) fn wake_for_news(&self, waker: &Waker) -> bool {
        // Cloning or dropping a waker runs an executor's code, which may do anything: not under the lock.
        let waker = waker.clone();
        let mut state = self.state();
        let is_there = state.has_news();
        // With news there is no wait; a stored waker would indicate one.
        let before = if is_there { state.waker.take() } else { state.waker.replace(waker) };
        drop(state);
        self.waits.notify_one();
        drop(before);
        is_there
    }

    pub(super) fn abandon(&self) {
        self.state().abandoned = true;
        self.gone.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_news(&self) -> bool {
        !self.arrivals.is_empty() || self.end.is_some()
    }

    /// Returns whether the consumer waits for news.
    fn is_awaited(&self) -> bool {
        !self.has_news() && (self.waiting > 0 || self.waker.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_wait_only_while_there_is_no_news() {
        let inbox = Inbox::default();
        let is_awaited = || inbox.state().is_awaited();
        assert!(!is_awaited());
        assert!(!inbox.wake_for_news(Waker::noop()));
        assert!(is_awaited());
        inbox.put(Arrival::Failed(0, 1, Error::invalid("too large")));
        assert!(!is_awaited());
        assert!(inbox.wake_for_news(Waker::noop()), "there is news");
        assert!(inbox.take().is_some());
        assert!(!is_awaited(), "the task handles the outcome");
    }
}
