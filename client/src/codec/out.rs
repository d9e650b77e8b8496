//! The output of encoding one value, and whether it succeeded.

use super::depth;
use super::fault::Fault;
use super::shape::{Fingerprint, Leaf};
use super::sink::Sink;

pub(super) struct Out<'a, S> {
    pub(super) sink: &'a mut S,
    /// Why the format does not fit.
    cause: Option<Fault>,
    /// Whether writing a part failed.
    broken: bool,
    /// Whether the value is nested deeper than [`SHALLOW`](super::depth::SHALLOW).
    pub(super) deep: bool,
    /// The fingerprint of the parts that were written in the compact format, if it is needed.
    pub(super) fingerprint: Option<Fingerprint>,
}

impl<'a, S: Sink> Out<'a, S> {
    pub(super) fn new(sink: &'a mut S) -> Self {
        Self { sink, cause: None, broken: false, deep: false, fingerprint: None }
    }

    #[inline]
    pub(super) fn add_to_fingerprint(&mut self, part: u64) {
        if let Some(fingerprint) = &mut self.fingerprint {
            fingerprint.add(part);
        }
    }

    #[cold]
    pub(super) fn fail<T>(&mut self, why: Fault) -> Result<T, Fault> {
        let returned = match why {
            Fault::Unknown => Fault::Unknown,
            _ => Fault::Differs,
        };
        self.cause.get_or_insert(why);
        Err(returned)
    }

    #[inline(always)]
    pub(super) fn descend<R>(
        &mut self,
        depth: u32,
        write: impl FnOnce(&mut Self) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        let mut deep = self.deep;
        let written = depth::descend(depth, &mut deep, || write(self));
        self.deep |= deep;
        self.broken |= written.is_err();
        written
    }

    /// Returns the overall result: a Serialize may swallow the error of a part, or return a different one.
    #[inline]
    pub(super) fn conclude(&mut self, written: Result<(), Fault>) -> Result<(), Fault> {
        match (self.cause.take(), written) {
            (Some(cause), _) => Err(cause),
            (None, Ok(())) if self.broken => Err(serde::ser::Error::custom("its Serialize continued after an error")),
            (None, written) => written,
        }
    }
}

/// Integers, floats, booleans and characters, in the compact format.
pub(super) trait WriteLeaf: Sink {
    #[inline]
    fn unsigned(&mut self, number: u64) -> Result<(), Fault> {
        self.varint(number)
    }

    #[inline]
    fn signed(&mut self, number: i64) -> Result<(), Fault> {
        self.varint(super::varint::zigzag(number))
    }

    #[inline]
    fn character(&mut self, character: char) -> Result<(), Fault> {
        self.counted(character.encode_utf8(&mut [0; 4]).as_bytes())
    }
}

impl<S: Sink> WriteLeaf for S {}

impl Leaf {
    pub(super) fn part(self) -> u64 {
        self as u64
    }
}
