//! Counts waits for outcomes: while a task only waits, the slot of its item is lent.

use std::sync::{Arc, Mutex, PoisonError};

use farpool_worker::LendGuard;

/// Counts waits for outcomes of one session, and reports when the first begins and when the last ends.
pub(crate) struct Waits {
    waiting: Mutex<usize>,
    report: Box<dyn Fn(bool) + Send + Sync>,
}

/// Represents one wait for outcomes, by a sleeping thread or a task, until dropped.
#[must_use = "the wait is over when this is dropped"]
pub(crate) struct Waiting {
    waits: Option<Arc<Waits>>,
    /// Lends the slot of the item that this process itself runs, if it is a worker.
    _lent: LendGuard,
}

impl Waits {
    /// Calls `report` with whether anything waits, from one thread at a time. `report` must not block.
    pub(crate) fn new(report: impl Fn(bool) + Send + Sync + 'static) -> Arc<Waits> {
        Arc::new(Waits { waiting: Mutex::new(0), report: Box::new(report) })
    }

    fn change(&self, change: impl FnOnce(usize) -> usize) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *waiting, 0);
        *waiting = change(before);
        if (before == 0) != (*waiting == 0) {
            // Under the lock, so that reports have the order in which waits begin and end.
            (self.report)(*waiting > 0);
        }
    }
}

/// Begins a wait. `waits`: the session's counter, if it has one.
pub(crate) fn begin(waits: Option<&Arc<Waits>>) -> Waiting {
    if let Some(waits) = waits {
        waits.change(|waiting| waiting + 1);
    }
    Waiting { waits: waits.cloned(), _lent: farpool_worker::lend() }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(waits) = &self.waits {
            waits.change(|waiting| waiting - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_first_wait_and_the_end_of_the_last_are_reported() {
        let (sender, reports) = mpsc::channel();
        let waits = Waits::new(move |waiting| sender.send(waiting).expect("the test does not listen"));
        let reported = || reports.try_iter().collect::<Vec<_>>();
        let first = begin(Some(&waits));
        assert_eq!(reported(), [true]);
        let second = begin(Some(&waits));
        drop(first);
        assert!(reported().is_empty());
        drop(second);
        assert_eq!(reported(), [false]);
        drop(begin(Some(&waits)));
        assert_eq!(reported(), [true, false]);
    }
}
