//! Runs items of a Rust function in a worker: decode, call, encode.

use std::cell::Cell;

use farpool_proto::v1::{Failure, FailureKind};
use farpool_session::fork;
use farpool_worker::{Done, Encoded, Items};

use crate::args::{Args, Data};
use crate::codec::{self, EncodeSliceError, ReadBy};

thread_local! {
    /// Whether the item that this thread runs counts as failed.
    static FAILED: Cell<bool> = const { Cell::new(false) };
}

/// Marks the current item as failed, when called in a function that a worker runs. The item keeps its result. If its job has
/// [`retry_failed`](crate::Job::retry_failed), it is retried instead while it has attempts left.
pub fn count_as_failed() {
    FAILED.set(true);
}

/// Runs `function` for all items; `read_by` says which builds will read the results.
pub(crate) fn run<A: Args, R: Data>(items: &mut dyn Items, read_by: ReadBy, function: impl Fn(A) -> R) {
    let generation = fork::generation();
    farpool_worker::run(items, |items| {
        FAILED.set(false);
        let input = items.next()?;
        Some(
            A::decode(input)
                .map_err(|error| codec_failure("decoding the item's arguments in the worker", &error))
                .and_then(|args| {
                    let result = function(args);
                    // Before anything is written to the memory that the worker itself writes to.
                    fork::end_if_forked(generation, "a task");
                    let result = encode(items, read_by, &result)?;
                    Ok(Done { result, failed: FAILED.take() })
                }),
        )
    });
}

fn encode<R: Data>(items: &mut dyn Items, read_by: ReadBy, result: &R) -> Result<Encoded, Failure> {
    match codec::encode_slice(read_by, result, items.room()) {
        Ok(length) => return Ok(Encoded::InRoom(length)),
        Err(EncodeSliceError::Full) => {}
        Err(EncodeSliceError::Codec(error)) => return Err(codec_failure("encoding the item's result", &error)),
    }
    match codec::encode_for(read_by, result, items.scratch()) {
        Ok(()) => Ok(Encoded::InScratch),
        Err(error) => Err(codec_failure("encoding the item's result", &error)),
    }
}

fn codec_failure(doing: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure { kind: FailureKind::Codec.into(), message: format!("{doing}: {error}"), ..Failure::default() }
}
