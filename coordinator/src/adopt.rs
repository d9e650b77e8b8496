//! What agents still hold that have come back: adopted by the pools that it belongs to, or given up.
//!
//! An agent that was lost, or that outlived a coordinator, goes on with what it had. Its hello says what that is, and each
//! pool in it is answered: by AdoptPool as soon as a pool of that id is given a place there, of which the core takes in
//! those items that nobody else was given meanwhile; by StopPool if the pool is there and has no place for the agent, or if
//! no client has claimed it within the recovery time.

use std::collections::BTreeMap;

use farpool_core::{Action, Event, PoolId};
use farpool_proto::v1::{AdoptPool, AdoptedChunk, AdoptedJob, AgentCommand, StopPool, agent_command};

use crate::convert::{HeldChunk, HeldPool};
use crate::coordinator::Coordinator;
use crate::follow::Report;
use crate::ids::PoolKey;
use crate::outbox::Outbox;
use crate::pools::Pool;
use crate::{AgentId, ClientId};

/// A pool that an agent is being told to adopt.
pub(crate) struct Adopting {
    agent: AgentId,
    pool: PoolId,
    held: HeldPool,
    /// Where in the outbox it is told. Which jobs and chunks go on is known later, but no other word about the pool may
    /// come first.
    at: usize,
}

impl Coordinator {
    /// An agent has said hello, and its pools have their places.
    pub(crate) fn comes_back(&mut self, id: AgentId, out: &mut Outbox) {
        self.finish_adopting(out);
        self.give_up_held(id, |_| false, out);
        if self.agents.get(id).is_some_and(|agent| !agent.held.is_empty()) {
            self.deadlines.wait_for_clients_of(id, self.now, self.config.recovery);
        }
        self.reopen_all(out);
    }

    /// Takes out what the agent holds of the pool.
    pub(crate) fn take_held(&mut self, agent: AgentId, pool: &PoolKey) -> Option<HeldPool> {
        let held = &mut self.agents.get_mut(agent)?.held;
        let at = held.iter().position(|held| held.key == *pool)?;
        Some(held.remove(at))
    }

    /// Has the agent go on with what it holds of a pool of which it was given a place.
    pub(crate) fn begin_to_adopt(
        &mut self,
        agent: AgentId,
        pool: PoolId,
        held: HeldPool,
        adopt: AdoptPool,
        out: &mut Outbox,
    ) {
        self.adopting.push(Adopting { agent, pool, held, at: out.to_agents.len() });
        out.agent(agent, agent_command::Body::AdoptPool(Box::new(adopt)));
    }

    /// Says which jobs and chunks go on. The outbox must be as it was when that began, but for what was added.
    pub(crate) fn finish_adopting(&mut self, out: &mut Outbox) {
        for Adopting { agent, pool: id, held, at } in std::mem::take(&mut self.adopting) {
            let Some(pool) = self.pools.get_mut(id).filter(|pool| pool.runs()) else { continue };
            pool.proven = true;
            let client = pool.client;
            self.feed(Event::PlaceStarted { pool: id, agent }, out);
            let (jobs, chunks) = self.adopt_chunks(agent, client, held.chunks, out);
            if let Some((_, AgentCommand { body: Some(agent_command::Body::AdoptPool(adopt)) })) =
                out.to_agents.get_mut(at)
            {
                (adopt.jobs, adopt.chunks) = (jobs, chunks);
            }
        }
    }

    /// Tells an agent to stop what it holds of pools that are here and have no place for it, and of those that `others` says
    /// of which nothing is known.
    pub(crate) fn give_up_held(&mut self, id: AgentId, others: impl Fn(&HeldPool) -> bool, out: &mut Outbox) {
        let Some(agent) = self.agents.get_mut(id) else { return };
        let (pools, pool_keys) = (&self.pools, &self.pool_keys);
        agent.held.retain(|held| {
            let stays = match pool_keys.get(&held.key) {
                Some(&pool) => pools.get(pool).is_some_and(Pool::is_reopening),
                None => !others(held),
            };
            if !stays {
                out.agent(id, agent_command::Body::StopPool(StopPool { pool: held.number, now: true }));
            }
            stays
        });
    }

    /// Which agents hold the pool, and with how many workers; 0: as many as they have slots.
    pub(crate) fn holders(&self, pool: &PoolKey) -> Vec<(AgentId, u32)> {
        let agents = self.agents.iter().filter(|(_, agent)| agent.hello.is_some());
        let held =
            agents.filter_map(|(id, agent)| Some((id, agent.held.iter().find(|held| held.key == *pool)?.workers)));
        held.collect()
    }

    fn adopt_chunks(
        &mut self,
        agent: AgentId,
        client: ClientId,
        chunks: Vec<HeldChunk>,
        out: &mut Outbox,
    ) -> (Vec<AdoptedJob>, Vec<AdoptedChunk>) {
        let (mut jobs, mut adopted) = (BTreeMap::new(), Vec::new());
        for HeldChunk { number, job, first, attempt, runs } in chunks {
            let Some(id) = self.clients.get(client).and_then(|client| client.open_job(job)) else { continue };
            let held = Event::ChunkHeld { agent, job: id, first, attempt, runs };
            self.core.handle(held, self.now, &mut self.actions);
            if let Some(&Action::Adopt { chunk, attempt, .. }) = self.actions.last() {
                self.actions.pop();
                jobs.insert(job, id);
                adopted.push(AdoptedChunk { held: number, chunk: chunk.to_bits(), attempt });
            }
            self.follow(Some(Report::NotBack), out);
        }
        let jobs = jobs.into_iter().map(|(number, job)| AdoptedJob { number, job: job.to_bits() });
        (jobs.collect(), adopted)
    }
}
