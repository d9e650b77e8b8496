//! What the coordinator says.

use farpool_agent::ProtocolError;
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::{CancelChunks, EndJob, ResizePool, Retract, Settled, StartJob, StartPool, StopPool};

use super::pool::{Job, Pool};
use super::{HELD, Ledger, Step};

impl Ledger {
    /// Hears a command of the coordinator's. Welcome and Drain are the session's affair.
    ///
    /// # Errors
    /// If it makes no sense. Some of it may have been taken in.
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
                    self.tell_agent(Command::Retract(Retract { chunks }));
                }
                Ok(())
            }
            Command::CancelChunks(CancelChunks { chunks }) => {
                self.cancel_chunks(chunks);
                Ok(())
            }
            Command::LendSlot(_) => {
                self.lends = true;
                self.tell_agent(command);
                Ok(())
            }
            Command::Welcome(_) | Command::Drain(_) => Ok(()),
        }
    }

    pub(super) fn tell_agent(&mut self, command: Command) {
        self.steps.push(Step::Command(command));
    }

    fn start_pool(&mut self, start: Box<StartPool>) -> Result<(), ProtocolError> {
        let name = start.pool;
        if name & HELD != 0 {
            return Err(ProtocolError::new(format!("pool {name} has a number that only agents give")));
        }
        let number = self.number();
        let command = match self.pool_names.get(&name) {
            // Its workers here were not wanted any more, and now they are.
            Some(&key) if self.pools[key as usize].stopped => {
                let pool = &mut self.pools[key as usize];
                pool.start = start;
                pool.fault = None;
                pool.start_again(number)
            }
            Some(_) => return Err(ProtocolError::new(format!("pool {name} was started twice"))),
            None => {
                let command = Box::new(StartPool { pool: number, ..(*start).clone() });
                let key = self.pools.insert(Pool::new(number, start));
                self.pool_names.insert(name, u32::try_from(key).unwrap_or(u32::MAX));
                command
            }
        };
        self.tell_agent(Command::StartPool(command));
        Ok(())
    }

    fn stop_pool(&mut self, stop: StopPool) {
        let StopPool { pool: name, now } = stop;
        if name & HELD != 0 {
            let held = self.held_numbered(name);
            return held.into_iter().for_each(|key| self.stop_held_pool(key));
        }
        // An unknown one has ended here already.
        let Some(&key) = self.pool_names.get(&name) else { return };
        let key = key as usize;
        self.pools[key].told_to_stop = true;
        if now {
            self.drop_chunks(key, |_| true);
        }
        let pool = &self.pools[key];
        if pool.stopped {
            self.for_jobs_of(key, |job| job.name = None);
            self.drop_pool_if_over(key);
        } else {
            let pool = pool.number;
            self.tell_agent(Command::StopPool(StopPool { pool, now }));
        }
    }

    /// Nobody wants a held pool, and nobody has to hear of its end.
    fn stop_held_pool(&mut self, key: usize) {
        let pool = self.pools[key].number;
        self.in_vain += self.drop_chunks(key, |_| true);
        if !self.pools[key].stopped {
            self.tell_agent(Command::StopPool(StopPool { pool, now: true }));
        }
        self.drop_pool(key);
    }

    /// Where the held pool is that the hello called by this number.
    pub(super) fn held_numbered(&self, number: u64) -> Option<usize> {
        let number = number & !HELD;
        self.pools.iter().find(|(_, pool)| pool.number == number && pool.name.is_none()).map(|(key, _)| key)
    }

    fn resize_pool(&mut self, resize: ResizePool) {
        let Some(&key) = self.pool_names.get(&resize.pool) else { return };
        let pool = &mut self.pools[key as usize];
        pool.start.processes = resize.processes;
        let pool = pool.number;
        self.tell_agent(Command::ResizePool(ResizePool { pool, ..resize }));
    }

    fn start_job(&mut self, mut start: StartJob) -> Result<(), ProtocolError> {
        let StartJob { pool: name, job, .. } = start;
        if let Some(&known) = self.job_names.get(&job) {
            let known = &mut self.jobs[known as usize];
            if known.lives {
                return Err(ProtocolError::new(format!("job {job} was started twice")));
            }
            // It went with its pool, which is here again.
            known.name = None;
            let pool = known.pool as usize;
            self.for_jobs_of(pool, |_| {});
        }
        let Some(&pool) = self.pool_names.get(&name) else {
            return Err(ProtocolError::new(format!("a job was started in pool {name}, which is not here")));
        };
        let &Pool { number, stopped, .. } = &self.pools[pool as usize];
        (start.pool, start.job) = (number, self.number());
        // The coordinator could not know yet that a pool has ended.
        if !stopped {
            self.tell_agent(Command::StartJob(start.clone()));
        }
        let key = self.jobs.insert(Job { pool, start, name: Some(job), lives: !stopped, chunks: 0 });
        self.job_names.insert(job, u32::try_from(key).unwrap_or(u32::MAX));
        Ok(())
    }

    fn end_job(&mut self, end: EndJob) {
        // An unknown job has ended here already.
        let Some(key) = self.job_names.remove(&end.job) else { return };
        let job = &mut self.jobs[key as usize];
        job.name = None;
        let (pool, number) = (job.pool as usize, job.start.job);
        if std::mem::take(&mut job.lives) {
            self.tell_agent(Command::EndJob(EndJob { job: number, kill: end.kill }));
        }
        if end.kill {
            self.drop_chunks(pool, |chunk| chunk.job == key);
        }
        // Dropping its last chunk has forgotten it already.
        if self.jobs.get(key as usize).is_some_and(Job::is_over) {
            self.jobs.remove(key as usize);
        }
    }

    /// What is left of them is not run. The outcomes that they had may be needed: others may have been first with a part only.
    fn cancel_chunks(&mut self, names: Vec<u64>) {
        let chunks = self.numbers_of(names);
        for key in chunks.iter().filter_map(|number| self.chunks.find(*number)).collect::<Vec<_>>() {
            self.chunks.get_mut(key).out = Default::default();
            self.release_chunk(key);
        }
        if !chunks.is_empty() {
            self.tell_agent(Command::CancelChunks(CancelChunks { chunks }));
        }
    }

    /// The agent's numbers for chunks that are here. Asked for rarely, so there is no map that every chunk would have to
    /// be put into.
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
            return Err(ProtocolError::new(format!("report {report} is settled, and {} were made", self.reports)));
        }
        let Some(&key) = self.pool_names.get(&pool) else { return Ok(()) };
        let key = key as usize;
        while let Some(chunk) = self.pools[key].outcomes.settle(report) {
            self.chunks.get_mut(chunk as usize).kept -= 1;
            self.release_chunk(chunk as usize);
        }
        self.let_go_on(key);
        self.drop_pool_if_over(key);
        Ok(())
    }
}
