//! How much of what was delivered nobody has taken yet, and whether a session may read on.
//!
//! A session on a cluster reads from a stream, and what it does not read waits in the coordinator, which stops running
//! items of this client. So it stops reading while a consumer lags far behind. But a stream carries the outcomes of all
//! of the client's jobs in one order: as long as anybody waits for anything, what it waits for may be behind the rest,
//! and the session reads on.

use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use crate::fork::Owner;
use crate::waits::{self, Waiting, Waits};

/// Bytes that were delivered and not taken yet, above which a session stops reading.
const MOST_BYTES: u64 = 64 << 20;

/// What a session passes before it reads.
pub struct Gate {
    /// Whose session it is.
    owner: Owner,
    held: AtomicU64,
    /// The session does not read: whoever changes something about that knocks.
    shut: AtomicBool,
    knocked: AtomicBool,
    /// The session, while it waits at the shut gate.
    waiting: Mutex<Option<Waker>>,
    /// Who must know when somebody waits for what comes through here.
    waits: Option<Arc<Waits>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            owner: Owner::this_process(),
            held: AtomicU64::new(0),
            shut: AtomicBool::new(false),
            knocked: AtomicBool::new(false),
            waiting: Mutex::default(),
            waits: None,
        }
    }
}

impl Gate {
    /// A gate that reports whether anybody waits for what comes through it.
    pub(crate) fn with_waits(waits: Arc<Waits>) -> Gate {
        Gate { waits: Some(waits), ..Gate::default() }
    }

    /// Somebody waits for what comes through here, until the returned value is dropped.
    pub(crate) fn begin_wait(&self) -> Waiting {
        waits::begin(self.waits.as_ref())
    }

    /// So many bytes were delivered; they count until this is dropped.
    pub fn hold(self: &Arc<Self>, bytes: usize) -> Held {
        let bytes = bytes as u64;
        self.held.fetch_add(bytes, Ordering::SeqCst);
        Held(Some((Arc::clone(self), bytes)))
    }

    /// Somebody begins to wait for something, or asks for it: the session looks again, and reads once in any case.
    pub fn knock(&self) {
        if self.shut.load(Ordering::SeqCst) {
            self.knocked.store(true, Ordering::SeqCst);
            self.ring();
        }
    }

    /// Ready when the session may read. `wanted`: whether anybody waits. May be dropped at any time.
    pub async fn pass(&self, wanted: impl Fn() -> bool) {
        let has_room = || self.held.load(Ordering::SeqCst) <= MOST_BYTES;
        if !has_room() {
            self.shut.store(true, Ordering::SeqCst);
            poll_fn(|context| {
                *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
                // Whatever changes from here on wakes the session, and what has changed before is seen here.
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

/// Bytes of a delivery that nobody has taken yet.
#[derive(Default)]
pub struct Held(Option<(Arc<Gate>, u64)>);

impl Drop for Held {
    fn drop(&mut self) {
        // In a fork the lock may be held by nobody who is there.
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
    fn it_shuts_above_its_bound_and_opens_when_bytes_are_taken() {
        let gate = Arc::new(Gate::default());
        let small = gate.hold(MOST_BYTES as usize);
        assert!(passes(pin!(gate.pass(|| false))));
        let large = gate.hold(1);
        let mut pass = pin!(gate.pass(|| false));
        assert!(!passes(pass.as_mut()));
        drop(large);
        assert!(passes(pass));
        drop(small);
        assert_eq!(gate.held.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn it_is_open_for_who_waits_and_lets_one_in_who_knocks() {
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
