//! Terminates workers that take too long, run cancelled items, or violate the protocol.

use nix::sys::signal::Signal;

use super::WorkerPool;
use super::death::Reason;
use super::stop::{CLOSE_GRACE_NS, SLOT_HOLD_NS};
use super::worker::{Given, State, Termination, Worker};

/// Time between SIGTERM and SIGKILL.
const SIGTERM_GRACE_NS: u64 = 100_000_000;
/// Time for a worker that has closed its connection to exit.
const CLOSED_GRACE_NS: u64 = 50_000_000;
/// Time for a worker that the agent itself has killed to disappear.
const DIRECT_KILL_GRACE_NS: u64 = 100_000_000;

impl WorkerPool {
    /// Terminates a worker with its process group and descendants: SIGTERM now, SIGKILL after a grace period.
    pub(super) fn terminate(&mut self, at: usize, reason: Reason, now: u64) {
        let worker = &mut self.workers[at];
        if worker.termination.is_some_and(|termination| termination.sigterm_sent) {
            return;
        }
        worker.state = State::Terminating;
        worker.lent = false;
        worker.slot_held_until.get_or_insert(now + SLOT_HOLD_NS);
        worker.termination = Some(Termination {
            reason,
            at: now + SIGTERM_GRACE_NS,
            sigterm_sent: true,
            sigkill_sent: false,
            killed_directly: false,
        });
        // An error means that the fork server is gone, and the worker with it.
        let _ = self.supervision.fork_server.kill(worker.number, Signal::SIGTERM);
    }

    /// Takes the next step with workers that are being terminated.
    pub(super) fn advance_terminations(&mut self, now: u64) {
        // In reverse order, since some may be removed.
        for at in (0..self.workers.len()).rev() {
            let worker = &mut self.workers[at];
            let Some(termination) = worker.termination.filter(|termination| now >= termination.at) else { continue };
            if !termination.sigterm_sent {
                self.terminate(at, termination.reason, now);
            } else if !termination.sigkill_sent {
                worker.termination = Some(Termination { at: now + CLOSE_GRACE_NS, sigkill_sent: true, ..termination });
                let _ = self.supervision.fork_server.kill(worker.number, Signal::SIGKILL);
            } else {
                self.kill_directly(at, termination, now);
            }
        }
    }

    /// Kills a worker directly: its fork server was asked to, but has not reported its exit.
    fn kill_directly(&mut self, at: usize, termination: Termination, now: u64) {
        let worker = &mut self.workers[at];
        let runs = worker.process.as_ref().is_some_and(|process| !process.has_ended());
        if !runs {
            // The fork server is stopped or stuck. As a last resort it is killed, with all of its workers.
            worker.termination = Some(Termination { at: now + CLOSE_GRACE_NS, ..termination });
            self.supervision.fork_server.kill_server();
        } else if !termination.killed_directly {
            worker.termination =
                Some(Termination { at: now + DIRECT_KILL_GRACE_NS, killed_directly: true, ..termination });
            worker.kill();
        } else {
            // The kernel has not removed the process: it may wait for a disk that does not respond. It will not run any
            // code again, so its items need not wait.
            self.worker_exited(at, Some(Signal::SIGKILL as i32), now);
        }
    }

    /// Handles a worker's ready socket: a wake-up, or its exit.
    pub(super) fn socket_ready(&mut self, number: u32, now: u64) {
        let Some(worker) = self.workers.iter_mut().find(|worker| worker.number == number) else { return };
        // A worker also rings when it starts or stops waiting for other items.
        self.may_lend |= worker.memory.status().waiting() > 0;
        if !worker.drain_socket() {
            // Its exit will be reported soon, unless it has only closed the socket and keeps running.
            let _ = self.epoll.delete(&worker.socket);
            if worker.termination.is_none() {
                worker.state = State::Terminating;
                worker.lent = false;
                worker.slot_held_until = Some(now + SLOT_HOLD_NS);
                worker.termination = Some(Termination {
                    reason: Reason::ClosedConnection,
                    at: now + CLOSED_GRACE_NS,
                    sigterm_sent: false,
                    sigkill_sent: false,
                    killed_directly: false,
                });
            }
        }
    }

    /// Terminates workers that have been running an item, or their initializer, for too long.
    pub(super) fn terminate_overdue(&mut self, now: u64) {
        for at in 0..self.workers.len() {
            if let Some((due, reason)) = self.due(at)
                && now >= due
            {
                self.terminate(at, reason, now);
            }
        }
    }

    /// Returns when a worker must be terminated for taking too long, and why.
    pub(super) fn due(&self, at: usize) -> Option<(u64, Reason)> {
        let worker = &self.workers[at];
        if worker.termination.is_some() {
            return None;
        }
        if worker.state == State::Starting {
            let limit = if self.settings.initializer.is_empty() {
                self.supervision.start_limit
            } else {
                self.settings.initializer_timeout_ns
            };
            return (limit > 0)
                .then_some((worker.requested_at.saturating_add(limit), Reason::InitializerTimedOut { limit }));
        }
        let overdue = self.first_timeout(worker);
        let cancelled = worker.cancel_at.filter(|_| self.runs_cancelled(worker)).map(|at| (at, Reason::Cancelled));
        overdue.into_iter().chain(cancelled).min_by_key(|(due, _)| *due)
    }

    fn first_timeout(&self, worker: &Worker) -> Option<(u64, Reason)> {
        if self.timed_jobs == 0 {
            return None;
        }
        let limit_of = |given: &Given| self.jobs[self.chunks[given.chunk as usize].job as usize].timeout_ns;
        if worker.given.iter().all(|given| limit_of(given) == 0) {
            return None;
        }
        let status = worker.memory.status();
        let running = status.running(self.threads).filter_map(|running| {
            let given = worker.given.iter().find(|given| given.item_at(running.position).is_some())?;
            let limit = limit_of(given);
            let due = running.since?.checked_add(limit)?;
            (limit > 0).then_some((due, Reason::TimedOut { position: running.position, limit }))
        });
        let first = running.min_by_key(|(due, _)| *due);
        // While outcomes are held, the agent does not know whether another item has begun.
        first.or_else(|| if self.held { None } else { self.first_timeout_of_next(worker) })
    }

    /// Returns when the first item times out that a stopped worker should have begun.
    ///
    /// Its clock runs since it is one of the items that the worker's threads would begin next. (For an item that has
    /// just begun, the worker may not have recorded the time yet.)
    fn first_timeout_of_next(&self, worker: &Worker) -> Option<(u64, Reason)> {
        let claimed = worker.memory.status().claimed();
        let has_begun = |given: &Given| given.next() < claimed;
        let any_begun = worker.given.iter().any(has_begun);
        let mut left = self.threads as u64;
        let mut first: Option<(u64, Reason)> = None;
        for given in worker.given.iter().filter(|given| !any_begun || has_begun(given)) {
            let chunk = &self.chunks[given.chunk as usize];
            // Cancelled items do not count as the next ones.
            if chunk.cancelled {
                continue;
            }
            let limit = self.jobs[chunk.job as usize].timeout_ns;
            let since = worker.progress.2.max(given.since);
            if let Some(due) = since.checked_add(limit).filter(|_| limit > 0)
                && first.is_none_or(|(earlier, _)| due < earlier)
            {
                first = Some((due, Reason::TimedOut { position: given.next(), limit }));
            }
            left = left.saturating_sub(u64::from(given.left()));
            if left == 0 {
                break;
            }
        }
        first
    }
}
