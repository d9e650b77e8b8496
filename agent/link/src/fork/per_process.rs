use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::{generation, watch};

/// A static that each process has one of: a fork begins with a new one, since the old one's locks may be held, and its
/// threads are the parent's.
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
    /// One of which no process has anything yet.
    pub const fn new() -> Self {
        Self { current: AtomicPtr::new(ptr::null_mut()) }
    }

    /// This process's own.
    pub fn get(&self) -> &'static T {
        let mut current = self.current.load(Ordering::Acquire);
        loop {
            // SAFETY: it is null or came out of `Box::into_raw` below, and what was published here is never freed.
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
                    // SAFETY: it was made just now, and nobody else has got it.
                    drop(unsafe { Box::from_raw(fresh) });
                    current = other;
                }
            }
        }
    }
}
