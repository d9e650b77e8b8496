//! The jobs and chunks that a pool holds: which items are queued, and which are reported.

use std::collections::VecDeque;

use bytes::Bytes;
use farpool_link::Corrupt;
use farpool_proto::v1::agent_event::Body;
use farpool_proto::v1::{Failure, Returned, Segment, StartJob};
use nix::errno::Errno;
use slab::Slab;

use super::chunks::{Assignment, Chunk, Piece};
use super::function::{Function, MAX_COPIED, Shared, Writing, why_not_shared};
use super::rejected;
use super::report::Report;
use super::results::RunResults;
use super::round::Round;
use crate::{Host, ProtocolError};

/// Most items of rejected jobs that are reported as failed in one turn.
const MAX_REJECTED: u64 = 1024;
/// Most bytes of large functions and shared values that are written in one turn.
const MAX_WRITTEN: usize = 16 << 20;

/// The jobs and chunks of a pool.
#[derive(Debug, Default)]
pub(super) struct Work {
    jobs: Slab<Job>,
    shared: Shared,
    /// Large functions and shared values that are being written, one after another. No worker gets items meanwhile.
    writing: VecDeque<Writing>,
    /// Jobs whose items have a timeout.
    timed_jobs: usize,
    chunks: Slab<Chunk>,
    /// Items that no worker has been given.
    queue: VecDeque<Piece>,
    /// Items of rejected jobs that must still be reported as failed.
    rejected: VecDeque<Piece>,
    /// Numbers of jobs that were removed, whose functions the workers may still have.
    over: Vec<u32>,
}

#[derive(Debug)]
struct Job {
    function: Function,
    /// It is a shared value, and has no items.
    is_shared: bool,
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

impl Work {
    // ---- jobs

    /// Starts a job and returns its number in this pool. The number may be that of a job which [`Work::next_over`] has
    /// returned.
    pub(super) fn start_job(&mut self, start: StartJob, host: &Host) -> u32 {
        let rejected = rejected::check_job(&start, host);
        self.timed_jobs += usize::from(start.timeout_ns > 0);
        let bytes = if rejected.is_none() { start.function } else { Bytes::new() };
        let is_sealed = start.shared || bytes.len() > MAX_COPIED;
        let job = number(self.jobs.insert(Job {
            function: Function::Copied(if is_sealed { Bytes::new() } else { bytes.clone() }),
            is_shared: start.shared,
            rejected,
            timeout_ns: start.timeout_ns,
            whole_chunks: start.whole_chunks,
            ended: false,
            chunks: 0,
        }));
        if is_sealed {
            match Writing::begin(job, start.shared, bytes) {
                Ok(writing) => self.writing.push_back(writing),
                Err(error) => self.not_written(job, error, host),
            }
        }
        job
    }

    /// Continues to write large functions and shared values, up to a bound in each turn. Returns false if there are more.
    pub(super) fn write(&mut self, host: &Host) -> bool {
        let mut room = MAX_WRITTEN;
        while let Some(mut writing) = self.writing.pop_front() {
            match writing.write(room) {
                Ok(written) => room -= written,
                Err(error) => {
                    self.not_written(writing.job, error, host);
                    continue;
                }
            }
            if !writing.is_complete() {
                self.writing.push_front(writing);
                return false;
            }
            let (job, is_shared) = (writing.job, writing.is_shared);
            match writing.seal() {
                Ok(value) if is_shared => self.shared.add(job, Ok(value)),
                Ok(function) => self.jobs[job as usize].function = Function::Sealed(function),
                Err(error) => self.not_written(job, error, host),
            }
        }
        true
    }

    /// The workers cannot get the function of a job, so its items fail. If it is a shared value, tasks that use it fail.
    fn not_written(&mut self, job: u32, error: Errno, host: &Host) {
        if self.jobs[job as usize].is_shared {
            return self.shared.add(job, Err(why_not_shared(error)));
        }
        self.jobs[job as usize].rejected = Some(rejected::not_shared(error, host));
        let (jobs, chunks, rejected) = (&self.jobs, &self.chunks, &mut self.rejected);
        self.queue.retain(|piece| {
            let runs = jobs[chunks[piece.chunk as usize].job as usize].rejected.is_none();
            if !runs {
                rejected.push_back(*piece);
            }
            runs
        });
    }

    /// Ends a job: the coordinator sends no more of it. Its number may be reused.
    pub(super) fn end_job(&mut self, job: u32) {
        self.jobs[job as usize].ended = true;
        self.remove_job_if_done(job);
    }

    /// Returns whether items of any job have a timeout.
    pub(super) fn is_timed(&self) -> bool {
        self.timed_jobs > 0
    }

    /// Returns the number of a job that is over, each once: the workers may forget its function or shared value.
    pub(super) fn next_over(&mut self) -> Option<u32> {
        self.over.pop()
    }

