//! Pools, from the client's wish to the last worker's end.

use bytes::Bytes;
use farpool_core::{Event, PoolId};
use farpool_proto::v1::{
    Failure, Output, PoolClosed, PoolFailed, PoolOpened, StartPool, StopPool, Welcome, agent_command, client_event,
};

use crate::convert::PoolAsked;
use crate::coordinator::Coordinator;
use crate::outbox::Outbox;
use crate::refused::{Refused, RefusedKind};
use crate::{AgentId, ClientId};

/// A pool, kept until its last worker is gone.
pub(crate) struct Pool {
    /// Whose it is; its session may have ended already.
    pub(crate) client: ClientId,
    /// What operators call it: never used again.
    pub(crate) name: u64,
    pub(crate) asked: PoolAsked,
    pub(crate) opened_at: u64,
    /// Whether nothing of it is handed out because its client does not read.
    pub(crate) paused: bool,
    stage: Stage,
    /// Whether the client wants it closed.
    closing: bool,
    /// Where it has workers.
    at: Vec<AgentId>,
    /// Jobs that have not ended.
    pub(crate) open_jobs: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No agent is there yet; the client waits.
    Waiting,
    Open,
    /// It ends when its jobs have.
    Draining,
    /// Its jobs are gone and its workers are leaving.
    Stopping,
    /// The same, and the client was told why.
    Failed,
}

impl Pool {
    pub(crate) fn takes_jobs(&self) -> bool {
        matches!(self.stage, Stage::Waiting | Stage::Open)
    }

    /// Whether the core knows of it.
    pub(crate) fn runs(&self) -> bool {
        !matches!(self.stage, Stage::Stopping | Stage::Failed)
    }

    /// Why nothing of it can run; empty: something can.
    pub(crate) fn waiting(&self) -> &str {
        if self.stage == Stage::Waiting { "no agent is connected" } else { "" }
    }

    /// Bytes that an item may have.
    pub(crate) fn payload_limit(&self) -> u64 {
        self.asked.settings.payload_limit
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.stage == Stage::Failed
    }

    /// Its workers at an agent with `slots` out of `all`: the agent's share of those wanted, but one at least, for
    /// chunks may go to any agent.
    fn processes_at(&self, slots: u32, all: u64) -> u32 {
        let Some(wanted) = self.asked.processes else { return slots };
        let share = (u64::from(wanted.get()) * u64::from(slots)).div_ceil(all);
        share.clamp(1, slots.into()) as u32
    }
}

impl Coordinator {
    pub(crate) fn open_pool(&mut self, client: ClientId, asked: PoolAsked, out: &mut Outbox) -> PoolId {
        let (slots, weight) = (asked.processes, asked.weight);
        let pool = Pool {
            client,
            name: self.next_name,
            asked,
            opened_at: self.now,
            paused: false,
            stage: Stage::Waiting,
            closing: false,
            at: Vec::new(),
            open_jobs: 0,
        };
        let id = self.pools.insert(pool);
        self.next_name += 1;
        let welcome = Welcome { version: Some(farpool_proto::version()), window: self.config.window };
        out.client(client, client_event::Body::Welcome(welcome));
        self.core.handle(Event::PoolOpened { pool: id, slots, weight }, self.now, &mut self.actions);
        let agents: Vec<_> = self.agents.iter().filter_map(|(id, agent)| agent.slots().map(|_| id)).collect();
        for agent in agents {
            self.start_pool(id, agent, out);
        }
        id
    }

    /// Workers that a pool may have at once.
    pub(crate) fn pool_slots(&self, id: PoolId) -> u32 {
        let Some(pool) = self.pools.get(id) else { return 0 };
        let slots: u64 = pool.at.iter().filter_map(|&agent| self.agents.get(agent)?.slots()).map(u64::from).sum();
        let wanted = pool.asked.processes.map_or(u64::MAX, |wanted| wanted.get().into());
        slots.min(wanted).try_into().unwrap_or(u32::MAX)
    }

    /// Starts the pools that are there at an agent that has come.
    pub(crate) fn start_pools(&mut self, agent: AgentId, out: &mut Outbox) {
        let alive = |pool: &Pool| matches!(pool.stage, Stage::Waiting | Stage::Open | Stage::Draining);
        let pools: Vec<_> = self.pools.iter().filter(|(_, pool)| alive(pool)).map(|(id, _)| id).collect();
        for pool in pools {
            self.start_pool(pool, agent, out);
        }
    }

    fn start_pool(&mut self, id: PoolId, agent: AgentId, out: &mut Outbox) {
        let all: u64 = self.agents.iter().filter_map(|(_, agent)| agent.slots()).map(u64::from).sum();
        let slots = self.agents.get(agent).and_then(|agent| agent.slots());
        let (Some(pool), Some(slots)) = (self.pools.get_mut(id), slots) else { return };
        if self.agents.get(agent).is_some_and(|agent| agent.draining) {
            return;
        }
        pool.at.push(agent);
        let processes = pool.processes_at(slots, all);
        let start = StartPool {
            pool: id.to_bits(),
            processes,
            settings: Some(pool.asked.settings.clone()),
            program: pool.asked.program.clone(),
            weight: pool.asked.weight,
        };
        out.agent(agent, agent_command::Body::StartPool(start));
        if pool.stage == Stage::Waiting {
            pool.stage = Stage::Open;
            let slots = pool.asked.processes.map_or(all, |wanted| all.min(wanted.get().into()));
            let opened = PoolOpened { slots: slots.try_into().unwrap_or(u32::MAX) };
            out.client(pool.client, client_event::Body::PoolOpened(opened));
        }
    }

