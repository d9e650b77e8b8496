//! Values to bytes and back: postcard, and a plain copy where a value already is bytes.
//!
//! postcard costs 5-8 ns for a small value, but only 1 GB/s for a `Vec<u8>`, which serde takes byte by byte. Strings
//! and vectors of plain numbers are therefore copied whole ([`plain`]): their element count as a varint, then their
//! memory. Both sides run the same executable on the same architecture, so memory means the same on both.
//! The choice is made by type and at compile time: other types pay nothing for it.

mod append;
mod plain;
mod varint;

#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};

use append::Append;

/// Why a value could not be encoded or decoded, as a lower-case fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodecError(pub(crate) String);

/// Why [`encode_slice`] failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EncodeSliceError {
    /// The value needs more room.
    Full,
    /// The value cannot be encoded at all.
    Codec(String),
}

/// Appends the encoded value. On an error `out` is as it was.
#[inline]
pub(crate) fn encode<T: Serialize + 'static>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    if let Some(plain) = plain::view(value) {
        plain.append(out);
        return Ok(());
    }
    let start = out.len();
    postcard::serialize_with_flavor(value, Append(out)).map_err(|error| {
        out.truncate(start);
        CodecError::encoding::<T>(reason(&error))
    })
}

/// Encodes into `out` and returns how many bytes that took.
#[inline]
pub(crate) fn encode_slice<T: Serialize + 'static>(value: &T, out: &mut [u8]) -> Result<usize, EncodeSliceError> {
    if let Some(plain) = plain::view(value) {
        return plain.write(out).ok_or(EncodeSliceError::Full);
    }
    match postcard::to_slice(value, out) {
        Ok(used) => Ok(used.len()),
        Err(postcard::Error::SerializeBufferFull) => Err(EncodeSliceError::Full),
        Err(error) => Err(EncodeSliceError::Codec(CodecError::encoding::<T>(reason(&error)).0)),
    }
}

/// Decodes a value that takes up all of `bytes`.
#[inline]
pub(crate) fn decode<T: DeserializeOwned + 'static>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, rest) = decode_prefix(bytes)?;
    if rest.is_empty() { Ok(value) } else { Err(CodecError::trailing::<T>(rest.len())) }
}

/// Decodes the value at the start of `bytes` and returns the bytes behind it.
#[inline]
pub(crate) fn decode_prefix<T: DeserializeOwned + 'static>(bytes: &[u8]) -> Result<(T, &[u8]), CodecError> {
    match plain::read(bytes) {
        Some(Ok(read)) => Ok(read),
        Some(Err(reason)) => Err(CodecError::decoding::<T>(reason)),
        None => postcard::take_from_bytes(bytes).map_err(|error| CodecError::decoding::<T>(reason(&error))),
    }
}

/// What postcard's errors mean to whoever wrote the type.
#[cold]
fn reason(error: &postcard::Error) -> String {
    use postcard::Error::{DeserializeUnexpectedEnd, SerdeDeCustom, SerdeSerCustom, WontImplement};
    match error {
        DeserializeUnexpectedEnd => "it is cut short".to_owned(),
        SerdeSerCustom | SerdeDeCustom => "its own serde implementation refuses it".to_owned(),
        WontImplement => "its format describes itself (serde's untagged, flatten, or deserialize_any), \
                          and farpool's does not: derive plain serde traits for it"
            .to_owned(),
        other => other.to_string(),
    }
}

impl CodecError {
    // The cold path stays out of the loops that it is inlined into.
    #[cold]
    fn encoding<T>(reason: impl fmt::Display) -> Self {
        Self(format!("cannot encode a value of type {}: {reason}", std::any::type_name::<T>()))
    }

    #[cold]
    fn decoding<T>(reason: impl fmt::Display) -> Self {
        Self(format!("cannot decode a value of type {}: {reason}", std::any::type_name::<T>()))
    }

    #[cold]
    pub(crate) fn trailing<T>(bytes: usize) -> Self {
        Self::decoding::<T>(format_args!("{bytes} bytes are left over"))
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CodecError {}
