//! A pool of workers: its state, its commands, and one round of its work.
//!
//! A round never blocks. It collects outcomes from the rings ([`WorkerPool::collect_all`]), receives its share of the
//! host's slots ([`WorkerPool::allow`]), supervises the processes and feeds the workers ([`WorkerPool::work`]), and
//! queues events for the coordinator. The driver then arms it ([`WorkerPool::arm`]) and sleeps until a descriptor is
//! ready or a deadline has passed.

mod cancel;
mod chunks;
mod collect;
mod death;
mod exited;
mod exiting;
mod feed;
mod lend;
mod lines;
mod not_started;
mod output;
mod pace;
mod receive;
mod receiving;
mod rejected;
mod report;
mod share;
mod sink;
mod start;
mod stop;
mod stream;
mod stuck;
mod supervise;
mod take_back;
mod terminate;
mod wait;
mod worker;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use farpool_link::MAX_THREADS;
use farpool_link::clock;
use farpool_link::record::Kind;
use farpool_proto::v1::agent_event::Body;
use farpool_proto::v1::{
    AgentEvent, Failure, FailureKind, PoolFault, PoolStarted, Returned, Segment, StartJob, StartPool, WorkerSettings,
};
use nix::sys::epoll::Epoll;
use slab::Slab;

use crate::fork_server::Program;
use crate::slots::Turn;
use crate::{Host, ProtocolError};
use chunks::{Chunk, Piece};
use output::Forwarder;
use pace::Pace;
use report::Report;
use stop::Stopping;
use stream::Stream;
use supervise::Supervision;
use worker::Worker;

pub(crate) use exiting::limit_exiting;
pub(crate) use share::{Allowance, Census};
pub use wait::Armed;
pub(crate) use wait::Token;

/// The workers of one pool on this host, and the chunks that they hold.
#[derive(Debug)]
pub(crate) struct WorkerPool {
    pub(crate) id: u64,
    /// Its number in this agent, which is never reused.
    pub(crate) serial: u64,
    /// The program came with the pool; otherwise it is the program of this process.
    shipped: bool,
    pub(crate) weight: u32,
    settings: WorkerSettings,
    /// Most workers that run items at the same time.
    processes: usize,
    /// Items that one worker runs at the same time.
    threads: usize,
    host: Arc<Host>,
    epoll: Arc<Epoll>,
    supervision: Supervision,
    /// The fork server's stderr, unless it is that of this process.
    fork_server_stderr: Option<Stream>,
    /// `None`: output goes to this process's own stdout and stderr.
    forwarder: Option<Forwarder>,
    workers: Vec<Worker>,
    /// Its share of the host's slots.
    allowance: Allowance,
    turn: Turn,
    /// Most workers that may run items now.
    may_run: usize,
    /// Outcomes and output are not read.
    held: bool,
    /// The same for this pool alone, regardless of other pools.
    held_by_pool: bool,
    /// Some of its workers get no items until other pools have had their turn.
    yields_slot: bool,
    /// Some of its workers may have items that wait for other items.
    may_lend: bool,
    /// When it last had work.
    used_at: u64,
    jobs: Slab<Job>,
    /// Jobs whose items have a timeout.
    timed_jobs: usize,
    chunks: Slab<Chunk>,
    /// Items that no worker has been given.
    queue: VecDeque<Piece>,
    /// Items of rejected jobs that must still be reported as failed.
    rejected: VecDeque<Piece>,
    /// The end of a round changed something that the next round must handle.
    needs_another_round: bool,
    pace: Pace,
    report: Report,
}

#[derive(Debug)]
struct Job {
    function: Bytes,
    /// Why none of its items can run, if the job was rejected.
    rejected: Option<Failure>,
    timeout_ns: u64,
    /// The items of a chunk run on one worker, one after another.
    whole_chunks: bool,
    /// No more chunks will arrive.
    ended: bool,
    /// Chunks of it that this pool holds.
    chunks: usize,
}

