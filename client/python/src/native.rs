//! The native encodings of common values, and the first byte of each encoding.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

pub(crate) const NONE: u8 = 0;
pub(crate) const FALSE: u8 = 1;
pub(crate) const TRUE: u8 = 2;
pub(crate) const INT: u8 = 3;
pub(crate) const FLOAT: u8 = 4;
pub(crate) const STR: u8 = 5;
pub(crate) const BYTES: u8 = 6;
pub(crate) const TUPLE: u8 = 7;
pub(crate) const LIST: u8 = 8;
pub(crate) const DICT: u8 = 9;
pub(crate) const PICKLE: u8 = 10;
/// A pickle, and its buffers next to it.
pub(crate) const PICKLE_AND_BUFFERS: u8 = 11;
/// A raised exception, packed by `farpool._worker.describe`.
pub(crate) const RAISED: u8 = 12;
/// An instance of a plain class; see `instance.rs`.
pub(crate) const INSTANCE: u8 = 13;
/// An item that refers to common arguments, which follows; see `common.rs`.
pub(crate) const WITH_COMMON: u8 = 14;
/// A reference: the index (u32) of a common argument.
pub(crate) const REFERENCE: u8 = 15;
/// What an item has logged: its size in bytes (u64), and the bytes that `farpool._logging` reads. The result follows.
pub(crate) const RECORDS: u8 = 16;

/// How deep tuples with a native encoding may be nested.
pub(crate) const DEPTH: usize = 32;

/// Appends a value that has a native encoding. Otherwise returns false, and may have appended a part. `depth`: how deep tuples may
/// still be nested; above [`DEPTH`] for the whole value.
pub(crate) fn plain(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, depth: usize) -> bool {
    if let Ok(value) = value.cast_exact::<PyInt>() {
        let Some(number) = small_int(value) else { return false };
        out.push(INT);
        out.extend_from_slice(&number.to_le_bytes());
    } else if let Ok(value) = value.cast_exact::<PyString>() {
        // UTF-8 cannot encode lone surrogates.
        let Ok(text) = value.to_str() else { return false };
        return sized(STR, text.as_bytes(), out);
    } else if let Ok(value) = value.cast_exact::<PyFloat>() {
        out.push(FLOAT);
        out.extend_from_slice(&value.value().to_le_bytes());
    } else if let Ok(value) = value.cast_exact::<PyTuple>() {
        return depth > 0 && count(TUPLE, value.len(), out) && value.iter().all(|each| plain(&each, out, depth - 1));
    } else if value.is_none() {
        out.push(NONE);
    } else if let Ok(value) = value.cast_exact::<PyBool>() {
        out.push(if value.is_true() { TRUE } else { FALSE });
    } else if let Ok(value) = value.cast_exact::<PyBytes>() {
        return sized(BYTES, value.as_bytes(), out);
    } else if depth <= DEPTH {
        return false;
    } else if let Ok(value) = value.cast_exact::<PyList>() {
        return count(LIST, value.len(), out) && value.iter().all(|each| plain(&each, out, depth - 1));
    } else if let Ok(value) = value.cast_exact::<PyDict>() {
        return count(DICT, value.len(), out)
            && value.iter().all(|(key, each)| plain(&key, out, depth - 1) && plain(&each, out, depth - 1));
    } else {
        return false;
    }
    true
}

#[expect(unsafe_code, reason = "a failed conversion would create an exception for every larger number")]
fn small_int(value: &Bound<'_, PyInt>) -> Option<i64> {
    let mut overflow = 0;
    // SAFETY: it is an int, and this thread is attached.
    let number = unsafe { pyo3::ffi::PyLong_AsLongLongAndOverflow(value.as_ptr(), &raw mut overflow) };
    (overflow == 0).then_some(number)
}

/// Appends a tag, the number of these bytes, and the bytes. Returns false if they are too many.
pub(crate) fn sized(tag: u8, bytes: &[u8], out: &mut Vec<u8>) -> bool {
    let fits = count(tag, bytes.len(), out);
    if fits {
        out.extend_from_slice(bytes);
    }
    fits
}

/// Appends a tag and how many values follow it. Returns false if they are too many.
pub(crate) fn count(tag: u8, count: usize, out: &mut Vec<u8>) -> bool {
    let Ok(count) = u32::try_from(count) else { return false };
    out.push(tag);
    out.extend_from_slice(&count.to_le_bytes());
    true
}
