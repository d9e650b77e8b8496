//! Handles the coordinator's commands, and adoption: a coordinator resumes a pool that ran for another one.

use farpool_agent::ProtocolError;
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{
    AdoptPool, AdoptedChunk, Assign, CancelChunks, EndJob, HealthReport, PoolFault, PoolStarted, PoolStopped,
    ResizePool, Retract, Settled, StartJob, StartPool, StopPool,
};

use super::pool::Pool;
use super::pools::HELD;
use super::{Ledger, Step};

impl Ledger {
    /// Handles a command. Welcome and Drain are for the session.
    ///
    /// # Errors
    /// If the command is invalid. Part of it may have been executed.
    pub fn command(&mut self, command: Command) -> Result<(), ProtocolError> {
        match command {
            Command::StartPool(start) => return self.start_pool(start),
            Command::AdoptPool(adopt) => return self.adopt_pool(*adopt),
            Command::StartJob(start) => return self.start_job(start),
            Command::Assign(assign) => return self.assign(assign),
            Command::Settled(settled) => return self.settled(settled),
            Command::StopPool(stop) => self.stop_pool(stop),
            Command::ResizePool(resize) => self.resize_pool(resize),
            Command::EndJob(end) => self.end_job(end),
            Command::Retract(Retract { chunks }) => {
                let chunks = self.numbers_of(chunks);
                if !chunks.is_empty() {
                    self.send_to_agent(Command::Retract(Retract { chunks }));
                }
            }
            Command::CancelChunks(CancelChunks { chunks }) => self.cancel_chunks(chunks),
            Command::LendSlot(_) => {
                self.lends = true;
                self.send_to_agent(command);
            }
            Command::Welcome(_) | Command::Drain(_) => {}
        }
        Ok(())
    }

    // ---- pools

    fn start_pool(&mut self, start: Box<StartPool>) -> Result<(), ProtocolError> {
        let name = start.pool;
        if name & HELD != 0 {
            return Err(ProtocolError::new(format!("pool {name} has a number that is reserved for agents")));
        }
        let number = self.numbers.next();
        let command = match self.pools.named(name) {
            // It was stopped here and is needed again.
            Some(key) if self.pools[key].stopped => {
                let pool = &mut self.pools[key];
                pool.start = start;
                pool.fault = None;
                pool.restart(number)
            }
            Some(_) => return Err(ProtocolError::new(format!("pool {name} was started twice"))),
            None => {
                let command = Box::new(StartPool { pool: number, ..(*start).clone() });
                self.pools.insert(Pool::new(number, start));
                command
            }
        };
        self.send_to_agent(Command::StartPool(command));
        Ok(())
    }

    fn stop_pool(&mut self, stop: StopPool) {
        let StopPool { pool: name, now } = stop;
        if name & HELD != 0 {
            let held = self.pools.held(name);
            return held.into_iter().for_each(|key| self.stop_held_pool(key));
        }
        // An unknown pool has ended here already.
        let Some(key) = self.pools.named(name) else { return };
        self.pools[key].stop_requested = true;
        if now {
            self.drop_chunks(key, self.work.chunks_of(key));
        }
        let pool = &self.pools[key];
        if pool.stopped {
            self.work.pool_ended(key, true);
            self.drop_pool_if_done(key);
        } else {
            let pool = pool.number;
            self.send_to_agent(Command::StopPool(StopPool { pool, now }));
        }
    }

    /// Stops a held pool that the coordinator does not want. Its end is not reported.
    fn stop_held_pool(&mut self, key: usize) {
        let pool = self.pools[key].number;
        self.wasted += self.drop_chunks(key, self.work.chunks_of(key));
        if !self.pools[key].stopped {
            self.send_to_agent(Command::StopPool(StopPool { pool, now: true }));
        }
        self.drop_pool(key);
    }

    fn resize_pool(&mut self, resize: ResizePool) {
        let Some(key) = self.pools.named(resize.pool) else { return };
        let pool = &mut self.pools[key];
        pool.start.processes = resize.processes;
        let pool = pool.number;
        self.send_to_agent(Command::ResizePool(ResizePool { pool, ..resize }));
    }

    // ---- jobs and chunks

    fn start_job(&mut self, mut start: StartJob) -> Result<(), ProtocolError> {
        let StartJob { pool: name, job, .. } = start;
        self.work.expect_new_job(job)?;
        let Some(key) = self.pools.named(name) else {
            return Err(ProtocolError::new(format!("a job was started in pool {name}, which does not exist here")));
        };
        let &Pool { number, stopped, .. } = &self.pools[key];
        (start.pool, start.job) = (number, self.numbers.next());
        // The coordinator may not know yet that the pool has ended.
        if !stopped {
            self.send_to_agent(Command::StartJob(start.clone()));
        }
        self.work.start_job(start, job, key, !stopped);
        Ok(())
    }

    fn end_job(&mut self, end: EndJob) {
        // An unknown job has ended here already.
        let Some(ended) = self.work.end_job(end.job) else { return };
        if let Some(job) = ended.number {
            self.send_to_agent(Command::EndJob(EndJob { job, kill: end.kill }));
        }
        if end.kill {
            self.drop_chunks(ended.pool, self.work.chunks_of_job(ended.key));
        }
        self.work.remove_job_if_done(ended.key);
    }

