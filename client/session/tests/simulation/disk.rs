//! The disk of a coordinator that keeps detached jobs. Durable data outlives the coordinator.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use farpool_coordinator_server::journal::{Done, Simulated};
use farpool_testkit::random::Random;
use tokio::sync::Notify;

use crate::trace;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// Longer than any history.
const FOREVER: Duration = Duration::from_secs(36_000);

pub(crate) struct Disk {
    inner: Arc<Simulated>,
    random: Random,
    is_failing: bool,
    timing: Arc<Mutex<Timing>>,
    hangs: Arc<Notify>,
}

/// How long operations take, and when they hang.
struct Timing {
    random: Random,
    is_slow: bool,
    /// How many operations still complete before the disk hangs.
    steps_left: Option<u64>,
    /// How often it will hang again after that.
    hangs_left: u64,
}

/// The ways in which a disk fails.
#[derive(Clone, Copy, Debug)]
enum DiskFault {
    /// Nothing more can be written.
    Full,
    /// What was written cannot be made durable.
    DoesNotSync,
    /// Any operation may fail.
    Flaky,
    Unreadable,
}

impl Disk {
    pub(crate) fn new(random: Random) -> Self {
        let mut random = random;
        let timing =
            Arc::new(Mutex::new(Timing { random: random.fork(), is_slow: false, steps_left: None, hangs_left: 0 }));
        let (inner, hangs) = (Arc::<Simulated>::default(), Arc::new(Notify::new()));
        let (own, notify) = (Arc::clone(&timing), Arc::clone(&hangs));
        inner.set_lag(Box::new(move || own.lock().expect("a thread panicked while it held the lock").lag(&notify)));
        Self { inner, random, is_failing: false, timing, hangs }
    }

    pub(crate) fn inner(&self) -> &Arc<Simulated> {
        &self.inner
    }

    /// Returns whether errors are expected.
    pub(crate) fn is_failing(&self) -> bool {
        self.is_failing
    }

    /// The coordinator's host goes down: synced data stays, and any part of the rest.
    pub(crate) fn crash(&mut self) {
        self.timing().draw();
        let random = &mut self.random;
        self.inner.crash(|most| {
            let kept = match random.below(3) {
                0 => 0,
                1 => most,
                _ => random.below(most as u64 + 1) as usize,
            };
            let from = random.below(kept as u64 + 1) as usize;
            let to = random.within(from as u64..kept as u64 + 1) as usize;
            (kept, if random.one_in(2) { from..to } else { 0..0 })
        });
    }

    /// Draws a fault, and injects it.
    pub(crate) fn fail(&mut self) {
        use DiskFault::{DoesNotSync, Flaky, Full, Unreadable};
        let fault = self.random.pick(&[Full, Full, DoesNotSync, DoesNotSync, Flaky, Flaky, Unreadable]);
        trace::log(format_args!("the coordinator's disk: {fault:?}"));
        self.is_failing = true;
        self.inner.set_unreadable(matches!(fault, Unreadable));
        let mut random = self.random.fork();
        self.inner.fail(Some(Box::new(move |done| {
            let error = match (fault, done) {
                (Full, Done::Write(..) | Done::Create(_)) => ENOSPC,
                (DoesNotSync, Done::Sync(_)) => EIO,
                (Flaky, _) if random.one_in(3) => EIO,
                _ => return None,
            };
            Some((io::Error::from_raw_os_error(error), random.below(100) as usize))
        })));
    }

    pub(crate) fn repair(&mut self) {
        self.is_failing = false;
        self.inner.set_unreadable(false);
        self.inner.fail(None);
    }

    pub(crate) fn slow_down(&self, slow: bool) {
        self.timing().is_slow = slow;
    }

    /// Makes it hang this often, before random operations.
    pub(crate) fn expect_hangs(&self, times: u64) {
        let mut timing = self.timing();
        timing.hangs_left = times;
        timing.draw();
    }

    /// Returns whether it will hang after enough operations.
    pub(crate) fn is_to_hang(&self) -> bool {
        self.timing().steps_left.is_some()
    }

    /// Completes when it hangs.
    pub(crate) async fn hangs(&self) {
        self.hangs.notified().await;
    }

    fn timing(&self) -> MutexGuard<'_, Timing> {
        self.timing.lock().expect("a thread panicked while it held the lock")
    }
}

impl Timing {
    fn draw(&mut self) {
        let most = self.random.pick(&[10, 40, 200]);
        let left = self.random.below(most);
        self.steps_left = (self.hangs_left > 0).then_some(left);
        self.hangs_left = self.hangs_left.saturating_sub(1);
    }

    fn lag(&mut self, hangs: &Notify) -> Duration {
        if let Some(left) = &mut self.steps_left {
            if *left == 0 {
                hangs.notify_one();
                return FOREVER;
            }
            *left -= 1;
        }
        match self.random.pick(&[0, 0, 0, 1, 10]) {
            _ if self.is_slow => self.random.millis(1..400),
            0 => Duration::ZERO,
            most => self.random.millis(0..most),
        }
    }
}
