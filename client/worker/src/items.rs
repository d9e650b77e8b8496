//! Running items of one function, whatever it is: the innermost loop of a worker.

use std::panic::{AssertUnwindSafe, catch_unwind};

use farpool_link::fork;
use farpool_proto::v1::{Failure, FailureKind};

use crate::panics;

/// Where the items of a run come from and their outcomes go.
pub trait Items {
    /// Begins the next item and returns its bytes; `None` when there is none.
    fn next(&mut self) -> Option<&[u8]>;
    /// The same, in memory that is the function's for good. A large item is not copied for that.
    fn take(&mut self) -> Option<Vec<u8>>;
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
#[derive(Clone, Copy, Debug)]
pub enum Encoded {
    /// In the first so many bytes of the room.
    InRoom(usize),
    /// In the scratch buffer.
    InScratch,
}

/// An item that is done.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Its result.
    pub result: Encoded,
    /// The function says that it counts as failed nevertheless.
    pub failed: bool,
}

/// Runs all items: `one` takes the next one, calls the function and encodes its result; `None`: there was no next one. A panic
/// fails its item. A process that was forked in `one` ends instead of returning from it.
pub fn run(items: &mut dyn Items, mut one: impl FnMut(&mut dyn Items) -> Option<Result<Done, Failure>>) {
    let generation = fork::generation();
    loop {
        // What `one` may leave half-done is the room and the scratch buffer, of which nothing counts before `done`.
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

/// The end of the item at `at`, of `ends` that are a u32 each.
pub(crate) fn end_of(ends: &[u8], at: usize) -> Option<u32> {
    let four = ends.get(4 * at..4 * at + 4)?;
    Some(u32::from_le_bytes(four.try_into().ok()?))
}
