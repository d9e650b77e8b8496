//! Output of a pool's processes: copied to this process's stderr, or forwarded to the coordinator.

use std::os::fd::OwnedFd;

use bytes::Bytes;
use farpool_proto::v1::agent_event::Body;
use farpool_proto::v1::{AgentOutput, OutputStream};

use super::lines::{Budget, ForwardingSink};
use super::report::Report;
use super::round::Round;
use super::stream::{Discard, OwnStderr, Pumped, Stream, UNTIL_RELEASED};
use super::wait::Token;

/// Delay before blocked output is retried.
const RETRY_NS: u64 = 50_000_000;
/// Delay before the output of a worker whose process id is not known yet is retried.
const UNKNOWN_RETRY_NS: u64 = 1_000_000;

/// Forwards output to the coordinator within a budget.
#[derive(Debug)]
struct Forwarder {
    pool: u64,
    budget: Budget,
    /// The worker that is read first after the budget was used up.
    turn: usize,
}

impl Forwarder {
    fn new(pool: u64, now: u64) -> Forwarder {
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

/// What the processes of a pool print.
#[derive(Debug)]
pub(super) struct Output {
    /// `None`: output goes to this process's own stdout and stderr.
    forwarder: Option<Forwarder>,
    /// The streams of the workers, in the order in which these were started.
    workers: Vec<Streams>,
    /// The fork server's stderr, unless it shares this process's stderr.
    fork_server: Option<Stream>,
    /// This pool's output is not read, whether or not all pools are held.
    held_by_pool: bool,
    /// When the first stream needs attention that no descriptor reports. May be too early, if that stream is gone.
    due: Option<u64>,
}

/// The streams of one worker.
#[derive(Debug)]
pub(super) struct Streams {
    /// The worker's number.
    worker: u32,
    /// `None`: it writes to this process's stdout.
    stdout: Option<Stream>,
    stderr: Stream,
}

/// The ends of a worker's streams that it writes to.
#[derive(Debug)]
pub(super) struct StreamEnds {
    /// `None`: this process's own.
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: OwnedFd,
}

/// The fork server, as far as its output is concerned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Server {
    pub(super) pid: u32,
    /// The program has reached `farpool::init()`.
    pub(super) is_up: bool,
}

impl Output {
    /// `forwards`: output is reported to the coordinator. `fork_server`: the fork server's stderr, if it is captured.
    pub(super) fn new(forwards: bool, fork_server: Option<Stream>, round: &Round) -> Output {
        let forwarder = forwards.then(|| Forwarder::new(round.id, round.now));
        let mut output = Output { forwarder, workers: Vec::new(), fork_server: None, held_by_pool: false, due: None };
        output.set_fork_server(fork_server, round);
        output
    }

    /// Returns whether output is reported to the coordinator.
    pub(super) fn forwards(&self) -> bool {
        self.forwarder.is_some()
    }

    /// Creates the streams of a new worker, and their other ends.
    pub(super) fn prepare(&self, worker: u32) -> nix::Result<(Streams, StreamEnds)> {
        let (stdout, stdout_end) = if self.forwards() { Some(Stream::new()?) } else { None }.unzip();
        let (stderr, stderr_end) = Stream::new()?;
        Ok((Streams { worker, stdout, stderr }, StreamEnds { stdout: stdout_end, stderr: stderr_end }))
    }

    /// Takes the streams of a worker that was started.
    pub(super) fn worker_started(&mut self, mut streams: Streams, round: &Round) {
        for (token, _, stream) in streams.all() {
            if let Some(pipe) = stream.pipe() {
                round.watch(token, pipe);
            }
        }
        self.workers.push(streams);
    }

    /// Closes the streams of a worker that could not be started.
    pub(super) fn worker_not_started(&mut self, worker: u32) {
        self.workers.retain(|streams| streams.worker != worker);
    }

    /// Forwards everything that a worker wrote before it exited. Returns its streams.
    pub(super) fn worker_exited(&mut self, worker: u32, pid: u32, round: &mut Round) -> Option<Streams> {
        let at = self.workers.iter().position(|streams| streams.worker == worker)?;
        let mut streams = self.workers.remove(at);
        for (_, kind, stream) in streams.all() {
            match &mut self.forwarder {
                None => drop(stream.pump(&mut OwnStderr)),
                Some(forwarder) => forwarder.drain(stream, (pid, kind), &mut round.report, round.now),
            }
        }
        Some(streams)
    }

    /// Takes the stderr of a fork server that was started.
    pub(super) fn set_fork_server(&mut self, stderr: Option<Stream>, round: &Round) {
        if let Some(pipe) = stderr.as_ref().and_then(Stream::pipe) {
            round.watch(Token::ForkServerStderr, pipe);
        }
        self.fork_server = stderr;
    }

    /// Returns what the exited fork server wrote to stderr; empty if its stderr is not captured.
    pub(super) fn fork_server_exited(&mut self, server: Server, round: &mut Round) -> String {
        let Some(mut stream) = self.fork_server.take() else { return String::new() };
        match &mut self.forwarder {
            Some(forwarder) if server.is_up => {
                forwarder.drain(&mut stream, (server.pid, OutputStream::Stderr), &mut round.report, round.now);
            }
            _ => drop(stream.pump(&mut Discard)),
        }
        stream.tail()
    }

