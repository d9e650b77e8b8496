//! A pool of workers: what it holds, what it is told, and one round of its work.
//!
//! A round ([`WorkerPool::pump`]) never blocks: it collects outcomes from the rings, looks after the processes,
//! gives workers more, and leaves events for the coordinator. Whoever drives it then arms it ([`WorkerPool::arm`])
//! and sleeps until a descriptor is ready or a deadline has come.

mod burial;
mod chunks;
mod collect;
mod death;
mod end;
mod feed;
mod pace;
mod report;
mod start;
mod stderr;
mod stop;
mod supervise;
mod take_back;
mod wait;
mod worker;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use farpool_proto::v1::agent_event::Body;
use farpool_proto::v1::{
    AgentEvent, Assign, Credit, EndJob, Failure, FailureKind, PoolFault, Returned, StartJob, StartPool,
};
use nix::sys::epoll::Epoll;
use slab::Slab;

use crate::fork_server::{ForkServer, Program};
use crate::link::MAX_THREADS;
use crate::link::record::Kind;
use crate::{ProtocolError, clock};
use chunks::{Chunk, Piece};
use farpool_proto::v1::WorkerSettings;
use pace::Pace;
use report::Report;
use supervise::Supervision;
use worker::{State, Worker};

pub use wait::Armed;
pub(crate) use wait::Token;

/// The workers of one pool on this host, and the chunks that they hold.
#[derive(Debug)]
pub(crate) struct WorkerPool {
    pub(crate) id: u64,
    settings: WorkerSettings,
    /// Workers that run items at the same time.
    processes: usize,
    /// Items that one worker runs at the same time.
    threads: usize,
    host: Arc<str>,
    epoll: Arc<Epoll>,
    supervision: Supervision,
    workers: Vec<Worker>,
    jobs: Slab<Job>,
    /// The coordinator's numbers of jobs.
    job_numbers: HashMap<u64, u32>,
    /// Jobs whose items have a timeout.
    timed_jobs: usize,
    chunks: Slab<Chunk>,
    /// What no worker has been given yet.
    queue: VecDeque<Piece>,
    pace: Pace,
    /// The credit that the coordinator was told last.
    credit: u32,
    report: Report,
}

#[derive(Debug)]
struct Job {
    id: u64,
    function: Bytes,
    timeout_ns: u64,
    /// The items of a chunk run on one worker, one after another.
    whole_chunks: bool,
    /// Outcomes are not wanted any more.
    cancelled: bool,
    /// No more chunks will come.
    ended: bool,
    /// Chunks of it that are held here.
    chunks: usize,
}

impl WorkerPool {
    /// Starts a pool: its fork server now, its workers as soon as that is up.
    pub(crate) fn start(
        start: StartPool,
        slots: u32,
        program: &Program,
        host: &Arc<str>,
        epoll: &Arc<Epoll>,
    ) -> std::io::Result<WorkerPool> {
        let settings = start.settings.unwrap_or_default();
        let processes = if start.processes == 0 { slots } else { start.processes.min(slots) };
        let threads = (settings.threads as usize).clamp(1, MAX_THREADS);
        let fork_server = ForkServer::start(program)?;
        let mut pool = WorkerPool {
            id: start.pool,
            processes: processes as usize,
            threads,
            settings,
            host: Arc::clone(host),
            epoll: Arc::clone(epoll),
            supervision: Supervision::new(program.clone(), fork_server, clock::now()),
            workers: Vec::new(),
            jobs: Slab::new(),
            job_numbers: HashMap::new(),
            timed_jobs: 0,
            chunks: Slab::new(),
            queue: VecDeque::new(),
            pace: Pace::new(),
            credit: 0,
            report: Report::default(),
        };
        pool.watch_fork_server();
        Ok(pool)
    }

    /// One round of work; what the coordinator should know is appended to `events`.
    pub(crate) fn pump(&mut self, events: &mut Vec<AgentEvent>) {
        let now = clock::now();
        self.collect_all(now);
        self.supervise(now);
        self.feed(now);
        self.tell_credit();
        self.report.drain_into(events);
    }

