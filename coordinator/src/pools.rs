//! Pools, from the client's wish to the last worker's end.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use farpool_core::{Event, PoolId};
use farpool_proto::v1::{Failure, Output, PoolClosed, PoolFailed, StopPool, Welcome, agent_command, client_event};

use crate::convert::{PoolAsked, is_held};
use crate::coordinator::Coordinator;
use crate::ids::PoolKey;
use crate::outbox::Outbox;
use crate::places::Told;
use crate::refused::{Refused, RefusedKind};
use crate::reopen::Reopening;
use crate::settled::Unsettled;
use crate::unheard::Unheard;
use crate::{AgentId, ClientId, Principal};

/// A pool, kept until its last worker is gone.
pub(crate) struct Pool {
    /// Whose it is; its session may have ended already.
    pub(crate) client: ClientId,
    owner: Principal,
    /// What operators call it: never used again.
    pub(crate) name: u64,
    pub(crate) asked: PoolAsked,
    pub(crate) opened_at: u64,
    /// Whether nothing of it is handed out because its client does not read.
    pub(crate) paused: bool,
    stage: Stage,
    /// Whether the client wants it closed.
    closing: bool,
    /// The agents that were told to start it and have not said that it has stopped.
    pub(crate) at: BTreeSet<AgentId>,
    /// Those where it starts when its client has heard of it.
    pub(crate) unheard: BTreeMap<AgentId, Unheard>,
    /// Those that were told to stop it because its workers are wanted elsewhere.
    pub(crate) given_up: BTreeSet<AgentId>,
    /// The agents that cannot run it, and why.
    pub(crate) unfit: BTreeMap<AgentId, Failure>,
    /// The agents at which its workers die before they can serve, while those of other pools can; and why.
    pub(crate) ailing: BTreeMap<AgentId, String>,
    /// Whether any agent has run it.
    pub(crate) proven: bool,
    /// What the client knows of where it runs.
    pub(crate) told: Told,
    /// Jobs that have not ended.
    pub(crate) open_jobs: usize,
    /// It was open before, and the core does not know of it yet.
    pub(crate) reopening: Option<Reopening>,
    /// What agents have reported and its client may not have.
    pub(crate) unsettled: Unsettled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
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
        self.stage == Stage::Open
    }

    /// Whether the core knows of it, or will when it has been reopened.
    pub(crate) fn runs(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::Draining)
    }

    /// What it is opened again by; none in local mode.
    pub(crate) fn key(&self) -> Option<PoolKey> {
        self.asked.id.map(|id| PoolKey { owner: self.owner.clone(), id })
    }

    /// Whose it is.
    pub(crate) fn owner(&self) -> &Principal {
        &self.owner
    }

    /// Bytes that an item may have.
    pub(crate) fn payload_limit(&self) -> u64 {
        self.asked.settings.payload_limit
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.stage == Stage::Failed
    }
}

impl Coordinator {
    pub(crate) fn open_pool(
        &mut self,
        client: ClientId,
        owner: Principal,
        mut asked: PoolAsked,
        out: &mut Outbox,
    ) -> PoolId {
        let limit = &mut asked.settings.payload_limit;
        *limit = (*limit).min(self.config.payload_limit);
        let (slots, weight, require) = (asked.processes, asked.weight, self.labels.take(&asked.require));
        let again = asked.again.take();
        let pool = Pool {
            client,
            owner,
            name: self.next_name,
            asked,
            opened_at: self.now,
            paused: false,
            stage: Stage::Open,
            closing: false,
            at: BTreeSet::new(),
            unheard: BTreeMap::new(),
            given_up: BTreeSet::new(),
            unfit: BTreeMap::new(),
            ailing: BTreeMap::new(),
            proven: false,
            told: Told::default(),
            open_jobs: 0,
            reopening: again.map(|agents| Reopening::new(agents, require.clone())),
            unsettled: Unsettled::default(),
        };
        let (reopens, key) = (pool.is_reopening(), pool.key());
        let id = self.pools.insert(pool);
        self.next_name += 1;
        let (version, coordinator) = (Some(farpool_proto::version()), self.config.id);
        let coordinator = coordinator.map_or_else(Bytes::new, |id| Bytes::copy_from_slice(&id));
        let welcome = Welcome { version, window: self.config.window, coordinator };
        out.client(client, client_event::Body::Welcome(welcome));
        if let Some(key) = key {
            self.pool_keys.insert(key, id);
        }
        if reopens {
            self.deadlines.wait_for_agents_of(id, self.now, self.config.recovery);
        } else {
            self.feed(Event::PoolOpened { pool: id, slots, weight, require, held: Vec::new() }, out);
            // No agent can hold what was never open, if it is not a lie.
            self.finish_adopting(out);
            self.review(id, out);
        }
        id
    }

