//! Handles adoption: a coordinator resumes a pool that ran for another one.

use std::collections::BTreeMap;

use farpool_agent::ProtocolError;
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{
    AdoptPool, AdoptedChunk, CancelChunks, EndJob, HealthReport, PoolFault, PoolStarted, PoolStopped, ResizePool,
    StartJob,
};

use super::{HELD, Ledger, Step};

impl Ledger {
    pub(super) fn adopt_pool(&mut self, adopt: AdoptPool) -> Result<(), ProtocolError> {
        let AdoptPool { held, pool: name, processes, jobs, chunks, .. } = adopt;
        let key = match self.find_held(held) {
            Some(key) if held & HELD != 0 => key,
            _ => return Err(ProtocolError::new(format!("pool {held} was adopted, but is not held"))),
        };
        if name & HELD != 0 || self.pool_names.contains_key(&name) {
            return Err(ProtocolError::new(format!("pool {held} was adopted as {name}, but that name is in use")));
        }
        self.drop_unadopted(key, &chunks)?;
        self.pools[key].name = Some(name);
        self.pool_names.insert(name, u32::try_from(key).unwrap_or(u32::MAX));
        self.resume_processes(key, processes);
        self.name_jobs(key, jobs.iter().map(|job| (job.number, job.job)).collect())?;
        self.resend_kept(key, name);
        Ok(())
    }

    /// Names the adopted chunks, and drops the others.
    fn drop_unadopted(&mut self, pool: usize, adopted: &[AdoptedChunk]) -> Result<(), ProtocolError> {
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
        let (mut unwanted, mut cancelled) = (Vec::new(), Vec::new());
        for key in self.chunks.keys(|chunk| chunk.pool as usize == pool) {
            let number = self.chunks.number(key);
            let chunk = self.chunks.get_mut(key);
            match wanted.get(&number) {
                Some(&known_as) => (chunk.name, chunk.attempt) = known_as,
                None => {
                    cancelled.extend((!chunk.pending.is_empty()).then_some(number));
                    unwanted.push(key);
                }
            }
        }
        self.wasted += self.drop_chunks_at(pool, unwanted);
        if !cancelled.is_empty() {
            self.send_to_agent(Command::CancelChunks(CancelChunks { chunks: cancelled }));
        }
        Ok(())
    }

    /// Ensures that the pool has workers, even if it was stopping.
    fn resume_processes(&mut self, key: usize, processes: u32) {
        let resized = std::mem::replace(&mut self.pools[key].start.processes, processes) != processes;
        let pending = self.has_pending(key);
        let again = self.number();
        let pool = &mut self.pools[key];
        if pool.fault.is_some() || !(pool.stop_requested || pool.stopped) {
            let pool = pool.number;
            if resized {
                self.send_to_agent(Command::ResizePool(ResizePool { pool, processes }));
            }
        } else if pending {
            // Pending items cannot move, so the pool still exists.
            pool.stop_requested = false;
            let pool = pool.number;
            self.steps.push(Step::CancelStop(pool));
            self.send_to_agent(Command::ResizePool(ResizePool { pool, processes }));
        } else {
            let start = pool.restart(again);
            self.for_jobs_of(key, |job| job.active = false);
            self.send_to_agent(Command::StartPool(start));
        }
    }

    /// Gives the adopted jobs their new numbers. Starts those again that had ended here, and ends all others.
    fn name_jobs(&mut self, pool: usize, mut names: BTreeMap<u64, u64>) -> Result<(), ProtocolError> {
        let number = self.pools[pool].number;
        let can_run = self.pools[pool].fault.is_none();
        let mut keys: Vec<usize> =
            self.jobs.iter().filter(|(_, job)| job.pool as usize == pool).map(|(key, _)| key).collect();
        // If two jobs have the same number, the agent has at most one of them: it comes first.
        keys.sort_by_key(|&key| !self.jobs[key].active);
        for key in keys {
            let name = names.remove(&self.jobs[key].start.number);
            if let Some(name) = name {
                if self.job_names.contains_key(&name) {
                    return Err(ProtocolError::new(format!("a job was adopted as {name}, but that name is in use")));
                }
                self.job_names.insert(name, u32::try_from(key).unwrap_or(u32::MAX));
            }
            let again = self.number();
            let job = &mut self.jobs[key];
            job.name = name;
            let command = match (name, job.active) {
                (Some(_), false) if can_run => {
                    job.active = true;
                    (job.start.pool, job.start.job) = (number, again);
                    Command::StartJob(StartJob::clone(&job.start))
                }
                (None, true) => {
                    job.active = false;
                    Command::EndJob(EndJob { job: job.start.job, kill: true })
                }
                _ => continue,
            };
            self.send_to_agent(command);
        }
        match names.first_key_value().filter(|_| can_run) {
            Some((number, _)) => Err(ProtocolError::new(format!("job {number} was adopted, but is not held"))),
            None => {
                self.for_jobs_of(pool, |_| {});
                Ok(())
            }
        }
    }

    /// Resends what happened before the pool was adopted.
    fn resend_kept(&mut self, key: usize, name: u64) {
        let Ledger { pools, chunks, reports, steps, .. } = self;
        let pool = &mut pools[key];
        let mut send = |event| steps.push(Step::Send(event));
        if pool.started {
            send(Event::PoolStarted(PoolStarted { pool: name }));
        }
        if let Some(reason) = pool.unhealthy.clone() {
            send(Event::HealthReport(HealthReport { reason, pool: name }));
        }
        for kept in pool.outcomes.renumber(reports) {
            let chunk = chunks.get(kept.chunk as usize);
            send(kept.outcome.clone().into_event(chunk.name, chunk.attempt));
        }
        let unsent = std::mem::take(&mut pool.unsent);
        for event in &unsent {
            send(match event.clone() {
                Event::Output(mut output) => {
                    output.pool = name;
                    Event::Output(output)
                }
                Event::Returned(mut back) => {
                    let Some(at) = chunks.find(back.chunk) else { continue };
                    (back.chunk, back.attempt) = (chunks.get(at).name, chunks.get(at).attempt);
                    Event::Returned(back)
                }
                other => other,
            });
        }
        if let Some(failure) = pool.fault.clone() {
            send(Event::PoolFault(Box::new(PoolFault { pool: name, failure: Some(failure) })));
            if pool.stopped {
                send(Event::PoolStopped(PoolStopped { pool: name }));
            }
        }
        self.release_returned(unsent);
    }
}