    /// Reads a worker's stream or the fork server's stderr. `pid_of` returns the process id of the worker with a
    /// number.
    pub(super) fn ready(&mut self, token: Token, pid_of: impl Fn(u32) -> u32, server: Server, round: &mut Round) {
        let Output { forwarder, workers, fork_server, .. } = self;
        let (stream, whose) = match token {
            Token::ForkServerStderr => {
                let Some(stream) = fork_server else { return };
                (stream, (server.pid, OutputStream::Stderr))
            }
            Token::Stdout(number) | Token::Stderr(number) => {
                let Some(streams) = workers.iter_mut().find(|streams| streams.worker == number) else { return };
                let pid = pid_of(number);
                match (token, &mut streams.stdout) {
                    (Token::Stdout(_), Some(stdout)) => (stdout, (pid, OutputStream::Stdout)),
                    _ => (&mut streams.stderr, (pid, OutputStream::Stderr)),
                }
            }
            Token::ForkServer | Token::Socket(_) => return,
        };
        let now = round.now;
        let (pumped, again) = match forwarder {
            _ if round.held => (Pumped::Blocked, UNTIL_RELEASED),
            None => (stream.pump(&mut OwnStderr), now + RETRY_NS),
            // The program has already printed this in the client.
            Some(_) if token == Token::ForkServerStderr && !server.is_up => (stream.pump(&mut Discard), now),
            Some(_) if whose.0 == 0 => (Pumped::Blocked, now + UNKNOWN_RETRY_NS),
            Some(forwarder) => {
                let pumped = forwarder.pump(stream, whose, &mut round.report, now);
                (pumped, forwarder.budget.resume_at())
            }
        };
        if pumped == Pumped::Blocked {
            stream.blocked_until = Some(again);
            if let Some(pipe) = stream.pipe() {
                round.unwatch(pipe);
            }
        }
        self.due = [self.due, stream.due()].into_iter().flatten().min();
    }

    /// Stops or resumes reading output: for this pool (`of_this`, if it changes) and for all pools. Returns whether
    /// this pool is held now.
    pub(super) fn hold(&mut self, of_this: Option<bool>, of_all: bool) -> bool {
        self.held_by_pool = of_this.unwrap_or(self.held_by_pool);
        let hold = of_all || self.held_by_pool;
        let streams = self.workers.iter_mut().flat_map(|streams| streams.all().map(|(_, _, stream)| stream));
        for stream in streams.chain(&mut self.fork_server) {
            if !hold && stream.blocked_until == Some(UNTIL_RELEASED) {
                stream.blocked_until = Some(0);
                self.due = Some(0);
            }
        }
        hold
    }

    /// Resumes blocked output and forwards unfinished lines that are due. `pid_of` returns the process id of the worker
    /// with a number.
    pub(super) fn resume(&mut self, pid_of: impl Fn(u32) -> u32, server: Server, round: &mut Round) {
        let now = round.now;
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        let Output { forwarder, workers, fork_server, due, .. } = self;
        *due = None;
        // The first stream may use up the whole budget, so they take turns.
        let turn = forwarder.as_mut().map_or(0, |forwarder| {
            forwarder.turn = forwarder.turn.wrapping_add(1);
            forwarder.turn % workers.len().max(1)
        });
        let (before, after) = workers.split_at_mut(turn);
        let of_workers = after.iter_mut().chain(before).flat_map(Streams::all);
        let of_fork_server =
            fork_server.iter_mut().map(|stream| (Token::ForkServerStderr, OutputStream::Stderr, stream));
        for (token, kind, stream) in of_workers.chain(of_fork_server) {
            if stream.blocked_until.is_some_and(|at| now >= at) {
                stream.blocked_until = None;
                if let Some(pipe) = stream.pipe() {
                    round.watch(token, pipe);
                }
            }
            if let Some(forwarder) = forwarder
                && stream.lines.due().is_some_and(|due| now >= due)
            {
                let pid = match token {
                    Token::Stdout(number) | Token::Stderr(number) => pid_of(number),
                    _ => server.pid,
                };
                forwarder.forward(stream, (pid, kind), &mut round.report, now, false);
            }
            *due = [*due, stream.due()].into_iter().flatten().min();
        }
    }

    /// Returns when output needs attention that no descriptor reports.
    pub(super) fn due(&self) -> Option<u64> {
        self.due
    }
}

impl Streams {
    fn all(&mut self) -> impl Iterator<Item = (Token, OutputStream, &mut Stream)> {
        let number = self.worker;
        let stdout = self.stdout.iter_mut().map(move |stream| (Token::Stdout(number), OutputStream::Stdout, stream));
        stdout.chain([(Token::Stderr(number), OutputStream::Stderr, &mut self.stderr)])
    }

    /// Returns the end of the worker's stderr.
    pub(super) fn stderr_tail(&mut self) -> String {
        self.stderr.tail()
    }
}