impl WorkerPool {
    /// Starts a pool: its fork server now, its workers when the fork server is ready. `shipped`: the program came with
    /// the pool.
    pub(crate) fn start(
        start: StartPool,
        serial: u64,
        host: &Arc<Host>,
        program: Program,
        shipped: bool,
    ) -> Result<WorkerPool, Failure> {
        if shipped {
            program.check(&host.name).map_err(|why| not_started::incompatible(host, &program, &why))?;
        }
        rejected::check_pool(&start, host)?;
        let settings = start.settings.unwrap_or_default();
        farpool_link::check_file_limit().map_err(|why| not_started::no_memory(host, &why))?;
        let now = clock::now();
        let forward_output = host.settings.forward_output;
        let (fork_server, fork_server_stderr) = supervise::start_fork_server(&program, forward_output)
            .map_err(|error| not_started::spawn_error(host, &program, shipped, &error))?;
        let start_limit = u64::try_from(host.settings.start_limit.as_nanos()).unwrap_or(u64::MAX);
        let mut pool = WorkerPool {
            id: start.pool,
            serial,
            shipped,
            weight: start.weight.max(1),
            processes: processes(start.processes, host),
            threads: (settings.threads as usize).clamp(1, MAX_THREADS),
            settings,
            host: Arc::clone(host),
            epoll: Arc::clone(&host.epoll),
            supervision: Supervision::new(program, fork_server, start_limit, host.settings.retries_starts, now),
            fork_server_stderr,
            forwarder: forward_output.then(|| Forwarder::new(start.pool, now)),
            workers: Vec::new(),
            allowance: Allowance { running: 0, workers: 0, starts: 0, turn: None },
            turn: Turn::Over { at: 0 },
            may_run: 0,
            held: false,
            held_by_pool: false,
            yields_slot: false,
            may_lend: false,
            used_at: now,
            jobs: Slab::new(),
            timed_jobs: 0,
            chunks: Slab::new(),
            queue: VecDeque::new(),
            rejected: VecDeque::new(),
            needs_another_round: false,
            pace: Pace::new(),
            report: Report::default(),
        };
        pool.report.other(Body::PoolStarted(PoolStarted { pool: pool.id }));
        pool.watch_fork_server();
        Ok(pool)
    }

    /// Supervises the workers and gives them items. `room`: most workers that may run at once.
    pub(crate) fn work(&mut self, room: usize, now: u64) {
        self.may_run = self.allowance.running.min(room);
        self.supervise(now);
        self.fail_rejected();
        self.feed(now);
        self.replace_stuck(now);
    }

    /// Appends events for the coordinator to `events`.
    pub(crate) fn report_into(&mut self, events: &mut Vec<AgentEvent>) {
        self.report.drain_into(events);
    }

    /// Starts a job and returns its number in this pool.
    pub(crate) fn start_job(&mut self, start: StartJob) -> u32 {
        let rejected = rejected::check_job(&start, &self.host);
        self.timed_jobs += usize::from(start.timeout_ns > 0);
        number(self.jobs.insert(Job {
            function: if rejected.is_none() { start.function } else { Bytes::new() },
            rejected,
            timeout_ns: start.timeout_ns,
            whole_chunks: start.whole_chunks,
            ended: false,
            chunks: 0,
        }))
    }

    /// Ends a job: the coordinator sends no more of it. Its number may be reused.
    pub(crate) fn end_job(&mut self, number: u32, kill: bool, now: u64) {
        if kill {
            self.cancel(|chunk| chunk.job == number, now);
        }
        // Only after the cancellation, which would otherwise release the job with its last chunk.
        self.jobs[number as usize].ended = true;
        self.release_job_if_done(number);
    }

    /// Takes a chunk of the job with this number.
    pub(crate) fn assign(
        &mut self,
        chunk: &farpool_proto::v1::Chunk,
        job: u32,
        segments: impl Iterator<Item = Segment>,
    ) -> Result<(), ProtocolError> {
        let Some(held) = Chunk::new(chunk.chunk, chunk.attempt, job, chunk.first, segments) else {
            return Err(ProtocolError::new(format!(
                "the items of chunk {} of job {} are malformed",
                chunk.chunk, chunk.job
            )));
        };
        // The coordinator has requeued the chunks of a failed pool, and drops those of a pool that it stops.
        if self.supervision.stopping == Stopping::No || self.supervision.stopping == Stopping::WhenIdle {
            let (first, count) = (held.first, held.count);
            let slot = number(self.chunks.insert(held));
            let job = &mut self.jobs[job as usize];
            job.chunks += 1;
            let queue = if job.rejected.is_none() { &mut self.queue } else { &mut self.rejected };
            queue.push_back(Piece { chunk: slot, first, count });
        }
        Ok(())
    }