    pub(crate) fn close_pool(&mut self, id: PoolId, now: bool, out: &mut Outbox) {
        let Some(pool) = self.pools.get_mut(id) else { return };
        pool.closing = true;
        if pool.takes_jobs() {
            pool.stage = Stage::Draining;
        }
        match pool.stage {
            Stage::Draining if now || pool.open_jobs == 0 => self.stop_pool(id, Stage::Stopping, now, out),
            // It was let go gently and is hurried now.
            Stage::Stopping if now => self.tell_to_stop(id, true, out),
            _ => {}
        }
        self.finish_pool(id, out);
    }

    /// A job of it has ended.
    pub(crate) fn pool_has_less(&mut self, id: PoolId, out: &mut Outbox) {
        let Some(pool) = self.pools.get_mut(id) else { return };
        pool.open_jobs -= 1;
        if pool.open_jobs == 0 && pool.stage == Stage::Draining {
            self.stop_pool(id, Stage::Stopping, false, out);
            self.finish_pool(id, out);
        }
    }

    pub(crate) fn pool_failed(&mut self, from: AgentId, id: PoolId, failure: Failure, out: &mut Outbox) {
        let works =
            |pool: &&mut Pool| pool.at.contains(&from) && !matches!(pool.stage, Stage::Stopping | Stage::Failed);
        let Some(pool) = self.pools.get_mut(id).filter(works) else {
            self.late_messages += 1;
            return;
        };
        out.client(pool.client, client_event::Body::PoolFailed(PoolFailed { failure: Some(failure) }));
        self.stop_pool(id, Stage::Failed, true, out);
        self.finish_pool(id, out);
    }

    pub(crate) fn pool_stopped(&mut self, from: AgentId, id: PoolId, out: &mut Outbox) -> Result<(), Refused> {
        let Some(pool) = self.pools.get_mut(id).filter(|pool| pool.at.contains(&from)) else {
            self.late_messages += 1;
            return Ok(());
        };
        if !matches!(pool.stage, Stage::Stopping | Stage::Failed) {
            return Err(RefusedKind::PoolRuns(id.to_bits()).into());
        }
        pool.at.retain(|&agent| agent != from);
        self.finish_pool(id, out);
        Ok(())
    }

    /// What a worker has written goes to the client, if it is still there.
    pub(crate) fn pass_output(
        &mut self,
        from: AgentId,
        id: PoolId,
        pid: u32,
        stream: i32,
        data: Bytes,
        out: &mut Outbox,
    ) {
        let host = self.agents.get(from).map_or("", |agent| agent.host()).to_owned();
        match self.pools.get(id).filter(|pool| pool.at.contains(&from) && self.clients.get(pool.client).is_some()) {
            Some(pool) => out.client(pool.client, client_event::Body::Output(Output { host, pid, stream, data })),
            None => self.late_messages += 1,
        }
    }

    /// An agent is gone, and the workers there with it.
    pub(crate) fn leave_pools(&mut self, agent: AgentId, out: &mut Outbox) {
        let pools: Vec<_> = self.pools.iter().filter(|(_, pool)| pool.at.contains(&agent)).map(|(id, _)| id).collect();
        for id in pools {
            let pool = self.pools.get_mut(id).expect("it was just found");
            pool.at.retain(|&at| at != agent);
            self.finish_pool(id, out);
        }
    }

    /// Drops its jobs and lets its workers go. `stage` says what the client makes of the end of its jobs.
    fn stop_pool(&mut self, id: PoolId, stage: Stage, now: bool, out: &mut Outbox) {
        let pool = self.pools.get_mut(id).expect("a pool that is stopped is there");
        pool.stage = stage;
        self.feed(Event::PoolClosed { pool: id }, out);
        self.tell_to_stop(id, now, out);
    }

    fn tell_to_stop(&self, id: PoolId, now: bool, out: &mut Outbox) {
        let Some(pool) = self.pools.get(id) else { return };
        for &agent in &pool.at {
            out.agent(agent, agent_command::Body::StopPool(StopPool { pool: id.to_bits(), now }));
        }
    }

    /// Ends the session once the workers are gone and the client has asked for it.
    fn finish_pool(&mut self, id: PoolId, out: &mut Outbox) {
        let over =
            |pool: &&Pool| pool.closing && pool.at.is_empty() && matches!(pool.stage, Stage::Stopping | Stage::Failed);
        if self.pools.get(id).filter(over).is_none() {
            return;
        }
        let client = self.pools.remove(id).expect("it was just found").client;
        if let Some(session) = self.clients.get_mut(client) {
            session.over = true;
            out.client(client, client_event::Body::PoolClosed(PoolClosed {}));
        }
    }
}