    /// Removes an ended job that has no chunks left.
    fn remove_job_if_done(&mut self, job: u32) {
        // The job may have been removed with its last chunk.
        if self.jobs.get(job as usize).is_none_or(|job| !job.ended || job.chunks > 0) {
            return;
        }
        let removed = self.jobs.remove(job as usize);
        self.writing.retain(|writing| writing.job != job);
        if removed.is_shared {
            self.shared.remove(job);
        }
        self.timed_jobs -= usize::from(removed.timeout_ns > 0);
        self.over.push(job);
    }

    // ---- chunks

    /// Takes a chunk of the job with this number. `runs`: its items are to be run; otherwise they are dropped.
    pub(super) fn assign(
        &mut self,
        chunk: &farpool_proto::v1::Chunk,
        job: u32,
        segments: impl Iterator<Item = Segment>,
        runs: bool,
    ) -> Result<(), ProtocolError> {
        let Some(held) = Chunk::new(chunk.chunk, chunk.attempt, job, chunk.first, segments) else {
            return Err(ProtocolError::new(format!(
                "the items of chunk {} of job {} are malformed",
                chunk.chunk, chunk.job
            )));
        };
        if runs {
            let (first, count) = (held.first, held.count);
            let key = number(self.chunks.insert(held));
            let job = &mut self.jobs[job as usize];
            job.chunks += 1;
            let queue = if job.rejected.is_none() { &mut self.queue } else { &mut self.rejected };
            queue.push_back(Piece { chunk: key, first, count });
        }
        Ok(())
    }

    /// Returns how many chunks it holds.
    pub(super) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Returns the keys of all chunks.
    pub(super) fn keys(&self) -> Vec<u32> {
        self.chunks.iter().map(|(key, _)| number(key)).collect()
    }

    /// Returns the key of the chunk with this id.
    pub(super) fn find(&self, id: u64) -> Option<u32> {
        self.chunks.iter().find(|(_, chunk)| chunk.id == id).map(|(key, _)| number(key))
    }

    /// Marks items of a chunk as settled. The last one removes the chunk.
    fn settle(&mut self, key: u32, items: u64) {
        let chunk = &mut self.chunks[key as usize];
        chunk.left -= items;
        if chunk.left == 0 {
            let job = chunk.job;
            self.chunks.remove(key as usize);
            self.jobs[job as usize].chunks -= 1;
            self.remove_job_if_done(job);
        }
    }

    // ---- the queue

    /// Returns how many pieces no worker has been given.
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn queue_is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Takes the next piece from the queue.
    pub(super) fn next(&mut self) -> Option<Piece> {
        self.queue.pop_front()
    }

    /// Puts back a piece that was taken from the queue, or the rest of it.
    pub(super) fn put_back(&mut self, piece: Piece) {
        self.queue.push_front(piece);
    }

    /// Returns the first items of a piece as a worker gets them.
    pub(super) fn assignment(&self, piece: Piece) -> Option<Assignment<'_>> {
        let chunk = &self.chunks[piece.chunk as usize];
        let job = &self.jobs[chunk.job as usize];
        Some(Assignment {
            piece,
            stretch: chunk.stretch(piece.first)?,
            job: chunk.job,
            function: &job.function,
            shared: &self.shared,
            timeout_ns: job.timeout_ns,
            whole: job.whole_chunks,
            begins_chunk: piece.first == chunk.first,
            cancelled: chunk.cancelled,
        })
    }

