//! The jobs and chunks of the ledger.

use std::collections::BTreeMap;

use farpool_agent::ProtocolError;
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::{AdoptedChunk, Assign, EndJob, Segment, StartJob};
use slab::Slab;

use super::Step;
use super::chunks::{Chunk, Chunks};
use super::items::Items;
use super::numbers::Numbers;

/// A job that has chunks here or may get some.
#[derive(Debug)]
struct Job {
    /// The key of its pool.
    pool: u32,
    /// Its start command, in the agent's numbers.
    start: StartJob,
    /// The coordinator's name for it; `None`: the coordinator sends nothing more about it.
    name: Option<u64>,
    /// Whether the agent has it.
    active: bool,
    /// It is a shared value, which the coordinator has not ended. It is kept even if its pool's processes have ended: the pool
    /// may resume.
    shared: bool,
    /// Number of its chunks in the ledger.
    chunks: u32,
}

impl Job {
    fn is_done(&self) -> bool {
        self.chunks == 0 && !self.active && self.name.is_none() && !self.shared
    }
}

/// The jobs and chunks of all pools.
#[derive(Debug, Default)]
pub(super) struct Work {
    jobs: Slab<Job>,
    /// The coordinator's names of jobs, and their keys.
    job_names: BTreeMap<u64, u32>,
    chunks: Chunks,
}

/// A job that the coordinator has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndedJob {
    pub(super) key: u32,
    /// The key of its pool.
    pub(super) pool: usize,
    /// The agent's number for it, if the agent has it.
    pub(super) number: Option<u64>,
}

impl Work {
    /// Forgets everything. Numbers of chunks are not reused.
    pub(super) fn into_empty(self) -> Work {
        Work { chunks: self.chunks.into_empty(), ..Work::default() }
    }

    /// Takes the names from all jobs.
    pub(super) fn clear_names(&mut self) {
        self.job_names.clear();
    }

    /// Removes the jobs and chunks of a pool.
    pub(super) fn remove_pool(&mut self, pool: usize) {
        let of_pool = |at: u32| at as usize == pool;
        for chunk in self.chunks.keys(|chunk| of_pool(chunk.pool)) {
            self.chunks.remove(chunk);
        }
        self.jobs.retain(|_, job| !of_pool(job.pool));
        let jobs = &self.jobs;
        self.job_names.retain(|_, job| jobs.contains(*job as usize));
    }

    // ---- jobs

    /// Checks that the agent does not have the job with this name, and forgets one that ended with its pool.
    pub(super) fn expect_new_job(&mut self, name: u64) -> Result<(), ProtocolError> {
        let Some(&known) = self.job_names.get(&name) else { return Ok(()) };
        let known = &mut self.jobs[known as usize];
        if known.active {
            return Err(ProtocolError::new(format!("job {name} was started twice")));
        }
        // Its pool was started again.
        (known.name, known.shared) = (None, false);
        let pool = known.pool as usize;
        self.remove_done_jobs(pool);
        Ok(())
    }

    /// Starts a job of the pool with the key `pool`. `start` is in the agent's numbers, `name` is the coordinator's.
    /// `active`: the agent gets it.
    pub(super) fn start_job(&mut self, start: StartJob, name: u64, pool: usize, active: bool) {
        let pool = u32::try_from(pool).unwrap_or(u32::MAX);
        let shared = start.shared;
        let key = self.jobs.insert(Job { pool, start, name: Some(name), active, shared, chunks: 0 });
        self.job_names.insert(name, u32::try_from(key).unwrap_or(u32::MAX));
    }

    /// Ends the job with this name. `None`: it has ended here already. [`Work::remove_job_if_done`] follows.
    pub(super) fn end_job(&mut self, name: u64) -> Option<EndedJob> {
        let key = self.job_names.remove(&name)?;
        let job = &mut self.jobs[key as usize];
        (job.name, job.shared) = (None, false);
        let number = std::mem::take(&mut job.active).then_some(job.start.job);
        Some(EndedJob { key, pool: job.pool as usize, number })
    }

    /// Removes a job if it is done.
    pub(super) fn remove_job_if_done(&mut self, key: u32) {
        // Dropping its last chunk may have removed it already.
        if self.jobs.get(key as usize).is_some_and(Job::is_done) {
            self.jobs.remove(key as usize);
        }
    }

    /// Records that the agent no longer has the jobs of a pool. `over`: the coordinator sends nothing more about them.
    pub(super) fn pool_ended(&mut self, pool: usize, over: bool) {
        self.change_jobs_of(pool, |job| {
            job.active = false;
            job.name = job.name.filter(|_| !over);
            job.shared &= !over;
        });
    }

    /// Records that the coordinator sends nothing more about the jobs of a pool.
    pub(super) fn unname_jobs_of(&mut self, pool: usize) {
        self.change_jobs_of(pool, |job| job.name = None);
    }

    fn remove_done_jobs(&mut self, pool: usize) {
        self.change_jobs_of(pool, |_| {});
    }