    /// Translates the chunks' names in place.
    fn assign(&mut self, mut assign: Assign) -> Result<(), ProtocolError> {
        self.work.assign(&mut assign)?;
        if !assign.chunks.is_empty() {
            self.send_to_agent(Command::Assign(assign));
        }
        Ok(())
    }

    /// Cancels chunks. Their kept outcomes may still be needed: other agents may have been first with only a part.
    fn cancel_chunks(&mut self, names: Vec<u64>) {
        let chunks = self.numbers_of(names);
        self.work.end_chunks(chunks.iter().filter_map(|number| self.work.key_of(*number)).collect());
        if !chunks.is_empty() {
            self.send_to_agent(Command::CancelChunks(CancelChunks { chunks }));
        }
    }

    /// Returns the agent's numbers of the named chunks.
    fn numbers_of(&self, names: Vec<u64>) -> Vec<u64> {
        self.work.numbers_of(names, |pool| self.pools[pool as usize].name.is_some())
    }

    fn settled(&mut self, settled: Settled) -> Result<(), ProtocolError> {
        let Settled { pool, report } = settled;
        if report > self.reports {
            return Err(ProtocolError::new(format!(
                "report {report} was settled, but only {} were sent",
                self.reports
            )));
        }
        let Some(key) = self.pools.named(pool) else { return Ok(()) };
        while let Some(chunk) = self.pools[key].outcomes.settle(report) {
            self.work.release_kept(chunk as usize);
        }
        self.resume_if_drained(key);
        self.drop_pool_if_done(key);
        Ok(())
    }

    // ---- adoption

    fn adopt_pool(&mut self, adopt: AdoptPool) -> Result<(), ProtocolError> {
        let AdoptPool { held, pool: name, processes, jobs, chunks, .. } = adopt;
        let key = match self.pools.held(held) {
            Some(key) if held & HELD != 0 => key,
            _ => return Err(ProtocolError::new(format!("pool {held} was adopted, but is not held"))),
        };
        if name & HELD != 0 || self.pools.named(name).is_some() {
            return Err(ProtocolError::new(format!("pool {held} was adopted as {name}, but that name is in use")));
        }
        self.drop_unadopted(key, &chunks)?;
        self.pools.set_name(key, name);
        self.resume_processes(key, processes);
        let pool = &self.pools[key];
        let names = jobs.iter().map(|job| (job.number, job.job)).collect();
        let (number, can_run) = (pool.number, pool.fault.is_none());
        self.work.adopt_jobs((key, number), names, can_run, &mut self.numbers, &mut self.steps)?;
        self.resend_kept(key, name);
        Ok(())
    }

    /// Names the adopted chunks, and drops the others.
    fn drop_unadopted(&mut self, pool: usize, adopted: &[AdoptedChunk]) -> Result<(), ProtocolError> {
        let (unwanted, cancelled) = self.work.adopt_chunks(pool, adopted)?;
        self.wasted += self.drop_chunks(pool, unwanted);
        if !cancelled.is_empty() {
            self.send_to_agent(Command::CancelChunks(CancelChunks { chunks: cancelled }));
        }
        Ok(())
    }

    /// Ensures that the pool has workers, even if it was stopping.
    fn resume_processes(&mut self, key: usize, processes: u32) {
        let resized = std::mem::replace(&mut self.pools[key].start.processes, processes) != processes;
        let again = self.numbers.next();
        let pool = &mut self.pools[key];
        if pool.fault.is_some() || !(pool.stop_requested || pool.stopped) {
            let pool = pool.number;
            if resized {
                self.send_to_agent(Command::ResizePool(ResizePool { pool, processes }));
            }
        } else if self.work.has_pending(key) {
            // Pending items cannot move, so the pool still exists.
            pool.stop_requested = false;
            let pool = pool.number;
            self.steps.push(Step::CancelStop(pool));
            self.send_to_agent(Command::ResizePool(ResizePool { pool, processes }));
        } else {
            let start = pool.restart(again);
            self.work.pool_ended(key, false);
            self.send_to_agent(Command::StartPool(start));
        }
    }

    /// Resends what happened before the pool was adopted.
    fn resend_kept(&mut self, key: usize, name: u64) {
        let Ledger { pools, work, reports, steps, .. } = self;
        let pool = &mut pools[key];
        let mut send = |event| steps.push(Step::Send(event));
        if pool.started {
            send(Event::PoolStarted(PoolStarted { pool: name }));
        }
        if let Some(reason) = pool.unhealthy.clone() {
            send(Event::HealthReport(HealthReport { reason, pool: name }));
        }
        for kept in pool.outcomes.renumber(reports) {
            let chunk = work.chunk(kept.chunk as usize);
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
                    let Some(at) = work.key_of(back.chunk) else { continue };
                    (back.chunk, back.attempt) = (work.chunk(at).name, work.chunk(at).attempt);
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
