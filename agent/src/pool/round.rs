//! The context that the parts of a pool get with each call.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use farpool_proto::v1::{Failure, FailureKind, WorkerSettings};

use super::report::Report;
use super::wait::Token;
use crate::Host;

/// The time, the pool's settings, and the report that all parts of the pool write to.
#[derive(Debug)]
pub(super) struct Round {
    /// The time of this round, in CLOCK_MONOTONIC nanoseconds.
    pub(super) now: u64,
    /// Outcomes and output are not read.
    pub(super) held: bool,
    pub(super) report: Report,
    /// The coordinator's number of the pool.
    pub(super) id: u64,
    /// Its number in this agent, which is never reused.
    pub(super) serial: u64,
    /// Items that one worker runs at the same time.
    pub(super) threads: usize,
    pub(super) settings: WorkerSettings,
    /// Time for a worker without an initializer to become ready, and for the program to reach `farpool::init()`.
    pub(super) start_limit: u64,
    pub(super) host: Arc<Host>,
}

impl Round {
    /// Returns a failure on this host.
    pub(super) fn failure(&self, kind: FailureKind, message: String) -> Failure {
        Failure { kind: kind.into(), message, host: self.host.name.clone(), ..Failure::default() }
    }

    /// Makes the agent's epoll report the descriptor with this token.
    pub(super) fn watch(&self, token: Token, descriptor: BorrowedFd<'_>) {
        token.watch(&self.host.epoll, self.serial, descriptor);
    }

    /// Stops the agent's epoll from reporting the descriptor.
    pub(super) fn unwatch(&self, descriptor: BorrowedFd<'_>) {
        // An error means that it was not watched.
        let _ = self.host.epoll.delete(descriptor);
    }
}
