//! Arguments that the items of a call have in common, such as a large array: they travel once, with the function.
//!
//! A task may change its arguments. So at most as many items share a copy as a chunk of multiprocessing has.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::native::REFERENCE;

/// The first byte of a function with common arguments. After it: how many items may share a copy of them (u64), their size in bytes
/// (u64), the arguments, and the function.
const MARK: u8 = b'+';
pub(crate) const HEAD_BYTES: usize = 17;

/// The common arguments of a call, in the client.
pub(crate) struct Common(Vec<Py<PyAny>>);

impl Common {
    pub(crate) fn new(py: Python<'_>, arguments: &[Py<PyAny>]) -> Self {
        Self(arguments.iter().map(|argument| argument.clone_ref(py)).collect())
    }

    /// Appends a reference to this argument, if it is one of them.
    pub(crate) fn refer(&self, argument: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> bool {
        let found = self.0.iter().position(|common| common.as_ptr() == argument.as_ptr());
        let Some(index) = found.and_then(|index| u32::try_from(index).ok()) else { return false };
        out.push(REFERENCE);
        out.extend_from_slice(&index.to_le_bytes());
        true
    }
}

/// Puts encoded common arguments before a function. `items`: how many items may share a copy of them.
pub(crate) fn put_before(function: &[u8], items: u64, arguments: &[u8]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(HEAD_BYTES + arguments.len() + function.len());
    packed.push(MARK);
    packed.extend_from_slice(&items.to_le_bytes());
    packed.extend_from_slice(&(arguments.len() as u64).to_le_bytes());
    packed.extend_from_slice(arguments);
    packed.extend_from_slice(function);
    packed
}

/// The common arguments of a job, in a worker.
pub(crate) struct Packed {
    items: u64,
    bytes: Bytes,
    copy: Mutex<Option<Copy>>,
}

/// A decoded copy of the common arguments.
struct Copy {
    arguments: Py<PyTuple>,
    /// How many more items may use it.
    left: u64,
}

/// Takes the common arguments from the front of a function. `None`: it has none.
///
/// # Errors
/// If it is cut off.
pub(crate) fn take_from(function: Bytes) -> Result<(Option<Packed>, Bytes), String> {
    if function.first() != Some(&MARK) {
        return Ok((None, function));
    }
    let parts = function.split_at_checked(HEAD_BYTES).and_then(|(head, rest)| {
        let items = u64::from_le_bytes(head[1..9].try_into().ok()?).max(1);
        let length = usize::try_from(u64::from_le_bytes(head[9..].try_into().ok()?)).ok()?;
        (length <= rest.len()).then_some((items, HEAD_BYTES + length))
    });
    let (items, end) = parts.ok_or("its common arguments are cut off")?;
    let packed = Packed { items, bytes: function.slice(HEAD_BYTES..end), copy: Mutex::default() };
    Ok((Some(packed), function.slice(end..)))
}

impl Packed {
    /// Returns a copy for the next item: the one that previous items have used, or a new one.
    pub(crate) fn for_next_item<'py>(
        &self,
        py: Python<'py>,
        decode: impl FnOnce(&[u8]) -> PyResult<Bound<'py, PyTuple>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        // Taken out, since the lock must not be held while Python code runs.
        let used = self.lock().take();
        let mut copy = match used.filter(|copy| copy.left > 0) {
            Some(used) => used,
            None => Copy { arguments: decode(&self.bytes)?.unbind(), left: self.items },
        };
        copy.left -= 1;
        let arguments = copy.arguments.bind(py).clone();
        let replaced = if copy.left > 0 { self.lock().replace(copy) } else { Some(copy) };
        drop(replaced);
        Ok(arguments)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Copy>> {
        self.copy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
