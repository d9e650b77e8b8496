//! The end of a pool: first the workers go, then the fork server.

use farpool_link::record::Kind;
use farpool_proto::v1::PoolStopped;
use farpool_proto::v1::agent_event::Body;

use super::WorkerPool;
use super::death::Reason;
use super::worker::{Ending, State};

/// Time for a worker that was told to leave: its program's exit handlers may have something to do.
const LEAVE_GRACE_NS: u64 = 5_000_000_000;
/// Time for the fork server to end once its connection was closed.
pub(super) const CLOSE_GRACE_NS: u64 = 1_000_000_000;

/// Others wait this long for the slot of a worker that is being ended, even if it does not end.
pub(super) const GONE_NS: u64 = 1_000_000_000;

/// How far the end of a pool has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopping {
    No,
    /// Workers leave as soon as they have nothing to do.
    WhenIdle,
    /// Workers are killed.
    Now,
    /// All workers are gone; the fork server goes, since this time.
    Closing {
        since: u64,
    },
    /// Everything is gone.
    Done,
}

impl WorkerPool {
    /// The workers are to go: at once, or as soon as they have nothing to do.
    pub(crate) fn stop(&mut self, now: bool) {
        match self.supervision.stopping {
            Stopping::No | Stopping::WhenIdle if now => {
                self.supervision.stopping = Stopping::Now;
                self.queue.clear();
                self.refused.clear();
            }
            Stopping::No => self.supervision.stopping = Stopping::WhenIdle,
            _ => {}
        }
    }

    /// The coordinator wants it to end, and says no more about it.
    pub(crate) fn told_to_stop(&mut self, now: bool) {
        self.supervision.told_to_stop = true;
        self.stop(now);
    }

    /// It is to go on after all, unless its workers are to go at once.
    pub(crate) fn keep_on(&mut self) {
        if self.supervision.stopping == Stopping::WhenIdle {
            self.supervision.stopping = Stopping::No;
            self.supervision.told_to_stop = false;
        }
    }

    /// Whether its end was the coordinator's wish.
    pub(crate) fn was_told_to_stop(&self) -> bool {
        self.supervision.told_to_stop
    }

    /// Whether nothing is left of this pool.
    pub(crate) fn is_over(&self) -> bool {
        self.supervision.stopping == Stopping::Done
    }

    pub(super) fn go_on_stopping(&mut self, now: u64) {
        match self.supervision.stopping {
            Stopping::WhenIdle => self.let_idle_workers_leave(now),
            Stopping::Now => {
                // Something may have been taken back from a worker meanwhile.
                self.queue.clear();
                for at in 0..self.workers.len() {
                    self.order_end(at, Reason::Stopped, now);
                }
            }
            Stopping::Closing { since } if now >= since + CLOSE_GRACE_NS => self.supervision.fork_server.force(),
            _ => {}
        }
        let leaving = matches!(self.supervision.stopping, Stopping::WhenIdle | Stopping::Now);
        if leaving && self.workers.is_empty() && self.queue.is_empty() && self.refused.is_empty() {
            self.supervision.fork_server.close();
            self.supervision.stopping = Stopping::Closing { since: now };
        }
    }

    fn let_idle_workers_leave(&mut self, now: u64) {
        if self.queue.is_empty() {
            self.let_leave(|state| matches!(state, State::Ready | State::Retiring), now);
        }
    }

    /// Workers that have run as many items as one worker may.
    pub(super) fn let_retired_workers_leave(&mut self, now: u64) {
        self.let_leave(|state| state == State::Retiring, now);
    }

    fn let_leave(&mut self, may_leave: impl Fn(State) -> bool, now: u64) {
        for worker in &mut self.workers {
            let idle = worker.is_idle() && may_leave(worker.state);
            if idle && worker.order_behind(Kind::Stop).unwrap_or(false) {
                worker.show();
                worker.state = State::Leaving;
                worker.gone_by = Some(now + GONE_NS);
                worker.ending = Some(Ending {
                    reason: Reason::Stopped,
                    at: now + LEAVE_GRACE_NS,
                    asked: false,
                    insisted: false,
                    alone: false,
                });
            }
        }
    }

    /// Nothing is left of the pool.
    pub(super) fn stopped(&mut self) {
        self.supervision.stopping = Stopping::Done;
        self.report.other(Body::PoolStopped(PoolStopped { pool: self.id }));
    }
}
