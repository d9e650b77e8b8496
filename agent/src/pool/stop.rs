//! Stops a pool: first its workers, then its fork server.

use farpool_link::record::Kind;
use farpool_proto::v1::PoolStopped;
use farpool_proto::v1::agent_event::Body;

use super::WorkerPool;
use super::death::Reason;
use super::worker::{State, Termination};

/// Time for a worker that was told to exit: its program's exit handlers may have work to do.
const EXIT_GRACE_NS: u64 = 5_000_000_000;
/// Time for the fork server to exit once its connection was closed.
pub(super) const CLOSE_GRACE_NS: u64 = 1_000_000_000;

/// How long an exiting worker occupies its slot at most.
pub(super) const SLOT_HOLD_NS: u64 = 1_000_000_000;

/// How far a pool has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopping {
    No,
    /// Workers exit when they are idle.
    WhenIdle,
    /// Workers are being killed.
    Now,
    /// All workers have ended; the fork server was told to exit at this time.
    Closing {
        since: u64,
    },
    /// All processes have ended.
    Done,
}

impl WorkerPool {
    /// Stops the workers: now, or when they are idle.
    pub(crate) fn stop(&mut self, now: bool) {
        match self.supervision.stopping {
            Stopping::No | Stopping::WhenIdle if now => {
                self.supervision.stopping = Stopping::Now;
                self.queue.clear();
                self.rejected.clear();
            }
            Stopping::No => self.supervision.stopping = Stopping::WhenIdle,
            _ => {}
        }
    }

    /// Stops the pool at the coordinator's request. The coordinator sends nothing more about it.
    pub(crate) fn request_stop(&mut self, now: bool) {
        self.supervision.stop_requested = true;
        self.stop(now);
    }

    /// Cancels a stop, unless its workers are being killed.
    pub(crate) fn cancel_stop(&mut self) {
        if self.supervision.stopping == Stopping::WhenIdle {
            self.supervision.stopping = Stopping::No;
            self.supervision.stop_requested = false;
        }
    }

    /// Returns whether the coordinator requested the stop.
    pub(crate) fn stop_was_requested(&self) -> bool {
        self.supervision.stop_requested
    }

    /// Returns whether all its processes have ended.
    pub(crate) fn is_stopped(&self) -> bool {
        self.supervision.stopping == Stopping::Done
    }

    pub(super) fn advance_stop(&mut self, now: u64) {
        match self.supervision.stopping {
            Stopping::WhenIdle => self.stop_idle_workers(now),
            Stopping::Now => {
                // Items may have been taken back from a worker meanwhile.
                self.queue.clear();
                for at in 0..self.workers.len() {
                    self.terminate(at, Reason::Stopped, now);
                }
            }
            Stopping::Closing { since } if now >= since + CLOSE_GRACE_NS => self.supervision.fork_server.kill_server(),
            _ => {}
        }
        let leaving = matches!(self.supervision.stopping, Stopping::WhenIdle | Stopping::Now);
        if leaving && self.workers.is_empty() && self.queue.is_empty() && self.rejected.is_empty() {
            self.supervision.fork_server.close();
            self.supervision.stopping = Stopping::Closing { since: now };
        }
    }

    fn stop_idle_workers(&mut self, now: u64) {
        if self.queue.is_empty() {
            self.order_exit(|state| matches!(state, State::Ready | State::Retiring), now);
        }
    }

    /// Tells workers to exit that have run as many items as one worker may.
    pub(super) fn stop_retired_workers(&mut self, now: u64) {
        self.order_exit(|state| state == State::Retiring, now);
    }

    fn order_exit(&mut self, may_exit: impl Fn(State) -> bool, now: u64) {
        for worker in &mut self.workers {
            let idle = worker.is_idle() && may_exit(worker.state);
            if idle && worker.order_or_defer(Kind::Stop).unwrap_or(false) {
                worker.publish();
                worker.state = State::Exiting;
                worker.slot_held_until = Some(now + SLOT_HOLD_NS);
                worker.termination = Some(Termination {
                    reason: Reason::Stopped,
                    at: now + EXIT_GRACE_NS,
                    sigterm_sent: false,
                    sigkill_sent: false,
                    killed_directly: false,
                });
            }
        }
    }

    /// Records and reports that all processes have ended.
    pub(super) fn stopped(&mut self) {
        self.supervision.stopping = Stopping::Done;
        self.report.other(Body::PoolStopped(PoolStopped { pool: self.id }));
    }
}
