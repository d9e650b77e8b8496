//! Detached jobs: sent to the coordinator and read from it in sessions ([`session`]), and calls of its `DetachedJobs`.
//!
//! Sessions and calls have threads of their own, so that any program, async or not, can wait for them. If the
//! connection is lost, sessions resume, and calls are retried.

mod ask;
mod attempts;
pub(super) mod caller_driven;
pub(super) mod connection;
mod read;
mod send;
mod session;
mod thread;

pub use super::location::{DetachSettings, JobLocation, JobRef};
pub use ask::{about, cancel, discard};
pub use read::{JobReader, ReadEnd, Step};
pub use send::JobSender;
