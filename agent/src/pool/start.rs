//! Starting workers, and giving up when that leads nowhere.

use std::os::fd::AsFd;

use farpool_proto::v1::FailureKind;
use nix::errno::Errno;

use super::stop::Stopping;
use super::stream::Stream;
use super::worker::Worker;
use super::{Token, WorkerPool};

/// Deaths further apart than this have nothing to do with each other.
const FORGOTTEN_NS: u64 = 10_000_000_000;
/// Workers that may die in a row without having begun an item, beyond one for each process of the pool.
const MOST_FRUITLESS: usize = 5;

impl WorkerPool {
    pub(super) fn start_workers(&mut self, now: u64) {
        while self.may_start() && now >= self.supervision.next_start_at {
            self.allowance.starts -= 1;
            let number = self.supervision.next_number;
            self.supervision.next_number += 1;
            if let Err(error) = self.start_worker(number, now) {
                self.spawn_failed(number, error, now);
            }
        }
    }

    /// Whether it has fewer workers than it should have, and room for more.
    pub(super) fn may_start(&self) -> bool {
        let wanted = match self.supervision.stopping {
            Stopping::No => true,
            Stopping::WhenIdle => self.supervision.up && !self.queue.is_empty(),
            _ => false,
        };
        wanted && self.allowance.starts > 0 && self.serving() < self.allowance.workers
    }

    fn start_worker(&mut self, number: u32, now: u64) -> nix::Result<()> {
        let (worker, ends) = Worker::prepare(number, &self.settings, self.teller.is_some(), now)?;
        let own_stdout = std::io::stdout();
        let stdout = ends.stdout.as_ref().map_or(own_stdout.as_fd(), AsFd::as_fd);
        let descriptors = [ends.memory.as_fd(), ends.socket.as_fd(), stdout, ends.stderr.as_fd()];
        self.supervision.fork_server.spawn(number, descriptors)?;
        Token::Socket(number).watch(&self.epoll, self.serial, worker.socket.as_fd());
        let streams = [(Token::Stdout(number), worker.stdout.as_ref()), (Token::Stderr(number), Some(&worker.stderr))];
        for (token, stream) in streams {
            if let Some(pipe) = stream.and_then(Stream::pipe) {
                token.watch(&self.epoll, self.serial, pipe);
            }
        }
        self.workers.push(worker);
        Ok(())
    }

    pub(super) fn spawn_failed(&mut self, number: u32, error: Errno, now: u64) {
        self.workers.retain(|worker| worker.number != number);
        self.start_was_fruitless(now, || format!("starting a worker: {error}"));
    }

    /// Starting again and again helps nobody: later and later, and not for ever.
    pub(super) fn start_was_fruitless(&mut self, now: u64, what: impl FnOnce() -> String) {
        if now >= self.supervision.fruitless_at + FORGOTTEN_NS {
            self.supervision.fruitless = 0;
        }
        self.supervision.fruitless += 1;
        self.supervision.fruitless_at = now;
        self.supervision.next_start_at = now + (1_000_000 << self.supervision.fruitless.min(10));
        // All of them may be killed at once, from outside; that alone says nothing.
        let deaths = self.supervision.fruitless;
        if deaths as usize >= MOST_FRUITLESS + self.processes {
            let message =
                format!("{deaths} workers in a row ended before they had begun an item; the last: {}", what());
            self.fail(self.failure(FailureKind::Unavailable, message));
        }
    }
}