    /// Changes the number of workers.
    pub(crate) fn resize(&mut self, wanted: u32) {
        self.processes = processes(wanted, &self.host);
    }

    /// Returns all items that have not begun to the coordinator.
    pub(crate) fn give_back_all(&mut self) {
        let slots: Vec<u32> = self.chunks.iter().map(|(slot, _)| number(slot)).collect();
        for slot in slots {
            self.take_back_chunk(slot);
        }
        for piece in std::mem::take(&mut self.queue) {
            self.give_back(piece);
        }
    }

    /// Returns whether it holds no chunks and has reported all outcomes.
    pub(crate) fn holds_nothing(&self) -> bool {
        self.chunks.is_empty() && self.report.is_empty()
    }

    /// Returns the items of a chunk that have not begun to the coordinator. False if the chunk is not here.
    pub(crate) fn retract(&mut self, id: u64) -> bool {
        let found = self.chunks.iter().find(|(_, chunk)| chunk.id == id).map(|(slot, _)| number(slot));
        let Some(slot) = found else { return false };
        self.take_back_chunk(slot);
        let mut given_back = Vec::new();
        self.queue.retain(|piece| {
            if piece.chunk == slot {
                given_back.push(*piece);
            }
            piece.chunk != slot
        });
        if given_back.is_empty() {
            given_back.push(Piece { chunk: slot, first: self.chunks[slot as usize].first, count: 0 });
        }
        given_back.into_iter().for_each(|piece| self.give_back(piece));
        true
    }

    fn give_back(&mut self, piece: Piece) {
        let Chunk { id: chunk, attempt, .. } = self.chunks[piece.chunk as usize];
        self.report.other(Body::Returned(Returned { chunk, attempt, first: piece.first, count: piece.count }));
        self.settle(piece.chunk, piece.count);
    }

    /// Marks items of a chunk as settled. The last one removes the chunk.
    fn settle(&mut self, slot: u32, items: u64) {
        let chunk = &mut self.chunks[slot as usize];
        chunk.left -= items;
        if chunk.left == 0 {
            let job = chunk.job;
            self.chunks.remove(slot as usize);
            self.jobs[job as usize].chunks -= 1;
            self.release_job_if_done(job);
        }
    }

    /// Removes an ended job that has no chunks left.
    fn release_job_if_done(&mut self, number: u32) {
        // The job may have been released with its last chunk.
        if self.jobs.get(number as usize).is_none_or(|job| !job.ended || job.chunks > 0) {
            return;
        }
        let job = self.jobs.remove(number as usize);
        self.timed_jobs -= usize::from(job.timeout_ns > 0);
        for worker in &mut self.workers {
            let knows = worker.known_functions.get_mut(number as usize).is_some_and(std::mem::take);
            if knows {
                // The worker reads this with its next order. If there is no room for it, the next function with this
                // number replaces this one.
                let _ = worker.order_without_wake(Kind::Forget, number, &[]);
            }
        }
    }

    /// Reports that the pool has failed, and stops it.
    fn fail(&mut self, failure: Failure) {
        if self.supervision.is_stopping() {
            return;
        }
        self.report.other(Body::PoolFault(Box::new(PoolFault { pool: self.id, failure: Some(failure) })));
        self.stop(true);
    }

    fn failure(&self, kind: FailureKind, message: String) -> Failure {
        Failure { kind: kind.into(), message, host: self.host.name.clone(), ..Failure::default() }
    }

    /// Returns the most workers that it may have at once.
    pub(crate) fn processes(&self) -> usize {
        self.processes
    }

    /// Returns how many chunks each worker should hold, so that none waits for the next.
    pub(crate) fn chunks_a_worker(&self) -> usize {
        self.threads + self.pace.depth() - 1
    }

    /// Returns the number of workers that are ready or starting.
    fn serving(&self) -> usize {
        self.workers.iter().filter(|worker| worker.serves()).count()
    }
}

/// Returns the number of workers on this host for the requested number; 0: one for each slot.
fn processes(wanted: u32, host: &Host) -> usize {
    let slots = host.settings.slots;
    (if wanted == 0 { slots } else { wanted.min(slots) }) as usize
}

/// Converts a slab's slot, or a count of objects in memory, to 32 bits.
fn number(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(u32::MAX)
}
