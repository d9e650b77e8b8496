//! Handles a worker that has exited: keeps its finished items, reports why it died, and requeues what it had not begun.

use farpool_proto::v1::{Failure, FailureKind};

use super::WorkerPool;
use super::chunks::Piece;
use super::death::{Death, Reason, seconds};
use super::stop::Stopping;
use super::worker::{Given, Worker};

impl WorkerPool {
    /// Handles a worker's exit. `status` is as waitpid(2) gives it; `None` if the fork server died.
    pub(super) fn worker_exited(&mut self, at: usize, status: Option<i32>, now: u64) {
        // What it wrote before it died counts.
        self.collect_remaining(at, now);
        let mut worker = self.workers.remove(at);
        // The report of its exit may be wrong.
        if worker.process.as_ref().is_some_and(|process| !process.has_ended()) {
            worker.kill();
        }
        self.drain_output(&mut worker, now);
        let death = Death {
            status,
            reason: worker
                .termination
                .filter(|termination| termination.sigterm_sent)
                .map(|termination| termination.reason),
        };
        let before_ready = !worker.was_ready;
        if let Some(failure) = worker.init_failure.take() {
            self.fail(Failure { pid: worker.pid, ..failure });
        } else if before_ready && status.is_some() && !self.supervision.is_stopping() {
            self.died_at_start(&mut worker, death, now);
        }
        let own_doing = matches!(death.reason, None | Some(Reason::BrokenLink | Reason::ClosedConnection));
        // It was killed while idle, so no item is at fault.
        let was_idle = worker.given.is_empty();
        let died_on_something = self.requeue(&mut worker, death);
        let expected = !own_doing || was_idle || before_ready;
        if !expected && !died_on_something && worker.finished == 0 && !self.supervision.is_stopping() {
            self.start_failed(now, || death.describe(0));
        }
    }

    fn died_at_start(&mut self, worker: &mut Worker, death: Death, now: u64) {
        let description = death.describe(self.settings.memory_limit);
        if self.settings.initializer.is_empty() {
            return self.start_failed(now, || description);
        }
        let message = match death.reason {
            Some(Reason::InitializerTimedOut { .. }) => description,
            _ => format!("{description}, in its initializer"),
        };
        let mut failure = self.failure(FailureKind::InitializerFailed, message);
        failure.pid = worker.pid;
        failure.stderr = worker.stderr.end();
        self.fail(failure);
    }

    /// Reports the items that ran as failed and requeues the others. Returns whether any ran.
    fn requeue(&mut self, worker: &mut Worker, death: Death) -> bool {
        let mut running: Vec<u32> =
            worker.memory.status().running(self.threads).map(|running| running.position).collect();
        if let Some(Reason::TimedOut { position, .. }) = death.reason {
            running.push(position);
        }
        // Pieces are collected in reverse order, since each is pushed to the front of the queue.
        let mut pieces: Vec<Piece> = worker.rest.take().into_iter().collect();
        let mut victims = Vec::new();
        while let Some(given) = worker.given.pop_back() {
            let mut end = given.end();
            for position in (given.next()..given.end()).rev().filter(|position| running.contains(position)) {
                push_piece(&mut pieces, &given, position + 1, end);
                victims.push((given.chunk, given.first + u64::from(position - given.position), position));
                end = position;
            }
            push_piece(&mut pieces, &given, given.next(), end);
        }
        for piece in pieces {
            if self.chunks[piece.chunk as usize].cancelled || self.supervision.stopping == Stopping::Now {
                self.settle(piece.chunk, piece.count);
            } else {
                self.queue.push_front(piece);
            }
        }
        let any = !victims.is_empty();
        for (chunk, item, position) in victims {
            let failure = self.failure_of_victim(worker, death, position);
            self.report_failed(chunk, item, failure);
        }
        any
    }

    fn failure_of_victim(&mut self, worker: &mut Worker, death: Death, position: u32) -> Failure {
        let mut failure = match death.reason {
            Some(Reason::TimedOut { position: timed_out, limit }) if timed_out == position => self.failure(
                FailureKind::TimedOut,
                format!(
                    "the item ran longer than its timeout of {}; its worker was killed and replaced",
                    seconds(limit)
                ),
            ),
            _ => {
                let mut message = death.describe(self.settings.memory_limit);
                if let Some(note) = worker.memory.status().note() {
                    message = format!("{message}, after it {note}");
                }
                self.failure(FailureKind::WorkerDied, message)
            }
        };
        failure.pid = worker.pid;
        failure.stderr = worker.stderr.end();
        failure
    }
}

fn push_piece(pieces: &mut Vec<Piece>, given: &Given, from: u32, to: u32) {
    if from < to {
        pieces.push(Piece {
            chunk: given.chunk,
            first: given.first + u64::from(from - given.position),
            count: u64::from(to - from),
        });
    }
}