    /// Changes the jobs of a pool, then removes the finished ones.
    fn change_jobs_of(&mut self, pool: usize, mut change: impl FnMut(&mut Job)) {
        let names = &mut self.job_names;
        self.jobs.retain(|_, job| {
            if job.pool as usize != pool {
                return true;
            }
            let before = job.name;
            change(job);
            if let Some(name) = before.filter(|_| job.name != before) {
                names.remove(&name);
            }
            !job.is_done()
        });
    }

    /// Gives the adopted jobs of a pool their new names. Starts those again that had ended here, and ends all others.
    /// `pool` is the pool's key, `pool_number` the agent's number of it. `can_run`: the pool has not failed.
    pub(super) fn adopt_jobs(
        &mut self,
        (pool, pool_number): (usize, u64),
        mut names: BTreeMap<u64, u64>,
        can_run: bool,
        numbers: &mut Numbers,
        steps: &mut Vec<Step>,
    ) -> Result<(), ProtocolError> {
        let mut keys: Vec<usize> =
            self.jobs.iter().filter(|(_, job)| job.pool as usize == pool).map(|(key, _)| key).collect();
        // If two jobs have the same number, the agent has at most one of them. That one comes first.
        keys.sort_by_key(|&key| !self.jobs[key].active);
        for key in keys {
            let name = names.remove(&self.jobs[key].start.number);
            if let Some(name) = name {
                if self.job_names.contains_key(&name) {
                    return Err(ProtocolError::new(format!("a job was adopted as {name}, but that name is in use")));
                }
                self.job_names.insert(name, u32::try_from(key).unwrap_or(u32::MAX));
            }
            let again = numbers.next();
            let job = &mut self.jobs[key];
            job.name = name;
            job.shared &= name.is_some();
            let command = match (name, job.active) {
                (Some(_), false) if can_run => {
                    job.active = true;
                    (job.start.pool, job.start.job) = (pool_number, again);
                    Command::StartJob(StartJob::clone(&job.start))
                }
                (None, true) => {
                    job.active = false;
                    Command::EndJob(EndJob { job: job.start.job, kill: true })
                }
                _ => continue,
            };
            steps.push(Step::Command(command));
        }
        match names.first_key_value().filter(|_| can_run) {
            Some((number, _)) => Err(ProtocolError::new(format!("job {number} was adopted, but is not held"))),
            None => {
                self.remove_done_jobs(pool);
                Ok(())
            }
        }
    }

    /// Returns the number by which the coordinator's clients know the job with this key.
    pub(super) fn number_of_job(&self, key: u32) -> u64 {
        self.jobs[key as usize].start.number
    }

    /// Returns the numbers by which a client knows the shared values of a pool.
    pub(super) fn shared_of(&self, pool: usize) -> Vec<u64> {
        let values = self.jobs.iter().filter(|(_, job)| job.pool as usize == pool && job.shared);
        values.map(|(_, job)| job.start.number).collect()
    }

    // ---- chunks

    /// Takes assigned chunks: replaces the coordinator's names by the agent's numbers, in place, and removes chunks that
    /// the agent cannot run. Items are not copied.
    pub(super) fn assign(&mut self, assign: &mut Assign) -> Result<(), ProtocolError> {
        let mut segments = &assign.segments[..];
        let mut all_active = true;
        for assigned in &mut assign.chunks {
            let (name, count) = (assigned.job, assigned.segments as usize);
            let Some(&key) = self.job_names.get(&name) else {
                let message = format!("chunk {} belongs to job {name}, which was not started", assigned.chunk);
                return Err(ProtocolError::new(message));
            };
            let Some((own, rest)) = segments.split_at_checked(count) else {
                return Err(ProtocolError::new(format!("the items of chunk {} are missing", assigned.chunk)));
            };
            segments = rest;
            let job = &mut self.jobs[key as usize];
            if !job.active {
                // Its pool has ended here; the coordinator takes its chunks back.
                assigned.job = 0;
                all_active = false;
                continue;
            }
            let items = Items::new(assigned.first, own.iter().map(items_in).sum()).filter(|items| !items.is_empty());
            let Some(items) = items else {
                let message = format!("the items of chunk {} of job {name} are malformed", assigned.chunk);
                return Err(ProtocolError::new(message));
            };
            job.chunks += 1;
            assigned.job = job.start.job;
            assigned.chunk = self.chunks.insert(Chunk::new(assigned, job.pool, key, items));
        }
        if !segments.is_empty() {
            return Err(ProtocolError::new(format!("{} segments belong to no chunk", segments.len())));
        }
        if !all_active {
            remove_chunks(assign, |chunk| chunk.job == 0);
        }
        Ok(())
    }

