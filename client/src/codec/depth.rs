//! Deeply nested values: the limit on their depth, and the stack for them.

use super::fault::{Fault, MAX_DEPTH};

/// Levels that can be read on any stack. A value with more is marked, so that its reader switches to a large stack beforehand:
/// serde's own buffers (untagged, flatten) recurse without calling the deserializer.
pub(super) const SHALLOW: u32 = 64;

/// Bytes of stack for reading a value of [`MAX_DEPTH`] levels. Only the used part takes memory.
const DEEP_STACK: usize = MAX_DEPTH as usize * (32 << 10);

/// After this many levels, more stack is provided for Serialize implementations.
const STEP: u32 = 32;
const STEP_STACK: usize = 256 << 10;
const SEGMENT: usize = 16 << 20;

/// Calls `write` for a part of a value that is `depth` levels deep, with enough stack for some more levels. Sets `deep` beyond
/// [`SHALLOW`].
#[inline(always)]
pub(super) fn descend<R>(depth: u32, deep: &mut bool, write: impl FnOnce() -> Result<R, Fault>) -> Result<R, Fault> {
    if !depth.is_multiple_of(STEP) {
        return write();
    }
    if depth >= MAX_DEPTH {
        return Err(Fault::TooDeep);
    }
    *deep |= depth >= SHALLOW;
    on_more_stack(write)
}

#[cold]
#[inline(never)]
fn on_more_stack<R>(write: impl FnOnce() -> R) -> R {
    stacker::maybe_grow(STEP_STACK, SEGMENT, write)
}

/// Calls `read` on a stack that is large enough for the deepest value.
#[cold]
#[inline(never)]
pub(super) fn on_deep_stack<R>(read: impl FnOnce() -> R) -> R {
    stacker::maybe_grow(DEEP_STACK, DEEP_STACK, read)
}
