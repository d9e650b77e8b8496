//! Ending workers: those that take too long, run what was cancelled, or do not behave.

use nix::sys::signal::Signal;

use super::WorkerPool;
use super::death::Reason;
use super::stop::{CLOSE_GRACE_NS, GONE_NS};
use super::worker::{Ending, Given, State, Worker};

/// Time between SIGTERM and SIGKILL.
const GRACE_NS: u64 = 100_000_000;
/// Time for a worker that has closed its connection to be gone.
const CLOSED_GRACE_NS: u64 = 50_000_000;
/// Time for a worker that the agent itself has killed to be gone.
const ALONE_GRACE_NS: u64 = 100_000_000;

impl WorkerPool {
    /// Orders the end of a worker, with its process group and its descendants: SIGTERM now, SIGKILL after a grace period.
    pub(super) fn order_end(&mut self, at: usize, reason: Reason, now: u64) {
        let worker = &mut self.workers[at];
        if worker.ending.is_some_and(|ending| ending.asked) {
            return;
        }
        worker.state = State::Dying;
        worker.lent = false;
        worker.gone_by.get_or_insert(now + GONE_NS);
        worker.ending = Some(Ending { reason, at: now + GRACE_NS, asked: true, insisted: false, alone: false });
        // An error means that the fork server is gone, and the worker with it.
        let _ = self.supervision.fork_server.kill(worker.number, Signal::SIGTERM);
    }

    /// Takes the next step with workers whose end was ordered and that are still there.
    pub(super) fn go_on_ending(&mut self, now: u64) {
        // From the last one on, since some may be buried.
        for at in (0..self.workers.len()).rev() {
            let worker = &mut self.workers[at];
            let Some(ending) = worker.ending.filter(|ending| now >= ending.at) else { continue };
            if !ending.asked {
                self.order_end(at, ending.reason, now);
            } else if !ending.insisted {
                worker.ending = Some(Ending { at: now + CLOSE_GRACE_NS, insisted: true, ..ending });
                let _ = self.supervision.fork_server.kill(worker.number, Signal::SIGKILL);
            } else {
                self.end_alone(at, ending, now);
            }
        }
    }

    /// A worker was killed, and the fork server does not say that it has ended.
    fn end_alone(&mut self, at: usize, ending: Ending, now: u64) {
        let worker = &mut self.workers[at];
        let runs = worker.process.as_ref().is_some_and(|process| !process.has_ended());
        if !runs {
            // The fork server is stopped or stuck. This is the last resort: the other workers end with it.
            worker.ending = Some(Ending { at: now + CLOSE_GRACE_NS, ..ending });
            self.supervision.fork_server.force();
        } else if !ending.alone {
            worker.ending = Some(Ending { at: now + ALONE_GRACE_NS, alone: true, ..ending });
            worker.kill();
        } else {
            // The system does not let go of it: it may wait for a disk that does not answer. It will never run anything
            // again, and whoever waits for its item need not wait for that.
            self.bury(at, Some(Signal::SIGKILL as i32), now);
        }
    }

    /// A worker's socket is ready: a wake-up, or its end.
    pub(super) fn socket_ready(&mut self, number: u32, now: u64) {
        let Some(worker) = self.workers.iter_mut().find(|worker| worker.number == number) else { return };
        // Whoever begins or ends to wait for other items rings.
        self.any_waits |= worker.memory.status().waiting() > 0;
        if !worker.heard() {
            // Its exit is about to be told, unless it has only closed the socket and runs on.
            let _ = self.epoll.delete(&worker.socket);
            if worker.ending.is_none() {
                worker.state = State::Dying;
                worker.lent = false;
                worker.gone_by = Some(now + GONE_NS);
                worker.ending = Some(Ending {
                    reason: Reason::ClosedConnection,
                    at: now + CLOSED_GRACE_NS,
                    asked: false,
                    insisted: false,
                    alone: false,
                });
            }
        }
    }

    /// Ends workers that have been on an item, or in their initializer, for too long.
    pub(super) fn end_overdue(&mut self, now: u64) {
        for at in 0..self.workers.len() {
            if let Some((due, reason)) = self.due(at)
                && now >= due
            {
                self.order_end(at, reason, now);
            }
        }
    }

    /// When a worker is to be ended for taking too long, and why.
    pub(super) fn due(&self, at: usize) -> Option<(u64, Reason)> {
        let worker = &self.workers[at];
        if worker.ending.is_some() {
            return None;
        }
        if worker.state == State::Starting {
            let limit = if self.settings.initializer.is_empty() {
                self.supervision.start_limit
            } else {
                self.settings.initializer_timeout_ns
            };
            return (limit > 0).then_some((worker.born.saturating_add(limit), Reason::InitializerTimedOut { limit }));
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
        // While outcomes are left where they are, it is not known whether something begins.
        first.or_else(|| if self.held { None } else { self.first_timeout_of_next(worker) })
    }

    /// When the first item times out that the worker should have begun, if it has begun nothing: it was stopped before it
    /// came to that. An item's clock then runs since it is one of those that the worker's threads would begin next. (Of an
    /// item that was just begun the worker may not have noted yet when.)
    fn first_timeout_of_next(&self, worker: &Worker) -> Option<(u64, Reason)> {
        let claimed = worker.memory.status().claimed();
        let has_begun = |given: &Given| given.next() < claimed;
        let any_begun = worker.given.iter().any(has_begun);
        let mut left = self.threads as u64;
        let mut first: Option<(u64, Reason)> = None;
        for given in worker.given.iter().filter(|given| !any_begun || has_begun(given)) {
            let chunk = &self.chunks[given.chunk as usize];
            // For these nobody waits: they are no item's turn.
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
