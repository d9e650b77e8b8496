//! Encodes and decodes values, so that each arrives as after a serde round trip through a self-describing format.
//!
//! There are three formats; the cheapest that fits is used:
//! - *plain*: numbers, strings and vectors of numbers, chosen by type at compile time, without a mark.
//! - *compact*: the parts of a value without names and kinds, if Serialize writes exactly what Deserialize asks for, in the same
//!   order ([`compact`], [`shape`]). It costs about a nanosecond a part.
//! - *self-describing*: everything else ([`described`]).
//!
//! All are human-readable in serde's sense, as JSON is, and as serde's own buffers (untagged, flatten) are inside any format.
//! Otherwise some types would lose data (the scope of a `SocketAddrV6`).
//!
//! A value that is not plain begins with a mark ([`mark`]) that names its format. Both sides run the same executable, so a
//! type is the same on both. Results of detached jobs may be read by other builds of a program: these are *sealed*. The
//! compact format is then followed by a fingerprint of its parts, which must match those that the reader expects.

mod compact;
mod depth;
mod described;
mod fault;
mod input;
mod out;
mod plain;
mod shape;
mod sink;
mod varint;

#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};

use compact::{CompactReader, CompactWriter};
use described::{DescribedReader, DescribedWriter};
use fault::Fault;
use input::Input;
use out::Out;
use shape::{Fingerprint, KnownType};
use sink::{Sink, SliceSink};

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

/// Which builds of the program will read a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadBy {
    /// Only this build.
    ThisBuild,
    /// Any build.
    AnyBuild,
}

/// The first byte of a value that is not plain.
mod mark {
    pub(super) const COMPACT: u8 = 0;
    pub(super) const DESCRIBED: u8 = 1;
    /// Compact, followed by a fingerprint.
    pub(super) const SEALED: u8 = 2;
    /// A flag on any of these: the value is nested deeper than [`SHALLOW`](super::depth::SHALLOW).
    pub(super) const DEEP: u8 = 0x80;
}

/// Appends the encoded value. On an error `out` is unchanged.
#[inline]
pub(crate) fn encode<T>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError>
where
    T: Serialize + DeserializeOwned + 'static,
{
    encode_for(ReadBy::ThisBuild, value, out)
}

/// Appends the encoded value to `out`, in a format that the builds in `read_by` can read.
#[inline]
pub(crate) fn encode_for<T>(read_by: ReadBy, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError>
where
    T: Serialize + DeserializeOwned + 'static,
{
    let start = out.len();
    write(read_by, value, out).map_err(|fault| {
        out.truncate(start);
        CodecError::encoding::<T>(fault)
    })
}

/// Encodes into `out` and returns how many bytes that took.
#[inline]
pub(crate) fn encode_slice<T>(read_by: ReadBy, value: &T, out: &mut [u8]) -> Result<usize, EncodeSliceError>
where
    T: Serialize + DeserializeOwned + 'static,
{
    let mut room = SliceSink::new(out);
    let written = write(read_by, value, &mut room);
    match (room.used(), written) {
        (None, _) => Err(EncodeSliceError::Full),
        (Some(used), Ok(())) => Ok(used),
        (_, Err(fault)) => Err(EncodeSliceError::Codec(CodecError::encoding::<T>(fault).0)),
    }
}

/// Decodes a value that takes up all of `bytes`.
#[inline]
pub(crate) fn decode<T: DeserializeOwned + 'static>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, rest) = decode_prefix(bytes)?;
    if rest.is_empty() { Ok(value) } else { Err(CodecError::trailing::<T>(rest.len())) }
}

/// Decodes the value at the start of `bytes` and returns the bytes after it.
#[inline]
pub(crate) fn decode_prefix<T: DeserializeOwned + 'static>(bytes: &[u8]) -> Result<(T, &[u8]), CodecError> {
    let mut input = Input::new(bytes, 2 * depth::SHALLOW);
    let read = match plain::read(&mut input) {
        Some(read) => read,
        None => read_marked(&mut input),
    };
    read.map(|value| (value, input.bytes)).map_err(CodecError::decoding::<T>)
}

pub(crate) use farpool_session::STACK;

/// Version of the encoding of detached jobs' results, for their readers; 0 before values were marked.
pub(crate) const DETACHED_FORMAT: u32 = 1;

