//! A coordinator that goes on with what a pool did for another one.

use std::collections::BTreeMap;

use farpool_agent::ProtocolError;
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{
    AdoptPool, AdoptedChunk, Ailing, CancelChunks, EndJob, PoolFault, PoolStarted, PoolStopped, ResizePool, StartJob,
};

use super::{HELD, Ledger, Step};

impl Ledger {
    pub(super) fn adopt_pool(&mut self, adopt: AdoptPool) -> Result<(), ProtocolError> {
        let AdoptPool { held, pool: name, processes, jobs, chunks, .. } = adopt;
        let key = match self.held_numbered(held) {
            Some(key) if held & HELD != 0 => key,
            _ => return Err(ProtocolError::new(format!("pool {held} is adopted, and is not held"))),
        };
        if name & HELD != 0 || self.pool_names.contains_key(&name) {
            return Err(ProtocolError::new(format!("pool {held} is adopted as {name}, which is another one's name")));
        }
        self.drop_what_is_not_adopted(key, &chunks)?;
        self.pools[key].name = Some(name);
        self.pool_names.insert(name, u32::try_from(key).unwrap_or(u32::MAX));
        self.go_on_with_processes(key, processes);
        self.name_jobs(key, jobs.iter().map(|job| (job.number, job.job)).collect())?;
        self.tell_what_is_kept(key, name);
        Ok(())
    }

    /// Gives the adopted chunks their names. Of the others nobody hears any more.
    fn drop_what_is_not_adopted(&mut self, pool: usize, adopted: &[AdoptedChunk]) -> Result<(), ProtocolError> {
        let mut wanted = BTreeMap::new();
        for told in adopted {
            // One that is not here any more has ended with its pool's processes.
            let Some(key) = self.chunks.find(told.held) else { continue };
            if self.chunks.get(key).pool as usize != pool {
                let message = format!("chunk {} is adopted with a pool that it is not of", told.held);
                return Err(ProtocolError::new(message));
            }
            wanted.insert(self.chunks.number(key), (told.chunk, told.attempt));
        }
        let (mut unwanted, mut cancelled) = (Vec::new(), Vec::new());
        for key in self.chunks.keys(|chunk| chunk.pool as usize == pool) {
            let number = self.chunks.number(key);
            let chunk = self.chunks.get_mut(key);
            match wanted.get(&number) {
                Some(&known_as) => (chunk.name, chunk.attempt) = known_as,
                None => {
                    cancelled.extend((!chunk.out.is_empty()).then_some(number));
                    unwanted.push(key);
                }
            }
        }
        self.in_vain += self.drop_chunks_at(pool, unwanted);
        if !cancelled.is_empty() {
            self.tell_agent(Command::CancelChunks(CancelChunks { chunks: cancelled }));
        }
        Ok(())
    }

    /// Sees to it that a pool whose workers were to go has some.
    fn go_on_with_processes(&mut self, key: usize, processes: u32) {
        let resized = std::mem::replace(&mut self.pools[key].start.processes, processes) != processes;
        let out = self.has_out(key);
        let again = self.number();
        let pool = &mut self.pools[key];
        if pool.fault.is_some() || !(pool.told_to_stop || pool.stopped) {
            let pool = pool.number;
            if resized {
                self.tell_agent(Command::ResizePool(ResizePool { pool, processes }));
            }
        } else if out {
            // What runs cannot go elsewhere, so the pool is still there.
            pool.told_to_stop = false;
            let pool = pool.number;
            self.steps.push(Step::KeepOn(pool));
            self.tell_agent(Command::ResizePool(ResizePool { pool, processes }));
        } else {
            let start = pool.start_again(again);
            self.for_jobs_of(key, |job| job.lives = false);
            self.tell_agent(Command::StartPool(start));
        }
    }

    /// Jobs get their names. The agent is told again of those that had ended, and the others end.
    fn name_jobs(&mut self, pool: usize, mut names: BTreeMap<u64, u64>) -> Result<(), ProtocolError> {
        let number = self.pools[pool].number;
        let can_run = self.pools[pool].fault.is_none();
        let mut keys: Vec<usize> =
            self.jobs.iter().filter(|(_, job)| job.pool as usize == pool).map(|(key, _)| key).collect();
        // Of two with one number the agent knows one.
        keys.sort_by_key(|&key| !self.jobs[key].lives);
        for key in keys {
            let name = names.remove(&self.jobs[key].start.number);
            if let Some(name) = name {
                if self.job_names.contains_key(&name) {
                    return Err(ProtocolError::new(format!("a job is adopted as {name}, which is another one's name")));
                }
                self.job_names.insert(name, u32::try_from(key).unwrap_or(u32::MAX));
            }
            let again = self.number();
            let job = &mut self.jobs[key];
            job.name = name;
            let command = match (name, job.lives) {
                (Some(_), false) if can_run => {
                    job.lives = true;
                    (job.start.pool, job.start.job) = (number, again);
                    Command::StartJob(StartJob::clone(&job.start))
                }
                (None, true) => {
                    job.lives = false;
                    Command::EndJob(EndJob { job: job.start.job, kill: true })
                }
                _ => continue,
            };
            self.tell_agent(command);
        }
        match names.first_key_value().filter(|_| can_run) {
            Some((number, _)) => Err(ProtocolError::new(format!("job {number} is adopted, and is not held"))),
            None => {
                self.for_jobs_of(pool, |_| {});
                Ok(())
            }
        }
    }

    /// Tells what was made before the pool was adopted.
    fn tell_what_is_kept(&mut self, key: usize, name: u64) {
        let Ledger { pools, chunks, reports, steps, .. } = self;
        let pool = &mut pools[key];
        let mut tell = |event| steps.push(Step::Tell(event));
        if pool.started {
            tell(Event::PoolStarted(PoolStarted { pool: name }));
        }
        if let Some(reason) = pool.ailing.clone() {
            tell(Event::Ailing(Ailing { reason, pool: name }));
        }
        for kept in pool.outcomes.tell_again(reports) {
            let chunk = chunks.get(kept.chunk as usize);
            tell(kept.outcome.clone().under(chunk.name, chunk.attempt));
        }
        let unsaid = std::mem::take(&mut pool.unsaid);
        for event in &unsaid {
            tell(match event.clone() {
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
            tell(Event::PoolFault(Box::new(PoolFault { pool: name, failure: Some(failure) })));
            if pool.stopped {
                tell(Event::PoolStopped(PoolStopped { pool: name }));
            }
        }
        self.release_returned(unsaid);
    }
}
