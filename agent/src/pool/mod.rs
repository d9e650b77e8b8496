//! A pool of workers: what it holds, what it is told, and one round of its work.
//!
//! A round never blocks: it collects outcomes from the rings ([`WorkerPool::collect_all`]), is told what it may have of
//! the host's slots ([`WorkerPool::allow`]), looks after the processes and gives workers more ([`WorkerPool::work`]), and
//! leaves events for the coordinator. Whoever drives it then arms it ([`WorkerPool::arm`]) and sleeps until a descriptor
//! is ready or a deadline has come.

mod burial;
mod cancel;
mod chunks;
mod collect;
mod death;
mod end;
mod feed;
mod leaving;
mod lend;
mod lines;
mod not_started;
mod output;
mod pace;
mod receive;
mod receiving;
mod refused;
mod report;
mod share;
mod sink;
mod start;
mod stop;
mod stream;
mod stuck;
mod supervise;
mod take_back;
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
use output::Teller;
use pace::Pace;
use report::Report;
use stop::Stopping;
use stream::Stream;
use supervise::Supervision;
use worker::Worker;

pub(crate) use leaving::limit_leaving;
pub(crate) use share::{Allowance, Census};
pub use wait::Armed;
pub(crate) use wait::Token;

/// The workers of one pool on this host, and the chunks that they hold.
#[derive(Debug)]
pub(crate) struct WorkerPool {
    pub(crate) id: u64,
    /// Its number in this agent, which no other pool has had.
    pub(crate) serial: u64,
    /// The program came with the pool; otherwise it is the one that this process runs.
    shipped: bool,
    pub(crate) weight: u32,
    settings: WorkerSettings,
    /// Workers that run items at the same time, at most.
    processes: usize,
    /// Items that one worker runs at the same time.
    threads: usize,
    host: Arc<Host>,
    epoll: Arc<Epoll>,
    supervision: Supervision,
    /// The fork server's stderr, unless that is this process's own.
    fork_server_stderr: Option<Stream>,
    /// None: output is not told.
    teller: Option<Teller>,
    workers: Vec<Worker>,
    /// What it may have of the host's slots.
    allowance: Allowance,
    turn: Turn,
    /// Workers that may run items now.
    may_run: usize,
    /// Outcomes and output stay where they are.
    held: bool,
    /// The same, whatever becomes of those of other pools.
    held_alone: bool,
    /// Some of its workers get nothing more until others have had their turn.
    gives_way: bool,
    /// Items of some of its workers wait for other items.
    any_waits: bool,
    /// When it last had something to do.
    used_at: u64,
    jobs: Slab<Job>,
    /// Jobs whose items have a timeout.
    timed_jobs: usize,
    chunks: Slab<Chunk>,
    /// What no worker has been given yet.
    queue: VecDeque<Piece>,
    /// Items of refused jobs, which are yet to be told to have failed.
    refused: VecDeque<Piece>,
    /// Something has changed at the end of a round that the next one is to make use of.
    unsettled: bool,
    pace: Pace,
    report: Report,
}

#[derive(Debug)]
struct Job {
    function: Bytes,
    /// Why nothing of it can run, if nothing can.
    refused: Option<Failure>,
    timeout_ns: u64,
    /// The items of a chunk run on one worker, one after another.
    whole_chunks: bool,
    /// No more chunks will come.
    ended: bool,
    /// Chunks of it that are held here.
    chunks: usize,
}

