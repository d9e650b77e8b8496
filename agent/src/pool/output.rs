//! What the processes of a pool write: passed on to this process's stderr, or told to the coordinator.

use bytes::Bytes;
use farpool_proto::v1::agent_event::Body;
use farpool_proto::v1::{AgentOutput, OutputStream};

use super::lines::{Budget, Told};
use super::report::Report;
use super::stream::{Nowhere, OwnStderr, Pumped, Stream};
use super::worker::Worker;
use super::{Token, WorkerPool};

/// How soon output that could not be passed on is tried again.
const RETRY_NS: u64 = 50_000_000;
/// How soon that of a worker is whose process id is not known yet.
const UNKNOWN_RETRY_NS: u64 = 1_000_000;
/// Not again before it is said so.
const UNTIL_RELEASED: u64 = u64::MAX;

/// What is told of output, and how much of it; none: it is passed on to this process's stderr.
#[derive(Debug)]
pub(super) struct Teller {
    pool: u64,
    budget: Budget,
    /// Whose turn it is to be listened to first, after nobody was.
    turn: usize,
}

impl Teller {
    pub(super) fn new(pool: u64, now: u64) -> Teller {
        Teller { pool, budget: Budget::new(now), turn: 0 }
    }

    fn pump(&mut self, stream: &mut Stream, whose: (u32, OutputStream), report: &mut Report, now: u64) -> Pumped {
        let mut lines = std::mem::take(&mut stream.lines);
        let mut sink = Told { lines: &mut lines, budget: &mut self.budget, now, last_words: false };
        let pumped = stream.pump(&mut sink);
        stream.lines = lines;
        self.tell(stream, whose, report, now, pumped == Pumped::Ended);
        pumped
    }

    fn last_words(&mut self, stream: &mut Stream, whose: (u32, OutputStream), report: &mut Report, now: u64) {
        let mut lines = std::mem::take(&mut stream.lines);
        stream.pump(&mut Told { lines: &mut lines, budget: &mut self.budget, now, last_words: true });
        stream.lines = lines;
        self.tell(stream, whose, report, now, true);
    }

    fn tell(&self, stream: &mut Stream, (pid, kind): (u32, OutputStream), report: &mut Report, now: u64, all: bool) {
        if let Some(data) = stream.lines.take(now, all) {
            let output = AgentOutput { pool: self.pool, pid, stream: kind.into(), data: Bytes::from(data) };
            report.other(Body::Output(output));
        }
    }
}

impl WorkerPool {
    /// There is something to read of a worker's stream, or of the fork server's stderr.
    pub(super) fn output_ready(&mut self, token: Token, now: u64) {
        let WorkerPool { workers, fork_server_stderr, teller, report, supervision, epoll, held, .. } = self;
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
        let (pumped, again) = match teller {
            _ if *held => (Pumped::Blocked, UNTIL_RELEASED),
            None => (stream.pump(&mut OwnStderr), now + RETRY_NS),
            // What the program prints before it reaches farpool::init() it has printed in the client too.
            Some(_) if token == Token::ForkServerStderr && !supervision.up => (stream.pump(&mut Nowhere), now),
            Some(_) if whose.0 == 0 => (Pumped::Blocked, now + UNKNOWN_RETRY_NS),
            Some(teller) => {
                let pumped = teller.pump(stream, whose, report, now);
                (pumped, teller.budget.worth_reading_at())
            }
        };
        if pumped == Pumped::Blocked {
            stream.blocked_until = Some(again);
            if let Some(pipe) = stream.pipe() {
                let _ = epoll.delete(pipe);
            }
        }
    }

    /// Leaves outcomes and output where they are, or takes them again: those of this pool, or as all pools do.
    pub(crate) fn hold(&mut self, of_this: Option<bool>, of_all: bool) {
        self.held_alone = of_this.unwrap_or(self.held_alone);
        let hold = of_all || self.held_alone;
        self.held = hold;
        let streams = self.workers.iter_mut().flat_map(|worker| worker.streams().map(|(_, _, stream)| stream));
        for stream in streams.chain(&mut self.fork_server_stderr) {
            if !hold && stream.blocked_until == Some(UNTIL_RELEASED) {
                stream.blocked_until = Some(0);
            }
        }
    }

    /// Goes on with output that could not be passed on, and tells lines that are not finished.
    pub(super) fn go_on_with_output(&mut self, now: u64) {
        let WorkerPool { workers, fork_server_stderr, teller, report, supervision, epoll, serial, .. } = self;
        // Whoever is listened to first may use up all that the pool may write: not always the same.
        let turn = teller.as_mut().map_or(0, |teller| {
            teller.turn = teller.turn.wrapping_add(1);
            teller.turn % workers.len().max(1)
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
            if let Some(teller) = teller
                && stream.lines.due().is_some_and(|due| now >= due)
            {
                teller.tell(stream, whose, report, now, false);
            }
        }
    }

    /// Everything that a worker wrote before its end.
    pub(super) fn hear_last_words(&mut self, worker: &mut Worker, now: u64) {
        let WorkerPool { teller, report, .. } = self;
        for (_, whose, stream) in worker.streams() {
            match teller {
                None => drop(stream.pump(&mut OwnStderr)),
                Some(teller) => teller.last_words(stream, whose, report, now),
            }
        }
    }

    /// What the fork server, which has ended, wrote to stderr; empty if nobody was to know.
    pub(super) fn last_words_of_fork_server(&mut self, now: u64) -> String {
        let WorkerPool { fork_server_stderr, teller, report, supervision, .. } = self;
        let Some(mut stream) = fork_server_stderr.take() else { return String::new() };
        match teller {
            Some(teller) if supervision.up => {
                let whose = (supervision.fork_server.pid(), OutputStream::Stderr);
                teller.last_words(&mut stream, whose, report, now);
            }
            _ => drop(stream.pump(&mut Nowhere)),
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

    /// When there is something to do with its output.
    pub(super) fn output_due(&self) -> Option<u64> {
        let streams = self.stdout.iter().chain(std::iter::once(&self.stderr));
        streams.filter_map(Stream::due).min()
    }
}

impl Stream {
    /// When there is something to do with it that no descriptor will tell.
    pub(super) fn due(&self) -> Option<u64> {
        [self.blocked_until.filter(|&at| at != UNTIL_RELEASED), self.lines.due()].into_iter().flatten().min()
    }
}
