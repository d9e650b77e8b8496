//! What is left of a worker that has ended: what it had finished counts, what it died of is told, and what it had not
//! begun goes elsewhere.

use farpool_proto::v1::{Failure, FailureKind};

use super::WorkerPool;
use super::chunks::Piece;
use super::death::{Death, Reason, seconds};
use super::stop::Stopping;
use super::worker::{Given, Worker};

impl WorkerPool {
    /// A worker is gone: keeps what it has finished, tells what it died of, and moves what it had not begun.
    pub(super) fn bury(&mut self, at: usize, status: Option<i32>, now: u64) {
        // Whatever it wrote before it died counts.
        self.collect_the_rest(at, now);
        let mut worker = self.workers.remove(at);
        // Whoever says that it has ended may be wrong.
        if worker.process.as_ref().is_some_and(|process| !process.has_ended()) {
            worker.kill();
        }
        self.hear_last_words(&mut worker, now);
        let death = Death { status, reason: worker.ending.filter(|ending| ending.asked).map(|ending| ending.reason) };
        let before_ready = !worker.was_ready;
        if let Some(failure) = worker.init_failure.take() {
            self.fail(Failure { pid: worker.pid, ..failure });
        } else if before_ready && status.is_some() && !self.supervision.is_stopping() {
            self.died_at_start(&mut worker, death, now);
        }
        let own_doing = matches!(death.reason, None | Some(Reason::BrokenLink | Reason::ClosedConnection));
        // Killed while it had nothing to do: nothing that another one would die of as well.
        let was_idle = worker.given.is_empty();
        let died_on_something = self.requeue(&mut worker, death);
        let expected = !own_doing || was_idle || before_ready;
        if !expected && !died_on_something && worker.finished == 0 && !self.supervision.is_stopping() {
            self.start_was_fruitless(now, || death.tell(0));
        }
    }

    fn died_at_start(&mut self, worker: &mut Worker, death: Death, now: u64) {
        let told = death.tell(self.settings.memory_limit);
        if self.settings.initializer.is_empty() {
            return self.start_was_fruitless(now, || told);
        }
        let message = match death.reason {
            Some(Reason::InitializerTimedOut { .. }) => told,
            _ => format!("{told}, in its initializer"),
        };
        let mut failure = self.failure(FailureKind::InitializerFailed, message);
        failure.pid = worker.pid;
        failure.stderr = worker.stderr.end();
        self.fail(failure);
    }

    /// Sorts what the worker had: items that ran are told as its victims, the others go elsewhere. Returns whether
    /// any ran.
    fn requeue(&mut self, worker: &mut Worker, death: Death) -> bool {
        let mut running: Vec<u32> =
            worker.memory.status().running(self.threads).map(|running| running.position).collect();
        if let Some(Reason::TimedOut { position, .. }) = death.reason {
            running.push(position);
        }
        // The last in order comes first, so that each is put in front of those behind it.
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
            self.tell_failed(chunk, item, failure);
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
                let mut message = death.tell(self.settings.memory_limit);
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
