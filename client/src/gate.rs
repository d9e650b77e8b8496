//! How much of what was delivered nobody has taken yet, and whether a session may read on.
//!
//! A session on a cluster reads from a stream, and what it does not read waits in the coordinator, which stops running
//! items of this client. So it stops reading while a consumer lags far behind. But a stream carries the outcomes of all
//! of the client's jobs in one order: as long as anybody waits for anything, what it waits for may be behind the rest,
//! and the session reads on.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::fork::Owner;
use crate::waits::{self, Waiting, Waits};

/// Bytes that were delivered and not taken yet, above which a session stops reading.
const MOST_BYTES: u64 = 64 << 20;

/// What a session passes before it reads.
pub(crate) struct Gate {
    /// Whose session it is.
    owner: Owner,
    held: AtomicU64,
    /// The session does not read: whoever changes something about that knocks.
    shut: AtomicBool,
    knocked: AtomicBool,
    bell: Notify,
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
            bell: Notify::new(),
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
    pub(crate) fn hold(self: &Arc<Self>, bytes: usize) -> Held {
        let bytes = bytes as u64;
        self.held.fetch_add(bytes, Ordering::SeqCst);
        Held(Some((Arc::clone(self), bytes)))
    }

    /// Somebody begins to wait for something, or asks for it: the session looks again, and reads once in any case.
    pub(crate) fn knock(&self) {
        if self.shut.load(Ordering::SeqCst) {
            self.knocked.store(true, Ordering::SeqCst);
            self.bell.notify_one();
        }
    }

    /// Ready when the session may read. `wanted`: whether anybody waits. May be dropped at any time.
    pub(crate) async fn pass(&self, wanted: impl Fn() -> bool) {
        while self.held.load(Ordering::SeqCst) > MOST_BYTES {
            self.shut.store(true, Ordering::SeqCst);
            // Whatever changes from here on rings the bell, and what has changed before is seen here.
            if self.held.load(Ordering::SeqCst) <= MOST_BYTES || self.knocked.swap(false, Ordering::SeqCst) || wanted()
            {
                break;
            }
            self.bell.notified().await;
        }
        self.shut.store(false, Ordering::SeqCst);
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
pub(crate) struct Held(Option<(Arc<Gate>, u64)>);

impl Drop for Held {
    fn drop(&mut self) {
        // In a fork the bell's lock may be held by nobody who is there.
        if let Some((gate, bytes)) = self.0.as_ref().filter(|(gate, _)| gate.owner.is_here()) {
            gate.held.fetch_sub(*bytes, Ordering::SeqCst);
            if gate.shut.load(Ordering::SeqCst) {
                gate.bell.notify_one();
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
