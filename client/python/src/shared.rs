//! Values that are shared with the tasks of a pool.
//!
//! After the header come the number of buffers and the size of the pickle (u64 each), the size of each buffer (u64), the pickle, and the
//! buffers, each at a multiple of 64 bytes.

#![expect(unsafe_code, reason = "lends mapped memory to the interpreter; argued at each block")]

use std::ffi::c_int;
use std::sync::{Arc, Mutex, PoisonError};

use farpool_session::SharedValue;
use farpool_worker::shared::{self, HEADER_BYTES, Mapping};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyLookupError, PyValueError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyMemoryView};

use crate::codec;

/// Keeps a shared value at the pool's hosts.
#[pyclass(frozen, module = "farpool._farpool")]
pub(crate) struct SharedHandle(Mutex<Option<SharedValue>>);

/// A part of a shared value, which objects such as arrays use in place, through the buffer protocol.
#[pyclass(frozen, module = "farpool._farpool")]
pub(crate) struct SharedMemory {
    mapping: Arc<Mapping>,
    start: usize,
    length: usize,
}

/// A decoded value.
struct Loaded(Option<Py<PyAny>>);

impl Drop for Loaded {
    /// Frees it at once. Otherwise this process would keep it until it attaches next.
    fn drop(&mut self) {
        Python::try_attach(|_| drop(self.0.take()));
    }
}

/// Packs a pickle and its buffers. Returns the value's key, and its bytes.
pub(crate) fn pack(pickled: &[u8], buffers: &Bound<'_, PyList>) -> PyResult<(shared::Key, Vec<u8>)> {
    let raw = |buffer: Bound<'_, PyAny>| PyBuffer::<u8>::get(&buffer.call_method0("raw")?);
    let buffers = buffers.iter().map(raw).collect::<PyResult<Vec<_>>>()?;
    let (header, key) = shared::new_header();
    let size = HEADER_BYTES + 16 + 8 * buffers.len() + pickled.len();
    let all = buffers.iter().fold(size, |size, buffer| size.next_multiple_of(HEADER_BYTES) + buffer.len_bytes());
    let mut bytes = Vec::with_capacity(all);
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(&(buffers.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&(pickled.len() as u64).to_le_bytes());
    for buffer in &buffers {
        bytes.extend_from_slice(&(buffer.len_bytes() as u64).to_le_bytes());
    }
    bytes.extend_from_slice(pickled);
    for buffer in &buffers {
        bytes.resize(bytes.len().next_multiple_of(HEADER_BYTES), 0);
        codec::append(buffer, &mut bytes)?;
    }
    Ok((key, bytes))
}

/// Returns the shared value with this key: `load(pickle, buffers=...)`, called once in each worker.
#[pyfunction]
pub(crate) fn find_shared<'py>(py: Python<'py>, key: [u8; 16], load: &Bound<'py, PyAny>) -> PyResult<Py<PyAny>> {
    let found = shared::find(key).map_err(PyLookupError::new_err)?;
    let mapping = found.mapping();
    let loaded = found.decoded(|bytes| {
        let named = PyDict::new(py);
        let (pickled, buffers) = unpack(py, bytes, &mapping)?;
        named.set_item(intern!(py, "buffers"), buffers)?;
        let value = load.call((PyBytes::new(py, pickled),), Some(&named))?;
        Ok::<_, PyErr>(Loaded(Some(value.unbind())))
    })?;
    let value = loaded.and_then(|Loaded(value)| value.as_ref());
    value.map(|value| value.clone_ref(py)).ok_or_else(cut_off)
}

/// Returns the pickle of a value, and its buffers.
fn unpack<'a, 'py>(
    py: Python<'py>,
    bytes: &'a [u8],
    mapping: &Arc<Mapping>,
) -> PyResult<(&'a [u8], Bound<'py, PyList>)> {
    let number = |at: usize| {
        let number = bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        number.and_then(|number| usize::try_from(number).ok()).ok_or_else(cut_off)
    };
    let (count, length) = (number(0)?, number(8)?);
    let start = count.checked_mul(8).and_then(|sizes| sizes.checked_add(16)).ok_or_else(cut_off)?;
    let mut end = start.checked_add(length).ok_or_else(cut_off)?;
    let pickled = bytes.get(start..end).ok_or_else(cut_off)?;
    let buffers = PyList::empty(py);
    for buffer in 0..count {
        let length = number(16 + 8 * buffer)?;
        let start = end.next_multiple_of(HEADER_BYTES);
        end = start.checked_add(length).filter(|end| *end <= bytes.len()).ok_or_else(cut_off)?;
        let memory = SharedMemory { mapping: Arc::clone(mapping), start: HEADER_BYTES + start, length };
        buffers.append(PyMemoryView::from(Bound::new(py, memory)?.as_any())?)?;
    }
    Ok((pickled, buffers))
}

fn cut_off() -> PyErr {
    PyValueError::new_err("a shared value is cut off")
}

#[pymethods]
impl SharedHandle {
    /// Frees the value, once the calls that were begun before have ended.
    fn close(&self, py: Python<'_>) {
        let value = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| drop(value));
    }
}

impl SharedHandle {
    pub(crate) fn new(value: SharedValue) -> Self {
        Self(Mutex::new(Some(value)))
    }
}

#[pymethods]
impl SharedMemory {
    /// # Safety
    /// `view` is null or points to a view to fill.
    unsafe fn __getbuffer__(this: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let memory = this.get();
        let bytes = &memory.mapping[memory.start..memory.start + memory.length];
        let (start, length) = (bytes.as_ptr().cast_mut().cast(), bytes.len().cast_signed());
        // SAFETY: the view keeps a reference to this object, and so the mapping, which never moves. It is read-only, so the
        // interpreter does not write to it.
        let filled = unsafe { ffi::PyBuffer_FillInfo(view, this.as_ptr(), start, length, 1, flags) };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(this.py())) }
    }
}
