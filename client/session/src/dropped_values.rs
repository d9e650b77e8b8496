//! Shared values that the client has dropped, and that calls may use which the coordinator does not know yet.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What keeps a shared value.
type Handle = Box<dyn Any + Send>;

/// Dropped values that calls may use which are begun and not opened at the coordinator yet.
#[derive(Default)]
pub(crate) struct DroppedValues {
    /// The number of these calls.
    beginning: AtomicUsize,
    any: AtomicBool,
    /// Values have been shared.
    used: AtomicBool,
    values: Mutex<Vec<Handle>>,
}

impl DroppedValues {
    /// Returns whether values were shared in the session.
    pub(crate) fn used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// A value is shared in the session.
    pub(crate) fn note_use(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    /// A call has begun. [`call_opened`](Self::call_opened) follows.
    pub(crate) fn call_begins(&self) {
        self.beginning.fetch_add(1, Ordering::SeqCst);
    }

    /// A call is open at the coordinator, or will not be opened.
    pub(crate) fn call_opened(&self) {
        if self.beginning.fetch_sub(1, Ordering::SeqCst) == 1 && self.any.load(Ordering::SeqCst) {
            self.free();
        }
    }

    /// A value was dropped: dropping this frees it.
    pub(crate) fn add(&self, value: Handle) {
        self.lock().push(value);
        self.any.store(true, Ordering::SeqCst);
        self.free();
    }

    /// Frees the values, if no call begins now.
    fn free(&self) {
        let mut values = self.lock();
        if self.beginning.load(Ordering::SeqCst) == 0 {
            self.any.store(false, Ordering::SeqCst);
            let freed = std::mem::take(&mut *values);
            drop(values);
            drop(freed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Handle>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
