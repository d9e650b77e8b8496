//! The thread that writes, so that the journal's owner never waits for the disk.
//!
//! It takes all waiting batches, writes them, and makes them durable together ([`Group`]). If that fails, it keeps them
//! and retries until it succeeds. Meanwhile the owner can have records withdrawn.

use std::io;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::group::{Attempt, Group, Withdrawal};
use super::left_out::LeftOut;
use super::location::RecordLocation;
use super::part::Part;
use super::queued::QueuedBatch;
use super::storage::Storage;
use crate::progress::Wakeup;

/// The first and the longest delay before a retry.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// State that the thread shares with the owner.
#[derive(Debug, Default)]
pub(super) struct Shared {
    report: Mutex<Report>,
    changed: Condvar,
    pub(super) wakeup: Wakeup,
    /// Wakes a task that writes, to retry at once.
    pub(super) retry_now: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) durable: u64,
    /// Why nothing can be written.
    pub(super) failed: Option<Arc<str>>,
    /// Records that could not be copied, and why.
    pub(super) unreadable: Vec<(RecordLocation, String)>,
    /// Segments that were set aside, and their new names.
    pub(super) set_aside: Vec<(u32, String)>,
    /// Records to withdraw, unless they become durable now.
    withdrawals: Vec<Withdrawal>,
    /// Whether to retry at once.
    retry_now: bool,
    /// Records that were withdrawn.
    pub(super) withdrawn: Vec<RecordLocation>,
    /// Jobs whose items are no longer needed.
    refused: Vec<u64>,
    /// Readers' lookups of records that were moved.
    pub(super) lookups: Vec<Lookup>,
    /// Whether the owner is gone, so that it answers no lookups.
    owner_gone: bool,
    /// Whether the owner is closing the journal.
    stopping: bool,
    /// Whether the thread has ended.
    exited: bool,
}

/// Asks for the current locations of parts. The answer ends before the first that is no longer kept.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) parts: Vec<Part>,
    pub(super) reply: oneshot::Sender<Vec<RecordLocation>>,
}

impl Shared {
    pub(super) fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the owner for the current locations of these; there are none if it is gone.
    pub(super) async fn find(&self, parts: Vec<Part>) -> Vec<RecordLocation> {
        let (reply, answer) = oneshot::channel();
        {
            let mut report = self.report();
            if report.owner_gone {
                return Vec::new();
            }
            report.lookups.push(Lookup { parts, reply });
        }
        self.wakeup.wake();
        answer.await.unwrap_or_default()
    }

    /// The owner answers no more lookups.
    pub(super) fn stop_answering(&self) {
        let mut report = self.report();
        report.owner_gone = true;
        report.lookups.clear();
    }

    /// Has the thread retry once more, and then end.
    pub(super) fn stop(&self) {
        self.report().stopping = true;
        self.changed.notify_all();
    }

    /// Has the thread retry at once, and withdraw a record if that fails. Does nothing if writing works again.
    pub(super) fn withdraw(&self, withdrawal: Withdrawal) {
        self.retry_with(|report| report.withdrawals.push(withdrawal));
    }

    /// Has the thread leave out the items of a job, as they may be what the disk has no room for.
    pub(super) fn refuse(&self, job: u64) {
        self.report().refused.push(job);
        self.retry_now();
    }

    /// Has the thread retry at once, if writing fails.
    pub(super) fn retry_now(&self) {
        self.retry_with(|_| ());
    }

    fn retry_with(&self, change: impl FnOnce(&mut Report)) {
        let mut report = self.report();
        if report.failed.is_some() {
            change(&mut report);
            report.retry_now = true;
            drop(report);
            self.changed.notify_all();
            self.retry_now.notify_one();
        }
    }

    /// Waits until this number is durable or writing fails; returns whether it is durable.
    pub(super) fn wait_for(&self, number: u64) -> bool {
        let over = |report: &mut Report| report.durable < number && report.failed.is_none() && !report.exited;
        let report = self.changed.wait_while(self.report(), over).unwrap_or_else(PoisonError::into_inner);
        report.durable >= number
    }

    /// Handles the end of an attempt to write a group; returns whether it is written. If not, it withdraws records and
    /// leaves out unneeded items. `left_out`: the records that later groups leave out.
    pub(super) fn note(
        &self,
        storage: &dyn Storage,
        group: &mut Group,
        written: io::Result<()>,
        left_out: &mut LeftOut,
    ) -> bool {
        let is_written = written.is_ok();
        left_out.refused.extend(std::mem::take(&mut self.report().refused));
        if is_written {
            left_out.refused.forget(group.forgets());
        } else {
            let asked = {
                let mut report = self.report();
                report.retry_now = false;
                std::mem::take(&mut report.withdrawals)
            };
            let withdrawn = group.withdraw(storage, asked, &mut left_out.withdrawn);
            self.report().withdrawn.extend(withdrawn);
            if group.leave_out_refused(storage, &left_out.refused) {
                self.report().retry_now = true;
                self.retry_now.notify_one();
            }
        }
        self.update(|report| match written {
            Ok(()) => {
                (report.durable, report.failed) = (group.number, None);
                (report.retry_now, report.withdrawals) = (false, Vec::new());
                report.unreadable.extend(group.take_unreadable());
                report.set_aside.append(&mut group.take_set_aside());
            }
            Err(error) => report.failed = Some(error.to_string().into()),
        });
        is_written
    }

    fn update(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.report());
        self.changed.notify_all();
        self.wakeup.wake();
    }

    /// Waits a while, or until a retry is due; returns whether the next attempt is the last.
    fn pause(&self, time: Duration) -> bool {
        let rest = |report: &mut Report| !report.stopping && !report.retry_now;
        let waited = self.changed.wait_timeout_while(self.report(), time, rest);
        waited.unwrap_or_else(PoisonError::into_inner).0.stopping
    }
}

/// Wakes everyone who waits for the thread, however it ends.
struct ExitGuard(Arc<Shared>);

impl Drop for ExitGuard {
    fn drop(&mut self) {
        self.0.update(|report| {
            report.exited = true;
            report.failed.get_or_insert_with(|| "its thread has ended".into());
        });
    }
}

/// The delay before the next retry, which grows.
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST_WAIT)
    }
}

impl Backoff {
    pub(super) fn next(&mut self) -> Duration {
        let longer = (2 * self.0).min(LONGEST_WAIT);
        std::mem::replace(&mut self.0, longer)
    }
}

/// Writes until all senders are gone.
pub(super) fn run(storage: &dyn Storage, batches: &Receiver<QueuedBatch>, shared: &Arc<Shared>) {
    let _guard = ExitGuard(Arc::clone(shared));
    let mut left_out = LeftOut::default();
    while let Ok(first) = batches.recv() {
        let mut group = Group::gather(first, &mut left_out, || batches.try_recv().ok());
        let (mut backoff, mut last_try) = (Backoff::default(), false);
        loop {
            let written = write(storage, group.attempt());
            if shared.note(storage, &mut group, written, &mut left_out) {
                break;
            }
            if last_try {
                return;
            }
            last_try = shared.pause(backoff.next());
        }
    }
}

fn write(storage: &dyn Storage, mut attempt: Attempt<'_>) -> io::Result<()> {
    while attempt.step(storage)? {}
    Ok(())
}