/// Returns whether every version of the encoding encodes this type as [`DETACHED_FORMAT`] does.
pub(crate) fn is_plain<T: 'static>() -> bool {
    plain::is_plain::<T>()
}

#[inline]
fn write<T, S>(read_by: ReadBy, value: &T, sink: &mut S) -> Result<(), Fault>
where
    T: Serialize + DeserializeOwned + 'static,
    S: Sink,
{
    match plain::write(value, sink) {
        Some(written) => written,
        None => write_marked(read_by, value, sink),
    }
}

fn write_marked<T, S>(read_by: ReadBy, value: &T, sink: &mut S) -> Result<(), Fault>
where
    T: Serialize + DeserializeOwned + 'static,
    S: Sink,
{
    let start = sink.position();
    if let Some(known_type) = shape::known_type::<T>() {
        match write_compact(read_by, known_type, value, sink) {
            Err(Fault::Unknown) if known_type.may_learn() => {
                shape::learn::learn(known_type, value);
                sink.truncate(start);
                match write_compact(read_by, known_type, value, sink) {
                    Err(Fault::Unknown) => known_type.note_failed_attempt(),
                    Err(Fault::Differs) => {}
                    written => return written,
                }
            }
            Err(Fault::Unknown | Fault::Differs) => {}
            written => return written,
        }
        sink.truncate(start);
    }
    write_described(value, sink)
}

/// Writes in the compact format. [`Fault::Unknown`] and [`Fault::Differs`]: it does not fit this value.
#[inline]
fn write_compact<T, S>(read_by: ReadBy, known_type: &'static KnownType, value: &T, sink: &mut S) -> Result<(), Fault>
where
    T: Serialize + 'static,
    S: Sink,
{
    let start = sink.position();
    let (mark, fingerprint) = match read_by {
        ReadBy::ThisBuild => (mark::COMPACT, None),
        ReadBy::AnyBuild => (mark::SEALED, Some(Fingerprint::default())),
    };
    sink.push(mark)?;
    let mut out = Out::new(sink);
    out.fingerprint = fingerprint;
    let written = CompactWriter::part(&mut out, known_type.root, 0, value);
    out.conclude(written)?;
    let (deep, fingerprint) = (out.deep, out.fingerprint);
    if let Some(fingerprint) = fingerprint {
        sink.extend(&fingerprint.to_bytes())?;
    }
    if deep {
        sink.set(start, mark | mark::DEEP);
    }
    Ok(())
}

// Written into a separate buffer and copied, so that there is one instance per type and not one per sink.
#[cold]
fn write_described<T: Serialize, S: Sink>(value: &T, sink: &mut S) -> Result<(), Fault> {
    let mut bytes = vec![mark::DESCRIBED];
    let mut out = Out::new(&mut bytes);
    let written = DescribedWriter::new(&mut out, 0).write(value);
    out.conclude(written)?;
    if out.deep {
        bytes[0] |= mark::DEEP;
    }
    sink.extend(&bytes)
}

fn read_marked<T: DeserializeOwned>(input: &mut Input<'_>) -> Result<T, Fault> {
    match input.byte()? {
        mark::COMPACT => T::deserialize(CompactReader::new(input)),
        mark if mark & mark::DEEP != 0 => {
            input.levels = 2 * fault::MAX_DEPTH;
            depth::on_deep_stack(|| read_as(mark & !mark::DEEP, input))
        }
        mark => read_as(mark, input),
    }
}

fn read_as<T: DeserializeOwned>(mark: u8, input: &mut Input<'_>) -> Result<T, Fault> {
    match mark {
        mark::COMPACT => T::deserialize(CompactReader::new(input)),
        mark::DESCRIBED => T::deserialize(DescribedReader::new(input, None)),
        mark::SEALED => {
            input.fingerprint = Some(Fingerprint::default());
            let value = T::deserialize(CompactReader::new(input));
            let read = input.fingerprint.take().unwrap_or_default().to_bytes();
            match value {
                Ok(value) if input.array() == Ok(read) => Ok(value),
                _ => Err(serde::de::Error::custom(
                    "it was encoded by another build of the program, in which the type had other fields, variants or \
                     field types",
                )),
            }
        }
        _ => Err(Fault::Damaged),
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
        Self::decoding::<T>(format_args!("bytes left over: {bytes}"))
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CodecError {}