impl WorkerPool {
    /// Starts a pool: its fork server now, its workers as soon as that is up. `shipped`: the program came with the pool.
    pub(crate) fn start(
        start: StartPool,
        serial: u64,
        host: &Arc<Host>,
        program: Program,
        shipped: bool,
    ) -> Result<WorkerPool, Failure> {
        if shipped {
            program.check(&host.name).map_err(|why| not_started::unfit(host, &program, &why))?;
        }
        refused::check_pool(&start, host)?;
        let settings = start.settings.unwrap_or_default();
        farpool_link::check_file_limit().map_err(|why| not_started::no_memory(host, &why))?;
        let now = clock::now();
        let forward_output = host.settings.forward_output;
        let (fork_server, fork_server_stderr) = supervise::start_fork_server(&program, forward_output)
            .map_err(|error| not_started::refused_by_system(host, &program, shipped, &error))?;
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
            supervision: Supervision::new(program, fork_server, start_limit, host.settings.keeps_trying, now),
            fork_server_stderr,
            teller: forward_output.then(|| Teller::new(start.pool, now)),
            workers: Vec::new(),
            allowance: Allowance { running: 0, workers: 0, starts: 0, turn: None },
            turn: Turn::Over { at: 0 },
            may_run: 0,
            held: false,
            held_alone: false,
            gives_way: false,
            any_waits: false,
            used_at: now,
            jobs: Slab::new(),
            timed_jobs: 0,
            chunks: Slab::new(),
            queue: VecDeque::new(),
            refused: VecDeque::new(),
            unsettled: false,
            pace: Pace::new(),
            report: Report::default(),
        };
        pool.report.other(Body::PoolStarted(PoolStarted { pool: pool.id }));
        pool.watch_fork_server();
        Ok(pool)
    }

    /// Looks after the workers, and gives them more: as many may run at once as there is `room` for.
    pub(crate) fn work(&mut self, room: usize, now: u64) {
        self.may_run = self.allowance.running.min(room);
        self.supervise(now);
        self.fail_refused();
        self.feed(now);
        self.replace_stuck(now);
    }

    /// What the coordinator should know is appended to `events`.
    pub(crate) fn report_into(&mut self, events: &mut Vec<AgentEvent>) {
        self.report.drain_into(events);
    }

    /// A job begins; returns its number in this pool.
    pub(crate) fn start_job(&mut self, start: StartJob) -> u32 {
        let refused = refused::check_job(&start, &self.host);
        self.timed_jobs += usize::from(start.timeout_ns > 0);
        number(self.jobs.insert(Job {
            function: if refused.is_none() { start.function } else { Bytes::new() },
            refused,
            timeout_ns: start.timeout_ns,
            whole_chunks: start.whole_chunks,
            ended: false,
            chunks: 0,
        }))
    }

    /// The coordinator needs the job no more; its number may be used for another.
    pub(crate) fn end_job(&mut self, number: u32, kill: bool, now: u64) {
        if kill {
            self.cancel(|chunk| chunk.job == number, now);
        }
        // Only now: the last chunk to be settled above would have released the job already.
        self.jobs[number as usize].ended = true;
        self.release_job_if_over(number);
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
        // The coordinator has taken everything back from a pool that has failed, or drops it with the pool.
        if self.supervision.stopping == Stopping::No || self.supervision.stopping == Stopping::WhenIdle {
            let (first, count) = (held.first, held.count);
            let slot = number(self.chunks.insert(held));
            let job = &mut self.jobs[job as usize];
            job.chunks += 1;
            let queue = if job.refused.is_none() { &mut self.queue } else { &mut self.refused };
            queue.push_back(Piece { chunk: slot, first, count });
        }
        Ok(())
    }

    /// Another number of workers.
    pub(crate) fn resize(&mut self, wanted: u32) {
        self.processes = processes(wanted, &self.host);
    }

    /// Gives back everything that has not begun.
    pub(crate) fn give_back_all(&mut self) {
        let slots: Vec<u32> = self.chunks.iter().map(|(slot, _)| number(slot)).collect();
        for slot in slots {
            self.take_back_chunk(slot);
        }
        for piece in std::mem::take(&mut self.queue) {
            self.give_back(piece);
        }
    }

    /// Whether it holds nothing, and all that happened to what it held was told.
    pub(crate) fn holds_nothing(&self) -> bool {
        self.chunks.is_empty() && self.report.is_empty()
    }

    /// Gives back what has not begun of a chunk; false if it is not here.
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

    /// So many items of a chunk are settled; the last one ends it here.
    fn settle(&mut self, slot: u32, items: u64) {
        let chunk = &mut self.chunks[slot as usize];
        chunk.left -= items;
        if chunk.left == 0 {
            let job = chunk.job;
            self.chunks.remove(slot as usize);
            self.jobs[job as usize].chunks -= 1;
            self.release_job_if_over(job);
        }
    }

    /// Forgets a job of which nothing is held any more.
    fn release_job_if_over(&mut self, number: u32) {
        // It may have been released while its last chunks were settled.
        if self.jobs.get(number as usize).is_none_or(|job| !job.ended || job.chunks > 0) {
            return;
        }
        let job = self.jobs.remove(number as usize);
        self.timed_jobs -= usize::from(job.timeout_ns > 0);
        for worker in &mut self.workers {
            let knows = worker.knows.get_mut(number as usize).is_some_and(std::mem::take);
            if knows {
                // Read together with whatever comes next. Without room for it, the next function under this number
                // simply takes the place of this one.
                let _ = worker.order_for_later(Kind::Forget, number, &[]);
            }
        }
    }

    /// The pool cannot go on: the coordinator is told, and everything stops.
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

    /// Its workers at once, at most.
    pub(crate) fn processes(&self) -> usize {
        self.processes
    }

    /// Chunks that each of its workers should have, so that none waits for the next.
    pub(crate) fn chunks_a_worker(&self) -> usize {
        self.threads + self.pace.depth() - 1
    }

    /// Workers that are up, or will be soon.
    fn serving(&self) -> usize {
        self.workers.iter().filter(|worker| worker.serves()).count()
    }
}

/// What so many processes come to here; 0: as many as there are slots.
fn processes(wanted: u32, host: &Host) -> usize {
    let slots = host.settings.slots;
    (if wanted == 0 { slots } else { wanted.min(slots) }) as usize
}

/// A slot of a slab, or a count of something that is held in memory, as a number of 32 bits.
fn number(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(u32::MAX)
}
