//! Which process something belongs to.

use std::ops::{Deref, DerefMut};

use super::{generation, watch};

/// The process that something belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    generation: u32,
    pid: u32,
}

impl Owner {
    /// This process.
    pub fn this_process() -> Self {
        watch();
        Self { generation: generation(), pid: std::process::id() }
    }

    /// Whether this is still that process, and not a fork of it.
    #[inline]
    pub fn is_here(self) -> bool {
        self.generation == generation()
    }

    /// The process's id.
    pub fn pid(self) -> u32 {
        self.pid
    }
}

/// A value that only its process drops: in a fork of that, it is left as it is.
#[derive(Debug)]
pub struct Owned<T> {
    owner: Owner,
    /// Taken by the drop only.
    value: Option<T>,
}

impl<T> Owned<T> {
    /// One of this process.
    pub fn new(value: T) -> Self {
        Self::of(Owner::this_process(), value)
    }

    /// One that belongs to whom something else belongs.
    pub fn of(owner: Owner, value: T) -> Self {
        Self { owner, value: Some(value) }
    }

    /// Whose it is.
    pub fn owner(&self) -> Owner {
        self.owner
    }
}

impl<T> Deref for Owned<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.value.as_ref().expect("only the drop takes it")
    }
}

impl<T> DerefMut for Owned<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("only the drop takes it")
    }
}

impl<T: Clone> Clone for Owned<T> {
    fn clone(&self) -> Self {
        Self { owner: self.owner, value: self.value.clone() }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.owner.is_here() {
            std::mem::forget(self.value.take());
        }
    }
}
