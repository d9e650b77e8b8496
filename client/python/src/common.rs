//! Arguments that many items of a call have in common, such as a large array: they travel once, with the function.
//!
//! A worker decodes them again and again, so that a task that changes its arguments disturbs no more tasks than in multiprocessing:
//! those of the same chunk.

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::native::REFERENCE;

/// The first byte of a function with common arguments. Then: how many items may share a copy of them (u64), their size (u64), they
/// themselves, and the function.
const MARK: u8 = b'+';
pub(crate) const HEAD_BYTES: usize = 17;

/// The common arguments of a call, in the client.
pub(crate) struct Common(Vec<Py<PyAny>>);

impl Common {
    pub(crate) fn new(py: Python<'_>, arguments: &[Py<PyAny>]) -> Self {
        Self(arguments.iter().map(|argument| argument.clone_ref(py)).collect())
    }

    /// Returns whether this argument is one of them.
    pub(crate) fn has(&self, argument: &Bound<'_, PyAny>) -> bool {
        self.index(argument).is_some()
    }

    /// Appends a reference to this argument, if it is one of them.
    pub(crate) fn refer(&self, argument: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> bool {
        let Some(index) = self.index(argument) else { return false };
        out.push(REFERENCE);
        out.extend_from_slice(&index.to_le_bytes());
        true
    }

    fn index(&self, argument: &Bound<'_, PyAny>) -> Option<u32> {
        let found = self.0.iter().position(|common| common.as_ptr() == argument.as_ptr());
        found.and_then(|index| u32::try_from(index).ok())
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
    bytes: Vec<u8>,
}

/// Takes the common arguments from the front of a function. `None`: it has none.
///
/// # Errors
/// If it is cut off.
pub(crate) fn take_from(function: &[u8]) -> Result<(Option<Packed>, &[u8]), String> {
    if function.first() != Some(&MARK) {
        return Ok((None, function));
    }
    let parts = function.split_at_checked(HEAD_BYTES).and_then(|(head, rest)| {
        let items = u64::from_le_bytes(head[1..9].try_into().ok()?).max(1);
        let length = u64::from_le_bytes(head[9..].try_into().ok()?);
        let (bytes, function) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        Some((Packed { items, bytes: bytes.to_vec() }, function))
    });
    let (common, function) = parts.ok_or("its common arguments are cut off")?;
    Ok((Some(common), function))
}

/// A decoded copy of the common arguments.
pub(crate) struct Copy<'py> {
    arguments: Bound<'py, PyTuple>,
    /// How many more items may use it.
    left: u64,
}

impl Packed {
    /// Returns a copy for the next item: the one that previous items have used, or a new one.
    pub(crate) fn for_next_item<'a, 'py>(
        &self,
        copy: &'a mut Option<Copy<'py>>,
        decode: impl FnOnce(&[u8]) -> PyResult<Bound<'py, PyTuple>>,
    ) -> PyResult<&'a Bound<'py, PyTuple>> {
        let current = match copy.take().filter(|copy| copy.left > 0) {
            Some(used) => used,
            None => Copy { arguments: decode(&self.bytes)?, left: self.items },
        };
        let current = copy.insert(current);
        current.left -= 1;
        Ok(&current.arguments)
    }
}
