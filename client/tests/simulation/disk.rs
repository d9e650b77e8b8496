//! The disk of a coordinator that keeps detached jobs. It outlives it, as far as what was written is durable.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use farpool_coordinator_server::journal::{Done, Simulated};
use farpool_testkit::random::Random;
use tokio::sync::Notify;

use crate::trace;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// Longer than anything lasts.
const FOR_EVER: Duration = Duration::from_secs(36_000);

pub(crate) struct Disk {
    inner: Arc<Simulated>,
    random: Random,
    is_failing: bool,
    pace: Arc<Mutex<Pace>>,
    hangs: Arc<Notify>,
}

/// How long things take.
struct Pace {
    random: Random,
    is_slow: bool,
    /// So many things are still done, and then nothing is.
    left: Option<u64>,
    /// How often it is to be so again.
    again: u64,
}

/// What a disk may be that does not do what it should.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// Nothing more can be written.
    Full,
    /// What was written cannot be made durable.
    DoesNotSync,
    /// Anything may fail, or not.
    Flaky,
    Unreadable,
}

impl Disk {
    pub(crate) fn new(random: Random) -> Self {
        let mut random = random;
        let pace = Arc::new(Mutex::new(Pace { random: random.fork(), is_slow: false, left: None, again: 0 }));
        let (inner, hangs) = (Arc::<Simulated>::default(), Arc::new(Notify::new()));
        let (own, bell) = (Arc::clone(&pace), Arc::clone(&hangs));
        inner.set_lag(Box::new(move || own.lock().expect("nobody panics with it").lag(&bell)));
        Self { inner, random, is_failing: false, pace, hangs }
    }

    pub(crate) fn inner(&self) -> &Arc<Simulated> {
        &self.inner
    }

    /// Whether what it does not do may be because of that.
    pub(crate) fn is_failing(&self) -> bool {
        self.is_failing
    }

    /// The coordinator's host goes down: all that was synced stays, and any part of the rest.
    pub(crate) fn crash(&mut self) {
        self.pace().draw();
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

    /// Something goes wrong with it.
    pub(crate) fn fail(&mut self) {
        use Trouble::{DoesNotSync, Flaky, Full, Unreadable};
        let trouble = self.random.pick(&[Full, Full, DoesNotSync, DoesNotSync, Flaky, Flaky, Unreadable]);
        trace::say(format_args!("the coordinator's disk: {trouble:?}"));
        self.is_failing = true;
        self.inner.set_unreadable(matches!(trouble, Unreadable));
        let mut random = self.random.fork();
        self.inner.fail(Some(Box::new(move |done| {
            let error = match (trouble, done) {
                (Full, Done::Write(..) | Done::Create(_)) => ENOSPC,
                (DoesNotSync, Done::Sync(_)) => EIO,
                (Flaky, _) if random.one_in(3) => EIO,
                _ => return None,
            };
            Some((io::Error::from_raw_os_error(error), random.below(100) as usize))
        })));
    }

    pub(crate) fn mend(&mut self) {
        self.is_failing = false;
        self.inner.set_unreadable(false);
        self.inner.fail(None);
    }

    pub(crate) fn slow_down(&self, slow: bool) {
        self.pace().is_slow = slow;
    }

    /// Has it hang, so often, before something or other that is to be done.
    pub(crate) fn expect_hangs(&self, times: u64) {
        let mut pace = self.pace();
        pace.again = times;
        pace.draw();
    }

    /// Whether it will hang, if there is enough to be done.
    pub(crate) fn is_to_hang(&self) -> bool {
        self.pace().left.is_some()
    }

    /// Ready when it hangs.
    pub(crate) async fn hangs(&self) {
        self.hangs.notified().await;
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().expect("nobody panics with it")
    }
}

impl Pace {
    fn draw(&mut self) {
        let most = self.random.pick(&[10, 40, 200]);
        let left = self.random.below(most);
        self.left = (self.again > 0).then_some(left);
        self.again = self.again.saturating_sub(1);
    }

    fn lag(&mut self, hangs: &Notify) -> Duration {
        if let Some(left) = &mut self.left {
            if *left == 0 {
                hangs.notify_one();
                return FOR_EVER;
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
