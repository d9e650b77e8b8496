//! Outcomes that have come and were not taken: between the thread that reads them and whoever wants them.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use farpool_proto::v1::{DetachedJob, ItemsDone};
use tokio::sync::Notify;

use crate::error::Error;

/// With so many bytes nothing more is read, until some were taken.
const MOST_BYTES: usize = 4 << 20;
/// What an item that failed counts for, beside its words.
const FAILURE_BYTES: usize = 256;

#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    news: Condvar,
    /// Something was taken.
    taken: Notify,
    /// Nobody wants anything any more.
    gone: Notify,
    /// Somebody may have begun or stopped waiting.
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
    /// Consecutive items: the first, and how many there are.
    Failed(u64, u64, Error),
}

/// What follows the last outcome.
#[derive(Clone, Debug)]
pub enum End {
    /// Every item has had its outcome.
    Finished,
    /// It was cancelled.
    Cancelled,
    /// Its pool cannot run.
    Failed(Error),
    /// It cannot be asked for any more.
    Broken(Error),
    /// What was there was all that was wanted; the job goes on.
    Running,
}

/// The side of the thread.
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

    /// The job has so many items.
    pub(super) fn describe(&self, job: &DetachedJob) {
        self.state().items = job.items;
    }

    /// Only the first end counts.
    pub(super) fn end(&self, end: End) {
        self.change(|state| {
            state.end.get_or_insert(end);
        });
    }

    /// Ready when there is room for more.
    pub(super) async fn room(&self) {
        while self.state().bytes >= MOST_BYTES {
            self.taken.notified().await;
        }
    }

    /// Ready when nobody wants anything any more.
    pub(super) async fn abandoned(&self) {
        while !self.state().abandoned {
            self.gone.notified().await;
        }
    }

    /// Ready when whether somebody waits for news differs from `before`; returns whether somebody waits. Can be dropped at any time.
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

/// The side of whoever takes outcomes.
impl Inbox {
    /// The next ones, or how it ended; `None`: nothing is there yet.
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

    /// Items of the job.
    pub(super) fn items(&self) -> u64 {
        self.state().items
    }

    /// Bytes that are there.
    pub(super) fn bytes(&self) -> usize {
        self.state().bytes
    }

    /// Blocks until there is something.
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

    /// Wakes the task at the next news; returns whether there is some already.
    pub(super) fn wake_for_news(&self, waker: &Waker) -> bool {
        // To copy one and to drop one is an executor's code, which may do anything: not under the lock.
        let waker = waker.clone();
        let mut state = self.state();
        let is_there = state.has_news();
        // With news nobody waits; a waker that is kept would say otherwise.
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

    /// Whether somebody waits for news.
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