    pub(crate) fn start_job(&mut self, start: StartJob) -> Result<(), ProtocolError> {
        let job = Job {
            id: start.job,
            function: start.function,
            timeout_ns: start.timeout_ns,
            whole_chunks: start.whole_chunks,
            cancelled: false,
            ended: false,
            chunks: 0,
        };
        if job.function.len() > crate::link::record::MAX_PAYLOAD / 2 {
            return Err(ProtocolError::new(format!(
                "the function of job {} is too large: {} bytes",
                job.id,
                job.function.len()
            )));
        }
        if self.job_numbers.contains_key(&job.id) {
            return Err(ProtocolError::new(format!("job {} was started twice", job.id)));
        }
        let id = job.id;
        self.timed_jobs += usize::from(job.timeout_ns > 0);
        let number = number(self.jobs.insert(job));
        self.job_numbers.insert(id, number);
        Ok(())
    }

    pub(crate) fn end_job(&mut self, end: &EndJob, now: u64) {
        // An unknown job has ended here already.
        let Some(number) = self.job_numbers.remove(&end.job) else { return };
        if end.kill {
            self.jobs[number as usize].cancelled = true;
            self.drop_queued_of(number);
            self.cancel_given_of(number, now);
        }
        // Only now: the last chunk to be settled above would have released the job already.
        self.jobs[number as usize].ended = true;
        self.release_job_if_over(number);
    }

    pub(crate) fn has_job(&self, id: u64) -> bool {
        self.job_numbers.contains_key(&id)
    }

    pub(crate) fn assign(&mut self, assign: Assign) -> Result<(), ProtocolError> {
        let mut segments = assign.segments.into_iter();
        for chunk in assign.chunks {
            let Some(&job) = self.job_numbers.get(&chunk.job) else {
                return Err(ProtocolError::new(format!(
                    "chunk {} is of job {}, which was not started",
                    chunk.chunk, chunk.job
                )));
            };
            let own = segments.by_ref().take(chunk.segments as usize);
            let Some(held) = Chunk::new(chunk.chunk, chunk.attempt, job, chunk.first, own) else {
                return Err(ProtocolError::new(format!(
                    "the items of chunk {} of job {} are malformed",
                    chunk.chunk, chunk.job
                )));
            };
            let (first, count) = (held.first, held.count);
            let slot = number(self.chunks.insert(held));
            self.jobs[job as usize].chunks += 1;
            self.queue.push_back(Piece { chunk: slot, first, count });
        }
        Ok(())
    }

    /// Gives back what has not begun of a chunk.
    pub(crate) fn retract(&mut self, id: u64) {
        let Some((slot, attempt)) =
            self.chunks.iter().find(|(_, chunk)| chunk.id == id).map(|(slot, chunk)| (number(slot), chunk.attempt))
        else {
            return;
        };
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
        for piece in given_back {
            self.report.other(Body::Returned(Returned { chunk: id, attempt, first: piece.first, count: piece.count }));
            self.settle(slot, piece.count);
        }
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

    fn drop_queued_of(&mut self, job: u32) {
        let (chunks, mut dropped) = (&self.chunks, Vec::new());
        self.queue.retain(|piece| {
            let unwanted = chunks[piece.chunk as usize].job == job;
            if unwanted {
                dropped.push(*piece);
            }
            !unwanted
        });
        for piece in dropped {
            self.settle(piece.chunk, piece.count);
        }
    }

    /// The pool cannot go on: the coordinator is told, and everything stops.
    fn fail(&mut self, failure: Failure) {
        if self.supervision.is_stopping() {
            return;
        }
        self.report.other(Body::PoolFault(PoolFault { pool: self.id, failure: Some(failure) }));
        self.stop(true);
    }

    fn failure(&self, kind: FailureKind, message: String) -> Failure {
        Failure { kind: kind.into(), message, host: self.host.to_string(), ..Failure::default() }
    }

    fn tell_credit(&mut self) {
        let each = self.threads + self.pace.depth() - 1;
        let credit = number(self.processes.saturating_mul(each));
        if credit != self.credit {
            self.credit = credit;
            self.report.other(Body::Credit(Credit { chunks: credit, bytes: 0 }));
        }
    }

    /// Workers that are up, or will be soon. One that dies before it is ready counts until it is known what it died
    /// of: its initializer may have failed, and would fail again.
    fn serving(&self) -> usize {
        let serves = |worker: &&Worker| matches!(worker.state, State::Starting | State::Ready) || !worker.was_ready;
        self.workers.iter().filter(serves).count()
    }
}

/// A slot of a slab, or a count of something that is held in memory, as a number of 32 bits.
fn number(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(u32::MAX)
}
