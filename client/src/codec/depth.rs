//! Deeply nested values: how deep they may be, and the stack for them.

use super::fault::{Fault, MAX_DEPTH};

/// Levels that are read on any stack. A value with more is marked, so that its reader takes a stack that is large enough:
/// serde's own buffers (untagged, flatten) recurse where no deserializer could see to it.
pub(super) const SHALLOW: u32 = 64;

/// Bytes of stack on which a value of [`MAX_DEPTH`] levels is read. Only what is used of it takes memory.
const DEEP_STACK: usize = MAX_DEPTH as usize * (32 << 10);

/// Serialize implementations are given more stack every so many levels.
const STEP: u32 = 32;
const STEP_STACK: usize = 256 << 10;
const SEGMENT: usize = 16 << 20;

/// Calls `write` for a part of a value that is `depth` levels deep, with enough stack for some more levels.
/// `deep` is set once it is not shallow any more.
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

/// Calls `read` on a stack on which the deepest value can be read.
#[cold]
#[inline(never)]
pub(super) fn on_deep_stack<R>(read: impl FnOnce() -> R) -> R {
    stacker::maybe_grow(DEEP_STACK, DEEP_STACK, read)
}
