//! Handles the coordinator's commands.

use farpool_agent::ProtocolError;
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::{CancelChunks, EndJob, ResizePool, Retract, Settled, StartJob, StartPool, StopPool};

use super::pool::{Job, Pool};
use super::{HELD, Ledger, Step};

impl Ledger {
    /// Handles a command. Welcome and Drain are for the session.
    ///
    /// # Errors
    /// If the command is invalid. Part of it may have been executed.
    pub fn command(&mut self, command: Command) -> Result<(), ProtocolError> {
        match command {
            Command::StartPool(start) => self.start_pool(start),
            Command::AdoptPool(adopt) => self.adopt_pool(*adopt),
            Command::StartJob(start) => self.start_job(start),
            Command::Assign(assign) => self.assign(assign),
            Command::Settled(settled) => self.settled(settled),
            Command::StopPool(stop) => {
                self.stop_pool(stop);
                Ok(())
            }
            Command::ResizePool(resize) => {
                self.resize_pool(resize);
                Ok(())
            }
            Command::EndJob(end) => {
                self.end_job(end);
                Ok(())
            }
            Command::Retract(Retract { chunks }) => {
                let chunks = self.numbers_of(chunks);
                if !chunks.is_empty() {
                    self.send_to_agent(Command::Retract(Retract { chunks }));
                }
                Ok(())
            }
            Command::CancelChunks(CancelChunks { chunks }) => {
                self.cancel_chunks(chunks);
                Ok(())
            }
            Command::LendSlot(_) => {
                self.lends = true;
                self.send_to_agent(command);
                Ok(())
            }
            Command::Welcome(_) | Command::Drain(_) => Ok(()),
        }
    }

    pub(super) fn send_to_agent(&mut self, command: Command) {
        self.steps.push(Step::Command(command));
    }

    fn start_pool(&mut self, start: Box<StartPool>) -> Result<(), ProtocolError> {
        let name = start.pool;
        if name & HELD != 0 {
            return Err(ProtocolError::new(format!("pool {name} has a number that is reserved for agents")));
        }
        let number = self.number();
        let command = match self.pool_names.get(&name) {
            // It was stopped here and is needed again.
            Some(&key) if self.pools[key as usize].stopped => {
                let pool = &mut self.pools[key as usize];
                pool.start = start;
                pool.fault = None;
                pool.restart(number)
            }
            Some(_) => return Err(ProtocolError::new(format!("pool {name} was started twice"))),
            None => {
                let command = Box::new(StartPool { pool: number, ..(*start).clone() });
                let key = self.pools.insert(Pool::new(number, start));
                self.pool_names.insert(name, u32::try_from(key).unwrap_or(u32::MAX));
                command
            }
        };
        self.send_to_agent(Command::StartPool(command));
        Ok(())
    }

    fn stop_pool(&mut self, stop: StopPool) {
        let StopPool { pool: name, now } = stop;
        if name & HELD != 0 {
            let held = self.find_held(name);
            return held.into_iter().for_each(|key| self.stop_held_pool(key));
        }
        // An unknown pool has ended here already.
        let Some(&key) = self.pool_names.get(&name) else { return };
        let key = key as usize;
        self.pools[key].stop_requested = true;
        if now {
            self.drop_chunks(key, |_| true);
        }
        let pool = &self.pools[key];
        if pool.stopped {
            self.for_jobs_of(key, |job| job.name = None);
            self.drop_pool_if_done(key);
        } else {
            let pool = pool.number;
            self.send_to_agent(Command::StopPool(StopPool { pool, now }));
        }
    }

    /// Stops a held pool that the coordinator does not want. Its end is not reported.
    fn stop_held_pool(&mut self, key: usize) {
        let pool = self.pools[key].number;
        self.wasted += self.drop_chunks(key, |_| true);
        if !self.pools[key].stopped {
            self.send_to_agent(Command::StopPool(StopPool { pool, now: true }));
        }
        self.drop_pool(key);
    }

    /// Returns the held pool with this number from the hello.
    pub(super) fn find_held(&self, number: u64) -> Option<usize> {
        let number = number & !HELD;
        self.pools.iter().find(|(_, pool)| pool.number == number && pool.name.is_none()).map(|(key, _)| key)
    }

