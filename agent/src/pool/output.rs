//! Output of a pool's processes: copied to this process's stderr, or forwarded to the coordinator.

use bytes::Bytes;
use farpool_proto::v1::agent_event::Body;
use farpool_proto::v1::{AgentOutput, OutputStream};

use super::lines::{Budget, ForwardingSink};
use super::report::Report;
use super::stream::{Discard, OwnStderr, Pumped, Stream};
use super::worker::Worker;
use super::{Token, WorkerPool};

/// Delay before blocked output is retried.
const RETRY_NS: u64 = 50_000_000;
/// The same for the output of a worker whose process id is not known yet.
const UNKNOWN_RETRY_NS: u64 = 1_000_000;
/// Blocked until [`WorkerPool::hold`] releases it.
const UNTIL_RELEASED: u64 = u64::MAX;

/// Forwards output to the coordinator within a budget.
#[derive(Debug)]
pub(super) struct Forwarder {
    pool: u64,
    budget: Budget,
    /// The worker that is read first after the budget was used up.
    turn: usize,
}

impl Forwarder {
    pub(super) fn new(pool: u64, now: u64) -> Forwarder {
        Forwarder { pool, budget: Budget::new(now), turn: 0 }
    }

    fn pump(&mut self, stream: &mut Stream, whose: (u32, OutputStream), report: &mut Report, now: u64) -> Pumped {
        let mut lines = std::mem::take(&mut stream.lines);
        let mut sink = ForwardingSink { lines: &mut lines, budget: &mut self.budget, now, ended: false };
        let pumped = stream.pump(&mut sink);
        stream.lines = lines;
        self.forward(stream, whose, report, now, pumped == Pumped::Ended);
        pumped
    }

    fn drain(&mut self, stream: &mut Stream, whose: (u32, OutputStream), report: &mut Report, now: u64) {
        let mut lines = std::mem::take(&mut stream.lines);
        stream.pump(&mut ForwardingSink { lines: &mut lines, budget: &mut self.budget, now, ended: true });
        stream.lines = lines;
        self.forward(stream, whose, report, now, true);
    }

    fn forward(&self, stream: &mut Stream, (pid, kind): (u32, OutputStream), report: &mut Report, now: u64, all: bool) {
        if let Some(data) = stream.lines.take(now, all) {
            let output = AgentOutput { pool: self.pool, pid, stream: kind.into(), data: Bytes::from(data) };
            report.other(Body::Output(output));
        }
    }
}

impl WorkerPool {
    /// Reads a worker's stream or the fork server's stderr.
    pub(super) fn output_ready(&mut self, token: Token, now: u64) {
        let WorkerPool { workers, fork_server_stderr, forwarder, report, supervision, epoll, held, .. } = self;
        let (stream, whose) = match token {
            Token::ForkServerStderr => {
                let pid = supervision.fork_server.pid();
                let Some(stream) = fork_server_stderr else { return };
                (stream, (pid, OutputStream::Stderr))
            }
            Token::Stdout(number) | Token::Stderr(number) => {
                let Some(worker) = workers.iter_mut().find(|worker| worker.number == number) else { return };
                let pid = worker.known_pid();
                match (token, &mut worker.stdout) {
                    (Token::Stdout(_), Some(stdout)) => (stdout, (pid, OutputStream::Stdout)),
                    _ => (&mut worker.stderr, (pid, OutputStream::Stderr)),
                }
            }
            Token::ForkServer | Token::Socket(_) => return,
        };
        let (pumped, again) = match forwarder {
            _ if *held => (Pumped::Blocked, UNTIL_RELEASED),
            None => (stream.pump(&mut OwnStderr), now + RETRY_NS),
            // The program has already printed this in the client.
            Some(_) if token == Token::ForkServerStderr && !supervision.up => (stream.pump(&mut Discard), now),
            Some(_) if whose.0 == 0 => (Pumped::Blocked, now + UNKNOWN_RETRY_NS),
            Some(forwarder) => {
                let pumped = forwarder.pump(stream, whose, report, now);
                (pumped, forwarder.budget.resume_at())
            }
        };
        if pumped == Pumped::Blocked {
            stream.blocked_until = Some(again);
            if let Some(pipe) = stream.pipe() {
                let _ = epoll.delete(pipe);
            }
        }
    }

