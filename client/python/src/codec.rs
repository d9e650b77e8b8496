//! Turns Python values into bytes and back.
//!
//! Pickling is the largest cost of a small call. So common values have native encodings, which a tag byte tells apart: None, bool,
//! int, float, str, bytes, and tuples of these (`native.rs`). A list or dict of these has one only if it is the whole value: inside
//! others, two references to one list must stay references to one list. So has an instance of a plain class, alone or as the only one
//! in a tuple (`instance.rs`). Everything else is pickled, with its buffers next to the pickle. Only exact types count, so that an
//! instance of a subclass keeps its class. Items refer to what they have in common (`common.rs`).

use std::collections::HashSet;
use std::sync::Arc;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyList, PyMemoryView, PyString, PyTuple};

use crate::background;
use crate::common::Common;
use crate::errors;
use crate::instance::{self, Classes};
use crate::memory::Memory;
use crate::native::{
    BYTES, DEPTH, DICT, FALSE, FLOAT, INSTANCE, INT, LIST, NONE, PICKLE, PICKLE_AND_BUFFERS, RAISED, RECORDS,
    REFERENCE, STR, TRUE, TUPLE, WITH_COMMON, count, plain,
};

const PROTOCOL: u8 = 5;

/// Encodes values: natively where possible, otherwise as pickles.
pub(crate) struct Encoder {
    /// Pickles a value that refers to `__main__`, which workers do not import.
    by_value: Option<Py<PyAny>>,
    /// The names that the function has published in the workers' `__main__`. `None` in a worker: the client has all of `__main__`.
    published: Option<Arc<HashSet<String>>>,
    classes: Classes,
    /// What the items have in common.
    common: Option<Common>,
}

/// A decoded value, or the exception that took its place.
pub(crate) enum Decoded<'py> {
    Value(Bound<'py, PyAny>),
    Raised(PyErr),
}

impl Encoder {
    pub(crate) fn new(
        py: Python<'_>,
        by_value: Option<Py<PyAny>>,
        published: Option<Arc<HashSet<String>>>,
    ) -> PyResult<Encoder> {
        if is_loaded(py, intern!(py, "multiprocessing.connection"))? {
            static PREPARED: PyOnceLock<()> = PyOnceLock::new();
            PREPARED.get_or_try_init(py, || {
                py.import(intern!(py, "farpool._worker"))?.call_method0(intern!(py, "reduce_connections")).map(drop)
            })?;
        }
        let classes = Classes::new(published.clone());
        Ok(Encoder { by_value, published, classes, common: None })
    }

    /// From now on, items only refer to these.
    pub(crate) fn set_common(&mut self, common: Common) {
        self.common = Some(common);
    }

    /// Appends a value; after an error `out` is as it was.
    pub(crate) fn encode(&mut self, value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
        let start = out.len();
        if self.with_common(value, out) {
            return Ok(());
        }
        out.truncate(start);
        if plain(value, out, DEPTH + 1) {
            return Ok(());
        }
        out.truncate(start);
        if self.with_instance(value, out).inspect_err(|_| out.truncate(start))? {
            return Ok(());
        }
        out.truncate(start);
        self.pickle(value, out).inspect_err(|_| out.truncate(start))
    }

