//! How far a call is, for its progress bar.

use std::sync::{Arc, OnceLock};

use farpool_session::fork::Owned;
use farpool_session::{Call, Counted, Inbox};
use pyo3::prelude::*;

/// Counts the items of one call that have finished.
#[pyclass(frozen, module = "farpool._farpool")]
pub(crate) struct Progress(OnceLock<Owned<Arc<Inbox>>>);

#[pymethods]
impl Progress {
    /// One for the call whose `Options` it will be in.
    #[new]
    fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Returns how many items have finished.
    fn count(&self) -> u64 {
        self.0.get().map_or(0, |inbox| inbox.count())
    }

    /// Returns whether the call has begun and ended.
    fn is_over(&self) -> bool {
        self.0.get().is_some_and(|inbox| inbox.is_over())
    }
}

impl Progress {
    /// Sets the call, once.
    pub(crate) fn count_items_of(&self, call: &Call) {
        let _ = self.0.set(Owned::of(call.session.owner(), Arc::clone(&*call.inbox)));
    }
}