    /// Names the adopted chunks of a pool. Returns the keys of the others, and the agent's numbers of those among them
    /// with pending items.
    pub(super) fn adopt_chunks(
        &mut self,
        pool: usize,
        adopted: &[AdoptedChunk],
    ) -> Result<(Vec<usize>, Vec<u64>), ProtocolError> {
        let mut wanted = BTreeMap::new();
        for adopted_chunk in adopted {
            // A chunk that no longer exists has ended with its pool's processes.
            let Some(key) = self.chunks.find(adopted_chunk.held) else { continue };
            if self.chunks.get(key).pool as usize != pool {
                let message = format!("chunk {} was adopted with the wrong pool", adopted_chunk.held);
                return Err(ProtocolError::new(message));
            }
            wanted.insert(self.chunks.number(key), (adopted_chunk.chunk, adopted_chunk.attempt));
        }
        let (mut unwanted, mut pending) = (Vec::new(), Vec::new());
        for key in self.chunks_of(pool) {
            let number = self.chunks.number(key);
            let chunk = self.chunks.get_mut(key);
            match wanted.get(&number) {
                Some(&known_as) => (chunk.name, chunk.attempt) = known_as,
                None => {
                    pending.extend((!chunk.pending.is_empty()).then_some(number));
                    unwanted.push(key);
                }
            }
        }
        Ok((unwanted, pending))
    }

    /// Returns the chunk with this number at the agent, and its key.
    pub(super) fn find(&mut self, number: u64) -> Option<(usize, &mut Chunk)> {
        let key = self.chunks.find(number)?;
        Some((key, self.chunks.get_mut(key)))
    }

    /// Returns the key of the chunk with this number at the agent.
    pub(super) fn key_of(&self, number: u64) -> Option<usize> {
        self.chunks.find(number)
    }

    pub(super) fn chunk(&self, key: usize) -> &Chunk {
        self.chunks.get(key)
    }

    /// Returns the agent's number of the chunk with this key.
    pub(super) fn number_of(&self, key: usize) -> u64 {
        self.chunks.number(key)
    }

    /// Returns all chunks with their keys.
    pub(super) fn chunks(&self) -> impl Iterator<Item = (usize, &Chunk)> {
        self.chunks.iter()
    }

    /// Returns the keys of a pool's chunks.
    pub(super) fn chunks_of(&self, pool: usize) -> Vec<usize> {
        self.chunks.keys(|chunk| chunk.pool as usize == pool)
    }

    /// Returns the keys of a job's chunks.
    pub(super) fn chunks_of_job(&self, job: u32) -> Vec<usize> {
        self.chunks.keys(|chunk| chunk.job == job)
    }

    /// Returns whether a pool has queued or running items.
    pub(super) fn has_pending(&self, pool: usize) -> bool {
        self.chunks.iter().any(|(_, chunk)| chunk.pool as usize == pool && !chunk.pending.is_empty())
    }

    /// Returns the agent's numbers of the chunks with these names, in pools that are `named`. Needed rarely, so there
    /// is no map to which each chunk would have to be added.
    pub(super) fn numbers_of(&self, mut names: Vec<u64>, named: impl Fn(u32) -> bool) -> Vec<u64> {
        names.sort_unstable();
        let wanted =
            self.chunks.iter().filter(|(_, chunk)| named(chunk.pool) && names.binary_search(&chunk.name).is_ok());
        wanted.map(|(key, _)| self.chunks.number(key)).collect()
    }

    /// Records that chunks will have no more outcomes.
    pub(super) fn end_chunks(&mut self, keys: Vec<usize>) {
        for key in keys {
            self.chunks.get_mut(key).pending = Items::default();
            self.release_chunk(key);
        }
    }

    /// Records that an outcome or a return of a chunk is no longer kept.
    pub(super) fn release_kept(&mut self, key: usize) {
        self.chunks.get_mut(key).kept -= 1;
        self.release_chunk(key);
    }

    /// Removes a chunk if it is done, and then its job.
    pub(super) fn release_chunk(&mut self, key: usize) {
        if let Some(chunk) = self.chunks.remove_if_done(key) {
            self.release_job(chunk.job);
        }
    }

    /// Removes chunks.
    pub(super) fn remove_chunks(&mut self, keys: Vec<usize>) {
        for key in keys {
            let chunk = self.chunks.remove(key);
            self.release_job(chunk.job);
        }
    }

    /// Decrements the number of the job's chunks, and removes the job if it is done.
    fn release_job(&mut self, key: u32) {
        let job = &mut self.jobs[key as usize];
        job.chunks -= 1;
        if job.is_done() {
            self.jobs.remove(key as usize);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.chunks.iter().next().is_none()
    }

    #[cfg(test)]
    pub(super) fn has_names(&self) -> bool {
        !self.job_names.is_empty()
    }
}

fn items_in(segment: &Segment) -> u64 {
    (segment.ends.len() / 4) as u64
}

/// Removes chunks with their items.
fn remove_chunks(assign: &mut Assign, unwanted: impl Fn(&farpool_proto::v1::Chunk) -> bool) {
    let mut segments = std::mem::take(&mut assign.segments).into_iter();
    assign.chunks.retain(|chunk| {
        let own = segments.by_ref().take(chunk.segments as usize);
        let wanted = !unwanted(chunk);
        if wanted {
            assign.segments.extend(own)
        } else {
            own.for_each(drop)
        }
        wanted
    });
}
