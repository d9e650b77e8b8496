//! The steps that follow from inputs. Each step may call those below it, and notes in the
//! [`Round`](crate::round::Round) what steps above it must do.

pub(crate) mod adoption;
pub(crate) mod ending;
pub(crate) mod follow;
pub(crate) mod recovery;
pub(crate) mod review;
pub(crate) mod settling;
pub(crate) mod sharing;
pub(crate) mod start;