    /// Appends an item that is a common argument, or a tuple of such and of values with native encodings. Other values may refer to
    /// parts of a common argument, which they would no longer share with it. Otherwise returns false, and may have appended a part.
    fn with_common(&self, value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> bool {
        let Some(common) = &self.common else { return false };
        out.push(WITH_COMMON);
        if common.refer(value, out) {
            return true;
        }
        value.cast_exact::<PyTuple>().is_ok_and(|values| {
            count(TUPLE, values.len(), out)
                && values.iter().all(|each| {
                    let start = out.len();
                    common.refer(&each, out) || {
                        out.truncate(start);
                        plain(&each, out, DEPTH)
                    }
                })
        })
    }

    /// Appends an instance of a plain class, or a tuple in which all but one such instance have native encodings. Otherwise returns
    /// false, and may have appended a part.
    ///
    /// # Errors
    /// What interrupts this thread.
    fn with_instance(&mut self, value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<bool> {
        let Ok(values) = value.cast_exact::<PyTuple>() else { return self.classes.encode(value, out) };
        if !count(TUPLE, values.len(), out) {
            return Ok(false);
        }
        // Of two references to one instance, the second must stay one.
        let mut instances = 0;
        for each in values {
            let start = out.len();
            if plain(&each, out, DEPTH) {
                continue;
            }
            out.truncate(start);
            instances += 1;
            if instances > 1 || !self.classes.encode(&each, out)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns whether the value was pickled, and workers can find every name in its pickle.
    fn travels(&self, pickled: &PyResult<Bound<'_, PyAny>>) -> bool {
        let bytes = pickled.as_ref().ok().and_then(|pickled| pickled.cast::<PyBytes>().ok());
        bytes.map(|bytes| bytes.as_bytes()).is_some_and(|bytes| {
            memchr::memmem::find(bytes, b"__main__").is_none()
                || only_global(bytes)
                    .is_some_and(|name| self.published.as_ref().is_none_or(|published| published.contains(name)))
        })
    }

    fn pickle(&self, value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
        let py = value.py();
        let buffers = PyList::empty(py);
        let named = PyDict::new(py);
        // Asking every value for its buffers costs up to a third of the time. Types that have any come with NumPy, or use it. An item
        // may have loaded it just now.
        if is_loaded(py, intern!(py, "numpy"))? {
            named.set_item(intern!(py, "buffer_callback"), buffers.getattr(intern!(py, "append"))?)?;
        }
        let dumps = pickle_function(py, &DUMPS, "dumps")?;
        let pickled = background::call(&dumps, &[value, PROTOCOL.into_pyobject(py)?.as_any()], Some(&named));
        let pickled = match (&self.by_value, pickled) {
            (_, Err(error)) if errors::interrupts(py, &error) => return Err(error),
            (Some(by_value), pickled) if !self.travels(&pickled) => {
                buffers.call_method0(intern!(py, "clear"))?;
                background::call(by_value.bind(py), &[value], Some(&named))?
            }
            (None, Err(error)) => {
                buffers.call_method0(intern!(py, "clear"))?;
                let worker = py.import(intern!(py, "farpool._worker"))?;
                let again = worker.getattr(intern!(py, "dump_with_reductions"))?;
                background::call(&again, &[value], Some(&named))
                    .ok()
                    .filter(|pickled| !pickled.is_none())
                    .ok_or(error)?
            }
            (_, pickled) => pickled?,
        };
        let pickled = pickled.cast_into::<PyBytes>()?;
        if buffers.is_empty() {
            out.push(PICKLE);
            out.extend_from_slice(pickled.as_bytes());
            return Ok(());
        }
        let raw = |buffer: Bound<'_, PyAny>| PyBuffer::<u8>::get(&buffer.call_method0(intern!(py, "raw"))?);
        let buffers = buffers.iter().map(raw).collect::<PyResult<Vec<_>>>()?;
        let pickled = pickled.as_bytes();
        out.reserve(17 + pickled.len() + buffers.iter().map(|buffer| 9 + buffer.len_bytes()).sum::<usize>());
        out.push(PICKLE_AND_BUFFERS);
        out.extend_from_slice(&(buffers.len() as u64).to_le_bytes());
        out.extend_from_slice(&(pickled.len() as u64).to_le_bytes());
        out.extend_from_slice(pickled);
        for buffer in buffers {
            out.push(u8::from(buffer.readonly()));
            out.extend_from_slice(&(buffer.len_bytes() as u64).to_le_bytes());
            append(&buffer, out)?;
        }
        Ok(())
    }
}

/// Appends the bytes of a buffer without gaps.
#[expect(
    unsafe_code,
    reason = "the safe copy needs memory that is filled with zeros first, which costs as much as the copy"
)]
pub(crate) fn append(buffer: &PyBuffer<u8>, out: &mut Vec<u8>) -> PyResult<()> {
    if !buffer.is_c_contiguous() {
        return Err(PyValueError::new_err("farpool: a raw buffer has gaps"));
    }
    let (start, length) = (out.len(), buffer.len_bytes());
    out.reserve(length);
    // SAFETY: the view holds `length` bytes in a row, and so does the reserved part of `out`, which overlaps with nothing. No reference to
    // the view's bytes is made: another thread may write to them, as with every copy that the interpreter makes.
    unsafe {
        std::ptr::copy_nonoverlapping(buffer.buf_ptr().cast(), out.as_mut_ptr().add(start), length);
        out.set_len(start + length);
    }
    Ok(())
}

fn is_loaded(py: Python<'_>, module: &Bound<'_, PyString>) -> PyResult<bool> {
    static MODULES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let modules = MODULES.get_or_try_init(py, || py.import("sys")?.getattr("modules").map(Bound::unbind))?;
    modules.bind(py).contains(module)
}

/// Returns the only global that a pickle names, if it is one of `__main__`. `None` if there may be others.
fn only_global(pickled: &[u8]) -> Option<&str> {
    // Two short strings, each memoized (0x94), and the opcode that makes a global of them (0x93).
    let mut strings = pickled.get(memchr::memmem::find(pickled, b"\x8c\x08__main__\x94\x8c")? + 12..)?.iter();
    let length = usize::from(*strings.next()?);
    let (name, rest) = strings.as_slice().split_at_checked(length)?;
    let alone = rest.starts_with(b"\x94\x93") && memchr::memchr_iter(0x93, pickled).count() == 1;
    std::str::from_utf8(name).ok().filter(|_| alone)
}

/// Appends what was logged while an item ran; its result follows.
pub(crate) fn put_records(records: &[u8], out: &mut Vec<u8>) {
    out.push(RECORDS);
    out.extend_from_slice(&(records.len() as u64).to_le_bytes());
    out.extend_from_slice(records);
}

/// Handles what was logged while an item ran, and returns its encoded result. What a handler raises is printed.
///
/// # Errors
/// The exception that interrupts this thread meanwhile, if any.
pub(crate) fn handle_records<'a>(py: Python<'_>, bytes: &'a [u8]) -> PyResult<&'a [u8]> {
    let Some((&RECORDS, rest)) = bytes.split_first() else { return Ok(bytes) };
    let mut rest = Rest(rest, None);
    let length = rest.length()?;
    let records = PyBytes::new(py, rest.take(length)?);
    let handle = py.import(intern!(py, "farpool._logging"))?.getattr(intern!(py, "handle"))?;
    match background::call(&handle, &[records.as_any()], None) {
        Err(error) if errors::interrupts(py, &error) => return Err(error),
        Err(error) => error.write_unraisable(py, None),
        Ok(_) => {}
    }
    Ok(rest.0)
}

/// Forgets which records were handled: their result is decoded, and will not come again.
pub(crate) fn forget_records(py: Python<'_>) -> PyResult<()> {
    py.import(intern!(py, "farpool._logging"))?.call_method0(intern!(py, "forget_handled")).map(drop)
}

/// Appends the description of an exception.
pub(crate) fn encode_raised(description: &[u8], out: &mut Vec<u8>) {
    out.push(RAISED);
    out.extend_from_slice(description);
}

/// Decodes one value from all of these bytes.
pub(crate) fn decode<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Decoded<'py>> {
    let mut rest = Rest(bytes, None);
    let value = match bytes.split_first() {
        Some((&PICKLE, pickled)) => unpickle(py, pickled, None)?,
        Some((&PICKLE_AND_BUFFERS, parts)) => {
            let mut rest = Rest(parts, None);
            let (count, length) = (rest.length()?, rest.length()?);
            let pickled = rest.take(length)?;
            let buffers = PyList::empty(py);
            for _ in 0..count {
                let [readonly] = rest.array()?;
                let length = rest.length()?;
                let bytes = rest.take(length)?;
                // Writable buffers stay writable.
                let memory = Memory::copy(py, bytes, readonly != 0)?;
                buffers.append(PyMemoryView::from(memory.as_any())?)?;
            }
            unpickle(py, pickled, Some(buffers))?
        }
        Some((&RAISED, description)) => return Ok(Decoded::Raised(errors::raised(py, description)?)),
        _ => rest.value(py)?,
    };
    Ok(Decoded::Value(value))
}

/// Returns whether it contains something that can be decoded once only: a socket or a connection, which one process takes over.
pub(crate) fn decodes_once(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, b"resource_sharer").is_some()
}

