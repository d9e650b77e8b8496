//! Handles the coordinator's commands.
//!
//! An invalid command is an error, never a panic. Commands for a pool that has just failed here are valid: the
//! coordinator could not know.

use farpool_proto::v1::agent_command::Body;
use farpool_proto::v1::{AgentCommand, Assign, CancelChunks, EndJob, LendSlot, StartJob, StopPool};

use crate::agent::{Agent, PoolJob};
use crate::pool::WorkerPool;
use crate::protocol_error::ProtocolError;

impl Agent {
    /// Executes a command of the coordinator.
    ///
    /// # Errors
    /// If the command is invalid. Part of it may have been executed.
    pub fn command(&mut self, command: AgentCommand) -> Result<(), ProtocolError> {
        let body = command.body.ok_or_else(|| ProtocolError::new("the coordinator sent an empty command".into()))?;
        match body {
            Body::StartPool(start) => return self.start_own_program(*start),
            Body::StopPool(stop) => self.stop_pool(&stop),
            Body::StartJob(start) => return self.start_job(start),
            Body::EndJob(end) => self.end_job(&end),
            Body::Assign(assign) => return self.assign(assign),
            // The session handles these.
            Body::Welcome(_) | Body::Settled(_) | Body::AdoptPool(_) => {}
            Body::CancelChunks(CancelChunks { mut chunks }) => {
                chunks.sort_unstable();
                self.pools.iter_mut().for_each(|pool| pool.cancel_chunks(&chunks));
            }
            Body::ResizePool(resize) => {
                if let Some(pool) = self.pools.iter_mut().find(|pool| pool.id() == resize.pool) {
                    pool.resize(resize.processes);
                    self.sharing.pools_changed = true;
                }
            }
            Body::Drain(_) => self.drain(),
            Body::LendSlot(lend) => self.lend_slot(&lend)?,
            Body::Retract(retract) => {
                for chunk in retract.chunks {
                    self.pools.iter_mut().any(|pool| pool.retract(chunk));
                }
            }
        }
        Ok(())
    }

    /// Forgets the jobs of a pool; no more commands about them will arrive.
    pub(crate) fn forget_jobs_of(&mut self, pool: u64) {
        self.jobs.retain(|_, pool_job| pool_job.pool != pool);
    }

    fn stop_pool(&mut self, stop: &StopPool) {
        self.ended.retain(|ended| *ended != stop.pool);
        match self.pools.iter_mut().find(|pool| pool.id() == stop.pool) {
            Some(pool) => pool.request_stop(stop.now),
            None => self.forget_jobs_of(stop.pool),
        }
    }

    fn lend_slot(&mut self, lend: &LendSlot) -> Result<(), ProtocolError> {
        let Some(borrowers) = &mut self.borrowers else { return Ok(()) };
        if lend.ticket.is_empty() {
            borrowers.clear_waiting();
            self.pools.iter_mut().for_each(WorkerPool::clear_lending);
            return Ok(());
        }
        let Ok(ticket) = <[u8; 16]>::try_from(&lend.ticket[..]) else {
            return Err(ProtocolError::new(format!("a ticket has {} bytes instead of 16", lend.ticket.len())));
        };
        // A ticket that was never granted, or whose program has ended, lends nothing.
        if let Some(secret) = borrowers.set_waiting(u128::from_be_bytes(ticket), lend.lend) {
            self.lend_slot_of(secret);
        }
        Ok(())
    }

    /// Updates for which items the worker with this secret lends its slot.
    pub(crate) fn lend_slot_of(&mut self, secret: u128) {
        let Some(borrowers) = &self.borrowers else { return };
        let positions = borrowers.waiting_for(secret);
        self.pools.iter_mut().any(|pool| pool.lend_slot(secret, &positions));
    }

    fn start_job(&mut self, start: StartJob) -> Result<(), ProtocolError> {
        let StartJob { pool: id, job, .. } = start;
        let known =
            self.jobs.get(&job).is_some_and(|pool_job| self.pools.iter().any(|pool| pool.serial() == pool_job.serial));
        if known {
            return Err(ProtocolError::new(format!("job {job} was started twice")));
        }
        let pool_job = match self.pools.iter_mut().find(|pool| pool.id() == id) {
            Some(pool) => PoolJob { pool: id, serial: pool.serial(), number: pool.start_job(start) },
            None if self.ended.contains(&id) => PoolJob { pool: id, serial: 0, number: 0 },
            None => {
                return Err(ProtocolError::new(format!("a job was started in pool {id}, which does not exist here")));
            }
        };
        self.jobs.insert(job, pool_job);
        Ok(())
    }

    fn end_job(&mut self, end: &EndJob) {
        // An unknown job has ended here already.
        let Some(pool_job) = self.jobs.remove(&end.job) else { return };
        if let Some(pool) = self.pools.iter_mut().find(|pool| pool.serial() == pool_job.serial) {
            pool.end_job(pool_job.number, end.kill);
        }
    }

    fn assign(&mut self, assign: Assign) -> Result<(), ProtocolError> {
        let mut segments = assign.segments.into_iter();
        // Chunks of one job are consecutive, so its pool is looked up once.
        let mut latest: Option<(u64, PoolJob, Option<usize>)> = None;
        for chunk in &assign.chunks {
            let (pool_job, at) = match latest {
                Some((job, pool_job, at)) if job == chunk.job => (pool_job, at),
                _ => {
                    let Some(&pool_job) = self.jobs.get(&chunk.job) else {
                        return Err(ProtocolError::new(format!(
                            "chunk {} belongs to job {}, which was not started",
                            chunk.chunk, chunk.job
                        )));
                    };
                    let at = self.pools.iter().position(|pool| pool.serial() == pool_job.serial);
                    latest = Some((chunk.job, pool_job, at));
                    (pool_job, at)
                }
            };
            let count = chunk.segments as usize;
            if segments.len() < count {
                return Err(ProtocolError::new(format!("the items of chunk {} are missing", chunk.chunk)));
            }
            let own = segments.by_ref().take(count);
            match at {
                Some(at) => self.pools[at].assign(chunk, pool_job.number, own)?,
                // The pool has ended here; the coordinator takes its chunks back.
                None => own.for_each(drop),
            }
        }
        match segments.len() {
            0 => Ok(()),
            more => Err(ProtocolError::new(format!("{more} segments belong to no chunk"))),
        }
    }
}
