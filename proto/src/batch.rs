//! The messages of a frame.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// The messages of a frame: a `Vec`, which may be shared with its sender. The sender keeps sent messages until they are
/// acknowledged; sharing them saves a copy.
#[derive(Clone)]
pub struct Batch<M>(Messages<M>);

#[derive(Clone)]
enum Messages<M> {
    Owned(Vec<M>),
    Shared(Arc<Vec<M>>),
}

impl<M> Batch<M> {
    /// Creates a batch of messages that have other owners too.
    pub fn shared(messages: Arc<Vec<M>>) -> Self {
        Self(Messages::Shared(messages))
    }
}

impl<M: Clone> Batch<M> {
    /// Returns the messages. They are copied if they have other owners.
    pub fn into_vec(self) -> Vec<M> {
        match self.0 {
            Messages::Owned(messages) => messages,
            Messages::Shared(messages) => Arc::unwrap_or_clone(messages),
        }
    }
}

impl<M> Deref for Batch<M> {
    type Target = Vec<M>;

    fn deref(&self) -> &Vec<M> {
        match &self.0 {
            Messages::Owned(messages) => messages,
            Messages::Shared(messages) => messages,
        }
    }
}

impl<M: Clone> DerefMut for Batch<M> {
    fn deref_mut(&mut self) -> &mut Vec<M> {
        match &mut self.0 {
            Messages::Owned(messages) => messages,
            Messages::Shared(messages) => Arc::make_mut(messages),
        }
    }
}

impl<M> From<Vec<M>> for Batch<M> {
    fn from(messages: Vec<M>) -> Self {
        Self(Messages::Owned(messages))
    }
}

impl<M> Default for Batch<M> {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl<'a, M> IntoIterator for &'a Batch<M> {
    type Item = &'a M;
    type IntoIter = std::slice::Iter<'a, M>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<M: Clone> IntoIterator for Batch<M> {
    type Item = M;
    type IntoIter = std::vec::IntoIter<M>;

    fn into_iter(self) -> Self::IntoIter {
        self.into_vec().into_iter()
    }
}

impl<M: PartialEq> PartialEq for Batch<M> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<M: fmt::Debug> fmt::Debug for Batch<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_messages_are_copied_only_on_change() {
        let kept = Arc::new(vec![1, 2]);
        let mut batch = Batch::shared(Arc::clone(&kept));
        assert!(std::ptr::eq(&*batch, &*kept));
        batch.push(3);
        assert_eq!((&*batch, &*kept), (&vec![1, 2, 3], &vec![1, 2]));
        assert_eq!(batch, vec![1, 2, 3].into());
        assert_eq!(Batch::shared(kept).into_vec(), [1, 2]);
    }
}