/// Decodes an item that refers to these common arguments.
pub(crate) fn decode_with_common<'py>(common: &Bound<'py, PyTuple>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    Rest(bytes, Some(common)).value(common.py())
}

/// Returns the rest of an item that refers to common arguments; `None` if it refers to none.
pub(crate) fn refers_to_common(bytes: &[u8]) -> Option<&[u8]> {
    bytes.split_first().filter(|(tag, _)| **tag == WITH_COMMON).map(|(_, rest)| rest)
}

fn unpickle<'py>(py: Python<'py>, pickled: &[u8], buffers: Option<Bound<'py, PyList>>) -> PyResult<Bound<'py, PyAny>> {
    let named = PyDict::new(py);
    if let Some(buffers) = buffers {
        named.set_item(intern!(py, "buffers"), buffers)?;
    }
    background::call(&pickle_function(py, &LOADS, "loads")?, &[PyBytes::new(py, pickled).as_any()], Some(&named))
}

static DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn pickle_function<'py>(py: Python<'py>, known: &PyOnceLock<Py<PyAny>>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    let found = || Ok::<_, PyErr>(py.import(intern!(py, "_pickle"))?.getattr(name)?.unbind());
    Ok(known.get_or_try_init(py, found)?.bind(py).clone())
}

/// Bytes that are not decoded yet, and the common arguments to which they refer.
struct Rest<'a, 'py>(&'a [u8], Option<&'a Bound<'py, PyTuple>>);

impl<'a, 'py> Rest<'a, 'py> {
    fn take(&mut self, length: usize) -> PyResult<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(cut_off)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> PyResult<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(cut_off)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn count(&mut self) -> PyResult<usize> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn length(&mut self) -> PyResult<usize> {
        usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| cut_off())
    }

    fn text(&mut self) -> PyResult<&'a str> {
        let length = self.count()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| cut_off())
    }

    /// Decodes a text with its tag.
    fn named(&mut self) -> PyResult<&'a str> {
        let [tag] = self.array()?;
        if tag == STR { self.text() } else { Err(cut_off()) }
    }

    fn value(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let [tag] = self.array()?;
        Ok(match tag {
            NONE => py.None().into_bound(py),
            FALSE => PyBool::new(py, false).to_owned().into_any(),
            TRUE => PyBool::new(py, true).to_owned().into_any(),
            INT => i64::from_le_bytes(self.array()?).into_pyobject(py)?.into_any(),
            FLOAT => PyFloat::new(py, f64::from_le_bytes(self.array()?)).into_any(),
            STR => PyString::new(py, self.text()?).into_any(),
            BYTES => {
                let length = self.count()?;
                PyBytes::new(py, self.take(length)?).into_any()
            }
            TUPLE => PyTuple::new(py, self.values(py)?)?.into_any(),
            LIST => PyList::new(py, self.values(py)?)?.into_any(),
            DICT => {
                let dict = PyDict::new(py);
                for _ in 0..self.count()? {
                    let key = self.value(py)?;
                    dict.set_item(key, self.value(py)?)?;
                }
                dict.into_any()
            }
            INSTANCE => {
                let (instance, attributes) = instance::make(py, self.named()?, self.named()?)?;
                for _ in 0..self.count()? {
                    // As pickle does: each instance of a class has the same names.
                    let name = PyString::intern(py, self.named()?);
                    attributes.set_item(name, self.value(py)?)?;
                }
                instance
            }
            REFERENCE => {
                let index = self.count()?;
                self.1.ok_or_else(cut_off)?.get_item(index)?
            }
            _ => return Err(PyValueError::new_err(format!("farpool: a value begins with the unknown byte {tag}"))),
        })
    }

    fn values(&mut self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        // Each value has at least one byte, so a wrong count cannot reserve too much memory.
        let count = self.count()?;
        let mut values = Vec::with_capacity(count.min(self.0.len()));
        for _ in 0..count {
            values.push(self.value(py)?);
        }
        Ok(values)
    }
}

fn cut_off() -> PyErr {
    PyValueError::new_err("farpool: a value is cut off")
}

/// Encodes a value like an item. For the arguments of initializers, and for tests.
#[pyfunction]
#[pyo3(signature = (value, by_value=None))]
pub(crate) fn encode_value<'py>(
    value: &Bound<'py, PyAny>,
    by_value: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let mut out = Vec::new();
    Encoder::new(value.py(), by_value, Some(Arc::default()))?.encode(value, &mut out)?;
    Ok(PyBytes::new(value.py(), &out))
}

/// Decodes a value like a result. For tests.
#[pyfunction]
pub(crate) fn decode_value<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    match decode(py, bytes)? {
        Decoded::Value(value) => Ok(value),
        Decoded::Raised(error) => Err(error),
    }
}
