//! The thread that writes: the journal's owner never waits for the disk.
//!
//! It takes all batches that are there, writes them, and makes them durable together ([`Group`]). If that fails, they are kept, and
//! written again, until it does not. While it fails the owner can have records withdrawn.

use std::io;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::group::{Attempt, Group, Withdrawal};
use super::handed::Handed;
use super::left_out::LeftOut;
use super::part::Part;
use super::place::Place;
use super::storage::Storage;
use crate::progress::Wakeup;

/// How long it waits before it tries again, at first and at most.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What the thread has to tell.
#[derive(Debug, Default)]
pub(super) struct Shared {
    report: Mutex<Report>,
    changed: Condvar,
    pub(super) wakeup: Wakeup,
    /// It is to be tried again at once. For who waits in a task.
    pub(super) hurry: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) durable: u64,
    /// Why nothing can be written.
    pub(super) failed: Option<Arc<str>>,
    /// Records that could not be copied, and why.
    pub(super) unreadable: Vec<(Place, String)>,
    /// Segments that were set aside, and under which names.
    pub(super) set_aside: Vec<(u32, String)>,
    /// Records that are to be withdrawn, unless they become durable now.
    withdrawals: Vec<Withdrawal>,
    /// It is to be tried again at once.
    hurry: bool,
    /// Those that were.
    pub(super) withdrawn: Vec<Place>,
    /// Jobs of which nobody wants the items any more.
    refused: Vec<u64>,
    /// Records that readers look for, since they have been moved.
    pub(super) questions: Vec<Question>,
    /// The owner is gone, and answers nothing.
    is_deaf: bool,
    /// The owner is going.
    stopping: bool,
    /// The thread has ended.
    gone: bool,
}

/// Asks where parts are now. The answer ends in front of the first that is not kept any more.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) parts: Vec<Part>,
    pub(super) reply: oneshot::Sender<Vec<Place>>,
}

impl Shared {
    pub(super) fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the owner where these are now; nowhere, if it is gone.
    pub(super) async fn find(&self, parts: Vec<Part>) -> Vec<Place> {
        let (reply, answer) = oneshot::channel();
        {
            let mut report = self.report();
            if report.is_deaf {
                return Vec::new();
            }
            report.questions.push(Question { parts, reply });
        }
        self.wakeup.wake();
        answer.await.unwrap_or_default()
    }

    /// The owner answers no more questions.
    pub(super) fn turn_deaf(&self) {
        let mut report = self.report();
        report.is_deaf = true;
        report.questions.clear();
    }

    /// Has the thread try once more, and then no longer.
    pub(super) fn stop(&self) {
        self.report().stopping = true;
        self.changed.notify_all();
    }

    /// Has the thread try once more at once, and withdraw a record if that fails. Nothing, if it does not fail any more.
    pub(super) fn withdraw(&self, withdrawal: Withdrawal) {
        self.hurry(|report| report.withdrawals.push(withdrawal));
    }

    /// Has the thread leave out the items of a job, since they may be what the disk has no room for.
    pub(super) fn refuse(&self, job: u64) {
        self.report().refused.push(job);
        self.try_again();
    }

    /// Has the thread try once more at once, if it fails.
    pub(super) fn try_again(&self) {
        self.hurry(|_| ());
    }

    fn hurry(&self, change: impl FnOnce(&mut Report)) {
        let mut report = self.report();
        if report.failed.is_some() {
            change(&mut report);
            report.hurry = true;
            drop(report);
            self.changed.notify_all();
            self.hurry.notify_one();
        }
    }

    /// Waits until so much is durable, or it fails; says whether it is.
    pub(super) fn wait_for(&self, number: u64) -> bool {
        let over = |report: &mut Report| report.durable < number && report.failed.is_none() && !report.gone;
        let report = self.changed.wait_while(self.report(), over).unwrap_or_else(PoisonError::into_inner);
        report.durable >= number
    }

    /// An attempt to write a group has ended; says whether it is written. If not, what is to be withdrawn is, and items that nobody wants
    /// are left out. `left_out`: what is left out of later groups.
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
                report.hurry = false;
                std::mem::take(&mut report.withdrawals)
            };
            let withdrawn = group.withdraw(storage, asked, &mut left_out.withdrawn);
            self.report().withdrawn.extend(withdrawn);
            if group.leave_out_refused(storage, &left_out.refused) {
                self.report().hurry = true;
                self.hurry.notify_one();
            }
        }
        self.tell(|report| match written {
            Ok(()) => {
                (report.durable, report.failed) = (group.number, None);
                (report.hurry, report.withdrawals) = (false, Vec::new());
                report.unreadable.extend(group.take_unreadable());
                report.set_aside.append(&mut group.take_set_aside());
            }
            Err(error) => report.failed = Some(error.to_string().into()),
        });
        is_written
    }

    fn tell(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.report());
        self.changed.notify_all();
        self.wakeup.wake();
    }

    /// Waits a while, or until it is to be tried again; says whether it is the last try that follows.
    fn pause(&self, time: Duration) -> bool {
        let rest = |report: &mut Report| !report.stopping && !report.hurry;
        let waited = self.changed.wait_timeout_while(self.report(), time, rest);
        waited.unwrap_or_else(PoisonError::into_inner).0.stopping
    }
}

/// However the thread ends, nobody waits for it any more.
struct Gone(Arc<Shared>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.tell(|report| {
            report.gone = true;
            report.failed.get_or_insert_with(|| "its thread has ended".into());
        });
    }
}

/// How long to wait before the next try: longer and longer.
pub(super) struct Waits(Duration);

impl Default for Waits {
    fn default() -> Self {
        Self(FIRST_WAIT)
    }
}

impl Waits {
    pub(super) fn next(&mut self) -> Duration {
        let longer = (2 * self.0).min(LONGEST_WAIT);
        std::mem::replace(&mut self.0, longer)
    }
}

/// Writes until there is nobody any more who could send something.
pub(super) fn run(storage: &dyn Storage, batches: &Receiver<Handed>, shared: &Arc<Shared>) {
    let _gone = Gone(Arc::clone(shared));
    let mut left_out = LeftOut::default();
    while let Ok(first) = batches.recv() {
        let mut group = Group::gather(first, &mut left_out, || batches.try_recv().ok());
        let (mut waits, mut last_try) = (Waits::default(), false);
        loop {
            let written = write(storage, group.attempt());
            if shared.note(storage, &mut group, written, &mut left_out) {
                break;
            }
            if last_try {
                return;
            }
            last_try = shared.pause(waits.next());
        }
    }
}

fn write(storage: &dyn Storage, mut attempt: Attempt<'_>) -> io::Result<()> {
    while attempt.step(storage)? {}
    Ok(())
}
