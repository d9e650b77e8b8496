//! Memory for the buffers of decoded values, such as the contents of arrays.

#![expect(unsafe_code, reason = "lends its memory to the interpreter; argued at each block")]

use std::alloc::{self, Layout};
use std::ffi::c_int;
use std::ptr::{self, NonNull};

use pyo3::exceptions::PyMemoryError;
use pyo3::ffi;
use pyo3::prelude::*;

/// Numerical code reads whole cache lines fastest.
const ALIGNMENT: usize = 64;

/// Bytes that objects such as arrays use in place, through the buffer protocol.
#[pyclass(frozen, module = "farpool._farpool")]
pub(crate) struct Memory {
    start: NonNull<u8>,
    length: usize,
    layout: Layout,
    readonly: bool,
}

// SAFETY: only the interpreter reads and writes the bytes, through buffers. Its users see to it that their accesses do not race.
unsafe impl Send for Memory {}
// SAFETY: as above; no method of this type accesses the bytes.
unsafe impl Sync for Memory {}

impl Memory {
    /// Copies the bytes. `readonly`: the copy cannot be changed.
    pub(crate) fn copy<'py>(py: Python<'py>, bytes: &[u8], readonly: bool) -> PyResult<Bound<'py, Self>> {
        // An allocation has at least one byte.
        let layout = Layout::from_size_align(bytes.len().max(1), ALIGNMENT);
        let layout = layout.map_err(|_| PyMemoryError::new_err("a buffer is too large"))?;
        // SAFETY: the layout's size is not 0.
        let start = NonNull::new(unsafe { alloc::alloc(layout) });
        let start = start.ok_or_else(|| PyMemoryError::new_err(format!("no memory for {} bytes", bytes.len())))?;
        // SAFETY: both have so many bytes, and the new memory overlaps with nothing.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), start.as_ptr(), bytes.len()) };
        // From here on, dropping it frees the memory.
        Bound::new(py, Self { start, length: bytes.len(), layout, readonly })
    }
}

#[pymethods]
impl Memory {
    /// # Safety
    /// `view` is null or points to a view to fill.
    unsafe fn __getbuffer__(this: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let memory = this.get();
        let (start, length) = (memory.start.as_ptr().cast(), memory.length.cast_signed());
        // SAFETY: the view keeps a reference to this object, and so the memory, which is never moved.
        let filled =
            unsafe { ffi::PyBuffer_FillInfo(view, this.as_ptr(), start, length, memory.readonly.into(), flags) };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(this.py())) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and no view refers to this object.
        unsafe { alloc::dealloc(self.start.as_ptr(), self.layout) };
    }
}