    fn resize_pool(&mut self, resize: ResizePool) {
        let Some(&key) = self.pool_names.get(&resize.pool) else { return };
        let pool = &mut self.pools[key as usize];
        pool.start.processes = resize.processes;
        let pool = pool.number;
        self.send_to_agent(Command::ResizePool(ResizePool { pool, ..resize }));
    }

    fn start_job(&mut self, mut start: StartJob) -> Result<(), ProtocolError> {
        let StartJob { pool: name, job, .. } = start;
        if let Some(&known) = self.job_names.get(&job) {
            let known = &mut self.jobs[known as usize];
            if known.active {
                return Err(ProtocolError::new(format!("job {job} was started twice")));
            }
            // It ended with its pool, which was started again.
            known.name = None;
            let pool = known.pool as usize;
            self.for_jobs_of(pool, |_| {});
        }
        let Some(&pool) = self.pool_names.get(&name) else {
            return Err(ProtocolError::new(format!("a job was started in pool {name}, which does not exist here")));
        };
        let &Pool { number, stopped, .. } = &self.pools[pool as usize];
        (start.pool, start.job) = (number, self.number());
        // The coordinator may not know yet that the pool has ended.
        if !stopped {
            self.send_to_agent(Command::StartJob(start.clone()));
        }
        let key = self.jobs.insert(Job { pool, start, name: Some(job), active: !stopped, chunks: 0 });
        self.job_names.insert(job, u32::try_from(key).unwrap_or(u32::MAX));
        Ok(())
    }

    fn end_job(&mut self, end: EndJob) {
        // An unknown job has ended here already.
        let Some(key) = self.job_names.remove(&end.job) else { return };
        let job = &mut self.jobs[key as usize];
        job.name = None;
        let (pool, number) = (job.pool as usize, job.start.job);
        if std::mem::take(&mut job.active) {
            self.send_to_agent(Command::EndJob(EndJob { job: number, kill: end.kill }));
        }
        if end.kill {
            self.drop_chunks(pool, |chunk| chunk.job == key);
        }
        // Dropping its last chunk may have removed it already.
        if self.jobs.get(key as usize).is_some_and(Job::is_done) {
            self.jobs.remove(key as usize);
        }
    }

    /// Cancels chunks. Their kept outcomes may still be needed: other agents may have been first with only a part.
    fn cancel_chunks(&mut self, names: Vec<u64>) {
        let chunks = self.numbers_of(names);
        for key in chunks.iter().filter_map(|number| self.chunks.find(*number)).collect::<Vec<_>>() {
            self.chunks.get_mut(key).pending = Default::default();
            self.release_chunk(key);
        }
        if !chunks.is_empty() {
            self.send_to_agent(Command::CancelChunks(CancelChunks { chunks }));
        }
    }

    /// Returns the agent's numbers of the named chunks. Needed rarely, so there is no map to which each chunk would
    /// have to be added.
    fn numbers_of(&self, mut names: Vec<u64>) -> Vec<u64> {
        names.sort_unstable();
        let named = |pool: u32| self.pools[pool as usize].name.is_some();
        let wanted =
            self.chunks.iter().filter(|(_, chunk)| named(chunk.pool) && names.binary_search(&chunk.name).is_ok());
        wanted.map(|(key, _)| self.chunks.number(key)).collect()
    }

    fn settled(&mut self, settled: Settled) -> Result<(), ProtocolError> {
        let Settled { pool, report } = settled;
        if report > self.reports {
            return Err(ProtocolError::new(format!(
                "report {report} was settled, but only {} were sent",
                self.reports
            )));
        }
        let Some(&key) = self.pool_names.get(&pool) else { return Ok(()) };
        let key = key as usize;
        while let Some(chunk) = self.pools[key].outcomes.settle(report) {
            self.chunks.get_mut(chunk as usize).kept -= 1;
            self.release_chunk(chunk as usize);
        }
        self.resume_if_drained(key);
        self.drop_pool_if_done(key);
        Ok(())
    }
}
