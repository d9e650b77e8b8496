//! What follows from what: each step may call those below it, and notes in the [`Round`](crate::round::Round) what is to be
//! done above it.

pub(crate) mod adoption;
pub(crate) mod ending;
pub(crate) mod follow;
pub(crate) mod recovery;
pub(crate) mod review;
pub(crate) mod settling;
pub(crate) mod start;
