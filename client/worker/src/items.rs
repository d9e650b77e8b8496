//! Runs the items of one function: the innermost loop of a worker.

use std::panic::{AssertUnwindSafe, catch_unwind};

use farpool_link::fork;
use farpool_proto::v1::{Failure, FailureKind};

use crate::panics;

/// The source of a run's items, and the destination of their outcomes.
pub trait Items {
    /// Begins the next item and returns its bytes; `None` if there is none.
    fn next(&mut self) -> Option<&[u8]>;
    /// Begins the next item and returns its bytes, owned. A large item is moved, not copied.
    fn take(&mut self) -> Option<Vec<u8>>;
    /// Returns the room: a buffer, which may be empty, for a result that fits into it.
    fn room(&mut self) -> &mut [u8];
    /// Returns an empty buffer for results that do not fit into the room.
    fn scratch(&mut self) -> &mut Vec<u8>;
    /// Reports that the item is done; its result is in the room or in the scratch buffer. `failed`: it counts as failed
    /// nevertheless.
    fn done(&mut self, result: Encoded, failed: bool);
    /// Reports that the item has failed.
    fn failed(&mut self, failure: Failure);
}

/// The location of an encoded result.
#[derive(Clone, Copy, Debug)]
pub enum Encoded {
    /// In the first bytes of the room; the number of bytes.
    InRoom(usize),
    /// In the scratch buffer.
    InScratch,
}

/// An item that is done.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Its result.
    pub result: Encoded,
    /// Whether it counts as failed nevertheless.
    pub failed: bool,
}

/// Runs all items. `one` takes the next item, calls the function and encodes its result; `None` if there is no item. A
/// panic fails the item. A process that was forked in `one` exits instead of returning.
pub fn run(items: &mut dyn Items, mut one: impl FnMut(&mut dyn Items) -> Option<Result<Done, Failure>>) {
    let generation = fork::generation();
    loop {
        // After a panic, only the room and the scratch buffer may be half-written, and they do not count before `done`.
        let outcome = catch_unwind(AssertUnwindSafe(|| one(items)));
        fork::end_if_forked(generation, "a task");
        match outcome {
            Ok(None) => return,
            Ok(Some(Ok(Done { result, failed }))) => items.done(result, failed),
            Ok(Some(Err(failure))) => items.failed(failure),
            Err(payload) => items.failed(panics::failure(payload)),
        }
    }
}

pub(crate) fn rejected(message: &str) -> Failure {
    Failure { kind: FailureKind::ProgramRejected.into(), message: message.to_owned(), ..Failure::default() }
}

/// Returns the end of the item at `at`; `ends` has a u32 for each item.
pub(crate) fn end_of(ends: &[u8], at: usize) -> Option<u32> {
    let four = ends.get(4 * at..4 * at + 4)?;
    Some(u32::from_le_bytes(four.try_into().ok()?))
}
