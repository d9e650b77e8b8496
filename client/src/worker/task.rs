//! Running items of one function, whatever it is: the innermost loop of a worker.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use farpool_proto::v1::{Failure, FailureKind};

use super::panics;
use crate::args::{Args, Data};
use crate::codec::{self, EncodeSliceError, Reader};
use crate::fork;

/// Where the items of a run come from and their outcomes go.
pub(crate) trait TaskIo {
    /// Begins the next item and returns its bytes; `None` when there is none.
    fn next(&mut self) -> Option<&[u8]>;
    /// Where the result may be written, if it fits there.
    fn room(&mut self) -> &mut [u8];
    /// A buffer for results that do not fit into the room; empty.
    fn scratch(&mut self) -> &mut Vec<u8>;
    /// The item is done; its result is in the room or in the scratch buffer. `failed`: the function says that it counts as
    /// failed nevertheless.
    fn done(&mut self, result: Encoded, failed: bool);
    /// The item has failed.
    fn failed(&mut self, failure: Failure);
}

/// Where an encoded result lies.
pub(crate) enum Encoded {
    /// In the first so many bytes of the room.
    InRoom(usize),
    /// In the scratch buffer.
    InScratch,
}

pub(super) fn rejected(message: &str) -> Failure {
    Failure { kind: FailureKind::ProgramRejected.into(), message: message.to_owned(), ..Failure::default() }
}

/// The end of the item at `at`, of `ends` that are a u32 each.
pub(super) fn end_of(ends: &[u8], at: usize) -> Option<u32> {
    let four = ends.get(4 * at..4 * at + 4)?;
    Some(u32::from_le_bytes(four.try_into().ok()?))
}

thread_local! {
    /// Whether the item that this thread runs counts as failed.
    static FAILED: Cell<bool> = const { Cell::new(false) };
}

/// Called within a function that a worker runs: its item keeps its result, and counts as failed.
pub fn count_as_failed() {
    FAILED.set(true);
}

/// Runs all items that `io` has through `function`; `reader` is who will read the results.
pub(crate) fn run<A: Args, R: Data>(io: &mut dyn TaskIo, reader: Reader, function: impl Fn(A) -> R) {
    let generation = fork::generation();
    loop {
        // A panic may come from the user's Deserialize, function, Serialize or Drop: all four are in here. What the
        // closure may leave half-done is the room and the scratch buffer, of which nothing counts before `done`.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let Some(input) = io.next() else { return Ok(None) };
            let args = A::decode(input)
                .map_err(|error| codec_failure("decoding the item's arguments in the worker", &error))?;
            let result = function(args);
            // Before anything is written to where the worker itself writes.
            fork::end_if_forked(generation, "a task");
            encode(io, reader, &result).map(Some)
        }));
        fork::end_if_forked(generation, "a task");
        let failed = FAILED.take();
        match outcome {
            Ok(Ok(None)) => return,
            Ok(Ok(Some(encoded))) => io.done(encoded, failed),
            Ok(Err(failure)) => io.failed(failure),
            Err(payload) => io.failed(panics::failure(payload)),
        }
    }
}

fn encode<R: Data>(io: &mut dyn TaskIo, reader: Reader, result: &R) -> Result<Encoded, Failure> {
    match codec::encode_slice(reader, result, io.room()) {
        Ok(length) => return Ok(Encoded::InRoom(length)),
        Err(EncodeSliceError::Full) => {}
        Err(EncodeSliceError::Codec(error)) => return Err(codec_failure("encoding the item's result", &error)),
    }
    match codec::encode_for(reader, result, io.scratch()) {
        Ok(()) => Ok(Encoded::InScratch),
        Err(error) => Err(codec_failure("encoding the item's result", &error)),
    }
}

fn codec_failure(doing: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure { kind: FailureKind::Codec.into(), message: format!("{doing}: {error}"), ..Failure::default() }
}
