//! Values that belong to one process, and not to its forks.

use std::ops::{Deref, DerefMut};

use super::{generation, watch};

/// The process that a value belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    generation: u32,
    pid: u32,
}

impl Owner {
    /// Returns this process.
    pub fn this_process() -> Self {
        watch();
        Self { generation: generation(), pid: std::process::id() }
    }

    /// Returns whether this is still that process, and not a fork of it.
    #[inline]
    pub fn is_here(self) -> bool {
        self.generation == generation()
    }

    /// Returns the process's id.
    pub fn pid(self) -> u32 {
        self.pid
    }
}

/// A value that only its own process drops: in a fork it is leaked.
#[derive(Debug)]
pub struct Owned<T> {
    owner: Owner,
    /// Taken by the drop only.
    value: Option<T>,
}

impl<T> Owned<T> {
    /// Creates a value that belongs to this process.
    pub fn new(value: T) -> Self {
        Self::of(Owner::this_process(), value)
    }

    /// Creates a value with a given owner.
    pub fn of(owner: Owner, value: T) -> Self {
        Self { owner, value: Some(value) }
    }

    /// Returns its owner.
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