    /// Stops or resumes reading outcomes and output: for this pool (`of_this`, if it changes) and for all pools.
    pub(crate) fn hold(&mut self, of_this: Option<bool>, of_all: bool) {
        self.held_by_pool = of_this.unwrap_or(self.held_by_pool);
        let hold = of_all || self.held_by_pool;
        self.held = hold;
        let streams = self.workers.iter_mut().flat_map(|worker| worker.streams().map(|(_, _, stream)| stream));
        for stream in streams.chain(&mut self.fork_server_stderr) {
            if !hold && stream.blocked_until == Some(UNTIL_RELEASED) {
                stream.blocked_until = Some(0);
            }
        }
    }

    /// Resumes blocked output and forwards unfinished lines that are due.
    pub(super) fn resume_output(&mut self, now: u64) {
        let WorkerPool { workers, fork_server_stderr, forwarder, report, supervision, epoll, serial, .. } = self;
        // The first stream may use up the whole budget, so they take turns.
        let turn = forwarder.as_mut().map_or(0, |forwarder| {
            forwarder.turn = forwarder.turn.wrapping_add(1);
            forwarder.turn % workers.len().max(1)
        });
        let (before, after) = workers.split_at_mut(turn);
        let of_workers = after.iter_mut().chain(before).flat_map(Worker::streams);
        let of_fork_server = fork_server_stderr
            .iter_mut()
            .map(|stream| (Token::ForkServerStderr, (supervision.fork_server.pid(), OutputStream::Stderr), stream));
        for (token, whose, stream) in of_workers.chain(of_fork_server) {
            if stream.blocked_until.is_some_and(|at| now >= at) {
                stream.blocked_until = None;
                if let Some(pipe) = stream.pipe() {
                    token.watch(epoll, *serial, pipe);
                }
            }
            if let Some(forwarder) = forwarder
                && stream.lines.due().is_some_and(|due| now >= due)
            {
                forwarder.forward(stream, whose, report, now, false);
            }
        }
    }

    /// Forwards everything that a worker wrote before it exited.
    pub(super) fn drain_output(&mut self, worker: &mut Worker, now: u64) {
        let WorkerPool { forwarder, report, .. } = self;
        for (_, whose, stream) in worker.streams() {
            match forwarder {
                None => drop(stream.pump(&mut OwnStderr)),
                Some(forwarder) => forwarder.drain(stream, whose, report, now),
            }
        }
    }

    /// Returns what the exited fork server wrote to stderr; empty if its stderr is not captured.
    pub(super) fn drain_fork_server_stderr(&mut self, now: u64) -> String {
        let WorkerPool { fork_server_stderr, forwarder, report, supervision, .. } = self;
        let Some(mut stream) = fork_server_stderr.take() else { return String::new() };
        match forwarder {
            Some(forwarder) if supervision.up => {
                let whose = (supervision.fork_server.pid(), OutputStream::Stderr);
                forwarder.drain(&mut stream, whose, report, now);
            }
            _ => drop(stream.pump(&mut Discard)),
        }
        stream.end()
    }
}

impl Worker {
    fn streams(&mut self) -> impl Iterator<Item = (Token, (u32, OutputStream), &mut Stream)> {
        let (pid, number) = (self.known_pid(), self.number);
        let stdout =
            self.stdout.iter_mut().map(move |stream| (Token::Stdout(number), (pid, OutputStream::Stdout), stream));
        let stderr = (Token::Stderr(number), (pid, OutputStream::Stderr), &mut self.stderr);
        stdout.chain(std::iter::once(stderr))
    }

    /// Returns when its output needs attention.
    pub(super) fn output_due(&self) -> Option<u64> {
        let streams = self.stdout.iter().chain(std::iter::once(&self.stderr));
        streams.filter_map(Stream::due).min()
    }
}

impl Stream {
    /// Returns when it needs attention that no descriptor reports.
    pub(super) fn due(&self) -> Option<u64> {
        [self.blocked_until.filter(|&at| at != UNTIL_RELEASED), self.lines.due()].into_iter().flatten().min()
    }
}
