use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::{generation, watch};

/// A static with a value for each process. A fork begins with a new value: locks of the old one may be held by threads
/// of the parent.
#[derive(Debug)]
pub struct PerProcess<T> {
    /// Null, or a leaked box.
    current: AtomicPtr<Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: T,
}

impl<T: Default + Send + Sync + 'static> PerProcess<T> {
    #[expect(clippy::new_without_default, reason = "it is made in a static")]
    /// Creates it without a value.
    pub const fn new() -> Self {
        Self { current: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Returns this process's value.
    pub fn get(&self) -> &'static T {
        let mut current = self.current.load(Ordering::Acquire);
        loop {
            // SAFETY: it is null or came from `Box::into_raw` below, and published values are never freed.
            if let Some(entry) = unsafe { current.as_ref::<'static>() }
                && entry.generation == generation()
            {
                return &entry.value;
            }
            watch();
            let fresh = Box::into_raw(Box::new(Entry { generation: generation(), value: T::default() }));
            match self.current.compare_exchange(current, fresh, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => current = fresh,
                Err(other) => {
                    // SAFETY: it was created just now, and nothing else refers to it.
                    drop(unsafe { Box::from_raw(fresh) });
                    current = other;
                }
            }
        }
    }
}
