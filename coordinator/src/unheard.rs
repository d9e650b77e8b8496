//! Places that a pool's client has not heard of yet: there the pool does not start.
//!
//! A client that opens its pool again says where it ran, and what may not run twice runs again only if all of these agents
//! are back. So nothing may run at an agent that the client could leave out; and an agent that has been given up, whose
//! items have failed, may not go on as one that holds the pool before the client has heard of these failures. Both are
//! so once the client has taken in that the pool runs there: what was said before it came before.

use std::num::NonZeroU32;

use farpool_core::{Event, PoolId};
use farpool_proto::v1::{StopPool, agent_command};

use crate::convert::HeldPool;
use crate::coordinator::Coordinator;
use crate::outbox::Outbox;
use crate::pools::Pool;
use crate::settled::UNNUMBERED;
use crate::{AgentId, ClientId};

/// A place that starts when the client knows of it.
pub(crate) struct Unheard {
    workers: Option<NonZeroU32>,
    /// What the agent holds of the pool from before.
    held: Option<HeldPool>,
    /// The client's message that says so.
    message: u64,
}

impl Pool {
    /// Whether the pool may start at an agent only when the client has heard of it. It has if it said so itself.
    pub(crate) fn must_hear_of(&self, agent: AgentId) -> bool {
        self.asked.id.is_some() && !self.reopening.as_ref().is_some_and(|reopening| reopening.is_held_at(agent))
    }

    pub(crate) fn await_hearing(&mut self, agent: AgentId, workers: Option<NonZeroU32>, held: Option<HeldPool>) {
        self.unheard.insert(agent, Unheard { workers, held, message: UNNUMBERED });
    }

    /// It will have so many workers; false: it has started.
    pub(crate) fn resize_unheard(&mut self, agent: AgentId, workers: NonZeroU32) -> bool {
        self.unheard.get_mut(&agent).map(|place| place.workers = Some(workers)).is_some()
    }

    /// What was said of places is in the client's messages up to this one.
    pub(crate) fn number_unheard(&mut self, last: u64) {
        for place in self.unheard.values_mut().filter(|place| place.message == UNNUMBERED) {
            place.message = last;
        }
    }
}

impl Coordinator {
    /// The client has taken in its messages up to this one: the pool starts where it knows of.
    pub(crate) fn start_where_heard(&mut self, client: ClientId, last: u64, out: &mut Outbox) {
        let Some(id) = self.clients.get(client).and_then(|client| client.pool) else { return };
        while let Some(pool) = self.pools.get_mut(id)
            && let Some((&agent, _)) = pool.unheard.iter().find(|(_, place)| place.message <= last)
            && let Some(Unheard { workers, held, .. }) = pool.unheard.remove(&agent)
        {
            let leaves = self.agents.get(agent).is_none_or(|agent| agent.draining);
            if leaves && held.is_none() {
                let place = self.agents.get(agent).and_then(|agent| agent.identity());
                self.tell_place(id, place, true, out);
                continue;
            }
            self.begin_place(agent, id, workers, held, out);
            self.finish_adopting(out);
        }
    }

    /// Whether places of the client's pool start when it says that it knows of them.
    pub fn is_to_hear(&self, client: ClientId) -> bool {
        let pool = self.clients.get(client).and_then(|client| self.pools.get(client.pool?));
        pool.is_some_and(|pool| !pool.unheard.is_empty())
    }

    /// The place is not wanted any more; false: it has started.
    pub(crate) fn withdraw_unheard(&mut self, agent: AgentId, id: PoolId, out: &mut Outbox) -> bool {
        let Some(unheard) = self.pools.get_mut(id).and_then(|pool| pool.unheard.remove(&agent)) else { return false };
        stop_held(agent, unheard, out);
        let place = self.agents.get(agent).and_then(|agent| agent.identity());
        self.tell_place(id, place, true, out);
        self.feed(Event::PlaceStopped { pool: id, agent }, out);
        true
    }

    /// The pool has ended, also where it did not start.
    pub(crate) fn stop_unheard(&mut self, id: PoolId, out: &mut Outbox) {
        let unheard = self.pools.get_mut(id).map(|pool| std::mem::take(&mut pool.unheard)).unwrap_or_default();
        unheard.into_iter().for_each(|(agent, unheard)| stop_held(agent, unheard, out));
    }
}

fn stop_held(agent: AgentId, unheard: Unheard, out: &mut Outbox) {
    if let Some(held) = unheard.held {
        out.agent(agent, agent_command::Body::StopPool(StopPool { pool: held.number, now: true }));
    }
}