    /// Queues pieces in front, and joins each with the next piece if they are adjacent. A chunk that must stay together
    /// is then one piece again.
    pub(super) fn queue_in_front(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            match self.queue.front_mut() {
                Some(next) if next.chunk == piece.chunk && piece.first + piece.count == next.first => {
                    (next.first, next.count) = (piece.first, piece.count + next.count);
                }
                _ => self.queue.push_front(piece),
            }
        }
    }

    /// Queues pieces of an exited worker in front, unless they are cancelled. `drop_all`: as if all were cancelled.
    pub(super) fn requeue(&mut self, pieces: Vec<Piece>, drop_all: bool) {
        for piece in pieces {
            if drop_all || self.is_cancelled(piece.chunk) {
                self.settle(piece.chunk, piece.count);
            } else {
                self.queue.push_front(piece);
            }
        }
    }

    /// Forgets what is queued: the pool stops.
    pub(super) fn clear_queue(&mut self) {
        self.queue.clear();
    }

    /// Forgets the items of rejected jobs: the pool stops.
    pub(super) fn clear_rejected(&mut self) {
        self.rejected.clear();
    }

    // ---- cancelling and giving back

    /// Cancels the unwanted chunks, and drops what is queued of them. Returns whether there are any.
    pub(super) fn cancel(&mut self, unwanted: impl Fn(&Chunk) -> bool) -> bool {
        let mut any = false;
        for (_, chunk) in self.chunks.iter_mut().filter(|(_, chunk)| !chunk.cancelled && unwanted(chunk)) {
            (chunk.cancelled, any) = (true, true);
        }
        if any {
            self.drop_cancelled();
        }
        any
    }

    pub(super) fn is_cancelled(&self, key: u32) -> bool {
        self.chunks[key as usize].cancelled
    }

    /// Drops cancelled items from the queue.
    pub(super) fn drop_cancelled(&mut self) {
        let (chunks, mut dropped) = (&self.chunks, Vec::new());
        self.queue.retain(|piece| {
            let unwanted = chunks[piece.chunk as usize].cancelled;
            if unwanted {
                dropped.push(*piece);
            }
            !unwanted
        });
        self.drop_pieces(dropped);
    }

    /// Drops pieces that are not queued.
    pub(super) fn drop_pieces(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            self.settle(piece.chunk, piece.count);
        }
    }

    /// Returns everything that is queued to the coordinator.
    pub(super) fn give_back_queue(&mut self, report: &mut Report) {
        for piece in std::mem::take(&mut self.queue) {
            self.give_back(piece, report);
        }
    }

    /// Returns the queued items of a chunk to the coordinator, and reports it even if there are none.
    pub(super) fn give_back_chunk(&mut self, key: u32, report: &mut Report) {
        let mut given_back = Vec::new();
        self.queue.retain(|piece| {
            if piece.chunk == key {
                given_back.push(*piece);
            }
            piece.chunk != key
        });
        if given_back.is_empty() {
            given_back.push(Piece { chunk: key, first: self.chunks[key as usize].first, count: 0 });
        }
        given_back.into_iter().for_each(|piece| self.give_back(piece, report));
    }

    fn give_back(&mut self, piece: Piece, report: &mut Report) {
        let Chunk { id: chunk, attempt, .. } = self.chunks[piece.chunk as usize];
        report.other(Body::Returned(Returned { chunk, attempt, first: piece.first, count: piece.count }));
        self.settle(piece.chunk, piece.count);
    }

    // ---- outcomes

    /// Reports items that `worker` has finished: `first` (its chunk's key, and its index) and those after it, whose results
    /// `take` adds. Returns how many it has added. `failed`: the items count as failed.
    #[inline]
    pub(super) fn done(
        &mut self,
        worker: u32,
        (key, first): (u32, u64),
        failed: bool,
        report: &mut Report,
        take: impl FnOnce(&mut RunResults<'_>) -> Result<u32, Corrupt>,
    ) -> Result<u32, Corrupt> {
        let chunk = &self.chunks[key as usize];
        let mut discarded = None;
        let report = if chunk.cancelled { discarded.get_or_insert_with(Report::default) } else { report };
        let count = report.done(worker, chunk, first, failed, take)?;
        self.settle(key, u64::from(count));
        Ok(count)
    }

    /// Reports an item whose result came in pieces.
    pub(super) fn done_in_pieces(
        &mut self,
        (key, item): (u32, u64),
        result: Vec<u8>,
        failed: bool,
        report: &mut Report,
    ) {
        let chunk = &self.chunks[key as usize];
        if !chunk.cancelled {
            report.done_large(chunk, item, result, failed);
        }
        self.settle(key, 1);
    }

    /// Reports an item that has failed, or whose worker died.
    pub(super) fn failed(&mut self, (key, item): (u32, u64), failure: Failure, report: &mut Report) {
        let chunk = &self.chunks[key as usize];
        if !chunk.cancelled {
            report.failed(chunk, item, failure);
        }
        self.settle(key, 1);
    }

    // ---- rejected jobs

    /// Reports items of rejected jobs as failed, up to a bound in each turn.
    pub(super) fn fail_rejected(&mut self, round: &mut Round) {
        let mut room = if round.held { 0 } else { MAX_REJECTED };
        while room > 0
            && let Some(piece) = self.rejected.pop_front()
        {
            let chunk = &self.chunks[piece.chunk as usize];
            if chunk.cancelled {
                self.settle(piece.chunk, piece.count);
                continue;
            }
            let failure = self.jobs[chunk.job as usize].rejected.clone().unwrap_or_default();
            let items = piece.count.min(room);
            for item in piece.first..piece.first + items {
                self.failed((piece.chunk, item), failure.clone(), &mut round.report);
            }
            room -= items;
            let left = piece.after(items);
            if left.count > 0 {
                self.rejected.push_front(left);
            }
        }
    }

    /// Returns whether items of rejected jobs must still be reported.
    pub(super) fn has_rejected(&self) -> bool {
        !self.rejected.is_empty()
    }
}

/// Converts a slab's key to 32 bits.
fn number(key: usize) -> u32 {
    u32::try_from(key).unwrap_or(u32::MAX)
}