    pub(crate) fn close_pool(&mut self, id: PoolId, now: bool, out: &mut Outbox) {
        let Some(pool) = self.pools.get_mut(id) else { return };
        pool.closing = true;
        if pool.takes_jobs() {
            pool.stage = Stage::Draining;
        }
        match pool.stage {
            Stage::Draining if pool.is_reopening() && !now => {}
            Stage::Draining if pool.is_reopening() => {
                pool.stage = Stage::Stopping;
                self.abandon_reopening(id, out);
            }
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
        self.end_if_done(id, out);
    }

    /// Ends a pool that was to end with its jobs.
    pub(crate) fn end_if_done(&mut self, id: PoolId, out: &mut Outbox) {
        let Some(pool) = self.pools.get(id) else { return };
        if pool.open_jobs == 0 && pool.stage == Stage::Draining && !pool.is_reopening() {
            self.stop_pool(id, Stage::Stopping, false, out);
            self.finish_pool(id, out);
        }
    }

    /// The pool cannot run anything any more.
    pub(crate) fn fail_pool(&mut self, id: PoolId, failure: Failure, out: &mut Outbox) {
        let Some(pool) = self.pools.get_mut(id).filter(|pool| pool.runs()) else { return };
        out.client(pool.client, client_event::Body::PoolFailed(Box::new(PoolFailed { failure: Some(failure) })));
        self.stop_pool(id, Stage::Failed, true, out);
        self.finish_pool(id, out);
    }

    pub(crate) fn pool_stopped(&mut self, from: AgentId, id: PoolId, out: &mut Outbox) -> Result<(), Refused> {
        if is_held(id) {
            // It was told to stop what nobody wanted any more.
            return Ok(());
        }
        let leaves = self.agents.get(from).is_some_and(|agent| agent.draining);
        let Some(pool) = self.pools.get_mut(id).filter(|pool| pool.at.contains(&from)) else {
            self.late_messages += 1;
            return Ok(());
        };
        let given_up = pool.given_up.remove(&from);
        if pool.runs() && !leaves && !given_up && !pool.unfit.contains_key(&from) {
            return Err(RefusedKind::PoolRuns(id.to_bits()).into());
        }
        pool.at.remove(&from);
        pool.ailing.remove(&from);
        let place = self.agents.get(from).and_then(|agent| agent.identity());
        self.tell_place(id, place, true, out);
        let Some(pool) = self.pools.get(id) else { return Ok(()) };
        if given_up && pool.runs() {
            self.feed(Event::PlaceStopped { pool: id, agent: from }, out);
            self.review(id, out);
        }
        self.finish_pool(id, out);
        Ok(())
    }

    /// What a worker has written goes to the client, if it is still there.
    pub(crate) fn pass_output(
        &mut self,
        from: AgentId,
        id: PoolId,
        (pid, stream, data): (u32, i32, Bytes),
        out: &mut Outbox,
    ) {
        let pool = self.pools.get(id).filter(|pool| pool.at.contains(&from));
        match pool.filter(|pool| self.clients.get(pool.client).is_some()) {
            Some(pool) => {
                let host = self.agents.get(from).map_or("", |agent| agent.host()).to_owned();
                out.client(pool.client, client_event::Body::Output(Output { host, pid, stream, data }));
            }
            None => self.late_messages += 1,
        }
    }

    /// Ends the session once the workers are gone and the client has asked for it.
    pub(crate) fn finish_pool(&mut self, id: PoolId, out: &mut Outbox) {
        let over = |pool: &&Pool| pool.closing && pool.at.is_empty() && !pool.runs();
        if self.pools.get(id).filter(over).is_none() {
            return;
        }
        let pool = self.pools.remove(id).expect("it was just found");
        self.labels.give_back(&pool.asked.require);
        if let Some(key) = pool.key()
            && self.pool_keys.get(&key) == Some(&id)
        {
            self.pool_keys.remove(&key);
        }
        let agents = if pool.asked.id.is_some() { pool.unsettled.into_places() } else { Vec::new() };
        match self.clients.get_mut(pool.client) {
            Some(session) => {
                session.over = true;
                session.parting = Some((id, agents));
                out.client(pool.client, client_event::Body::PoolClosed(PoolClosed {}));
            }
            None => self.settle_pool_at(id, agents, out),
        }
    }

    /// Drops its jobs and lets its workers go. `stage` says what the client makes of the end of its jobs.
    fn stop_pool(&mut self, id: PoolId, stage: Stage, now: bool, out: &mut Outbox) {
        let pool = self.pools.get_mut(id).expect("a pool that is stopped is there");
        pool.stage = stage;
        self.feed(Event::PoolClosed { pool: id }, out);
        self.tell_to_stop(id, now, out);
    }

    fn tell_to_stop(&mut self, id: PoolId, now: bool, out: &mut Outbox) {
        self.stop_unheard(id, out);
        let Some(pool) = self.pools.get(id) else { return };
        for &agent in &pool.at {
            out.agent(agent, agent_command::Body::StopPool(StopPool { pool: id.to_bits(), now }));
        }
    }
}
