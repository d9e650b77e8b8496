//! Backpressure: counts outcomes that were delivered but not consumed, and decides whether a session may read on.
//!
//! A session on a cluster reads from a stream. What it does not read waits in the coordinator, which then stops running
//! items of this client. So the session stops reading while a consumer lags far behind. But one stream carries the
//! outcomes of all jobs of the client: while anything waits for an outcome, that outcome may come after the others, and
//! the session reads on.

use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use crate::fork::Owner;
use crate::waits::{self, Waiting, Waits};

/// By default, a session stops reading above this many bytes that were delivered but not yet consumed.
const MOST_BYTES: u64 = 64 << 20;

/// The gate that a session passes before it reads.
pub struct Gate {
    /// The process that owns the session.
    owner: Owner,
    /// The session stops reading above this many bytes.
    most: u64,
    held: AtomicU64,
    /// Whether the session waits at the closed gate: a change that lets it read must wake it.
    shut: AtomicBool,
    knocked: AtomicBool,
    /// Wakes the session while it waits at the closed gate.
    waiting: Mutex<Option<Waker>>,
    /// The counter of waits for outcomes that come through here.
    waits: Option<Arc<Waits>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            owner: Owner::this_process(),
            most: MOST_BYTES,
            held: AtomicU64::new(0),
            shut: AtomicBool::new(false),
            knocked: AtomicBool::new(false),
            waiting: Mutex::default(),
            waits: None,
        }
    }
}

impl Gate {
    /// Makes the gate report whether anything waits for its outcomes.
    pub(crate) fn with_waits(self, waits: Arc<Waits>) -> Gate {
        Gate { waits: Some(waits), ..self }
    }

    /// Makes the gate close above this many bytes.
    pub(crate) fn with_bound(self, most: u64) -> Gate {
        Gate { most, ..self }
    }

    /// Returns how many bytes were delivered but not yet consumed.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::SeqCst)
    }

    /// Registers a wait for outcomes that come through here, until the returned value is dropped.
    pub(crate) fn begin_wait(&self) -> Waiting {
        waits::begin(self.waits.as_ref())
    }

    /// Counts delivered bytes until the returned value is dropped.
    pub fn hold(self: &Arc<Self>, bytes: usize) -> Held {
        let bytes = bytes as u64;
        self.held.fetch_add(bytes, Ordering::SeqCst);
        Held(Some((Arc::clone(self), bytes)))
    }

    /// Lets the session check again when a wait begins or a consumer asks: it reads at least once.
    pub fn knock(&self) {
        if self.shut.load(Ordering::SeqCst) {
            self.knocked.store(true, Ordering::SeqCst);
            self.ring();
        }
    }

    /// Completes when the session may read. `wanted`: whether anything waits for an outcome. May be dropped at any time.
    pub async fn pass(&self, wanted: impl Fn() -> bool) {
        let has_room = || self.held() <= self.most;
        if !has_room() {
            self.shut.store(true, Ordering::SeqCst);
            poll_fn(|context| {
                *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
                // Any later change wakes the session, and any earlier one is visible here.
                let passes = has_room() || self.knocked.swap(false, Ordering::SeqCst) || wanted();
                if passes { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
        self.shut.store(false, Ordering::SeqCst);
    }

    fn ring(&self) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.as_ref().map_or(0, |(_, bytes)| *bytes);
        f.debug_tuple("Held").field(&bytes).finish()
    }
}

/// Bytes of a delivery that were not consumed yet.
#[derive(Default)]
pub struct Held(Option<(Arc<Gate>, u64)>);

impl Drop for Held {
    fn drop(&mut self) {
        // In a fork the lock may be held by a thread that does not exist there.
        if let Some((gate, bytes)) = self.0.as_ref().filter(|(gate, _)| gate.owner.is_here()) {
            gate.held.fetch_sub(*bytes, Ordering::SeqCst);
            if gate.shut.load(Ordering::SeqCst) {
                gate.ring();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn passes(pass: Pin<&mut impl Future<Output = ()>>) -> bool {
        pass.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn the_gate_closes_above_its_bound_and_opens_when_bytes_are_consumed() {
        let gate = Arc::new(Gate::default());
        let small = gate.hold(MOST_BYTES as usize);
        assert!(passes(pin!(gate.pass(|| false))));
        let large = gate.hold(1);
        let mut pass = pin!(gate.pass(|| false));
        assert!(!passes(pass.as_mut()));
        drop(large);
        assert!(passes(pass));
        drop(small);
        assert_eq!(gate.held(), 0);
    }

    #[test]
    fn the_gate_is_open_during_a_wait_and_a_knock_admits_one_read() {
        let gate = Arc::new(Gate::default());
        let _held = gate.hold(MOST_BYTES as usize + 1);
        assert!(passes(pin!(gate.pass(|| true))));
        let mut pass = pin!(gate.pass(|| false));
        assert!(!passes(pass.as_mut()));
        gate.knock();
        assert!(passes(pass));
        assert!(!passes(pin!(gate.pass(|| false))));
    }
}
