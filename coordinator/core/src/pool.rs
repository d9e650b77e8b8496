//! The state of a pool, and of its places.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use crate::agent::{Agent, AgentOrder, FULL_LOAD, Surplus};
use crate::ids::{AgentId, Id, LaneId, PlaceId};
use crate::labels::Labels;
use crate::slab::Slab;

/// A pool, as far as scheduling needs it.
pub(crate) struct Pool {
    /// Labels that agents must have to be places of it.
    pub(crate) require: Labels,
    /// Workers that it may have at once; `None`: as many as its places have slots.
    pub(crate) limit: Option<NonZeroU32>,
    /// Its share against other pools.
    pub(crate) weight: u32,
    /// Whether nothing of it is handed out.
    pub(crate) paused: bool,
    /// Whether it is being closed: then it starts at no other agent.
    pub(crate) closing: bool,
    /// Slot time it has used divided by its weight, and whether it had nothing to run until now; see `fair`.
    pub(crate) used: u64,
    pub(crate) fresh: bool,
    pub(crate) ready_lanes: u32,
    /// Its lanes; the first is for jobs that require no labels beyond the pool's.
    pub(crate) lanes: Vec<LaneId>,
    pub(crate) places: Places,
    /// Agents where its workers are known to die before they can serve: others are allotted its workers first.
    pub(crate) unhealthy_at: BTreeSet<AgentId>,
    /// Workers allotted to its places, of those that the limit allows.
    pub(crate) allotted: u32,
    /// Workers at the places that may run something now or soon.
    pub(crate) offered: u64,
}

/// A pool's places, by their ids and by their agents.
#[derive(Default)]
pub(crate) struct Places {
    all: Slab<PlaceId, Place>,
    // By the index of the agent.
    at: Vec<u32>,
}

/// A pool at an agent.
pub(crate) struct Place {
    pub(crate) agent: AgentId,
    pub(crate) stage: Stage,
    /// Whether nothing more is handed out there.
    pub(crate) retired: bool,
    /// Workers that it may have; for a pool without limit, all slots of the agent.
    pub(crate) workers: u32,
    /// How many chunks of the pool are there.
    pub(crate) count: u32,
    /// How many of them were asked back, and how many were asked back elsewhere for this place.
    pub(crate) retracting: u32,
    pub(crate) promised: u32,
    /// Its position in the agent's list.
    pub(crate) listed_at: u32,
}

/// The state of the pool at the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The agent was told to start it and has not answered.
    Starting,
    Ready,
    /// The agent cannot run the pool.
    Unfit,
    /// Its workers are needed elsewhere: it is stopped when it holds nothing.
    GivenUp,
    /// The agent was told to stop it and has not answered.
    Stopping,
}

const ABSENT: u32 = u32::MAX;

impl Pool {
    /// Returns slot time divided by its weight.
    #[inline]
    pub(crate) fn share_of(&self, ns: u64) -> u64 {
        if self.weight == 1 { ns } else { ns / u64::from(self.weight) }
    }
}

impl Place {
    /// Like [`Agent::keys`], for a pool with a limit, of which this agent runs only some workers.
    pub(crate) fn keys(&self, agent: &Agent) -> (Option<AgentOrder>, Option<Surplus>) {
        let (room, _) = agent.keys();
        let room = room.filter(|_| self.takes_more(agent)).map(|room| {
            let own = u64::from(self.count + self.promised) * FULL_LOAD / u64::from(self.workers.max(1));
            // To run there takes a worker and a slot.
            AgentOrder { load: room.load.max(own), ..room }
        });
        let waiting = self.count - self.retracting;
        let spare = waiting.saturating_sub(self.workers).max(agent.spare().min(waiting));
        (room, agent.surplus(spare))
    }

    /// Whether it holds less than its workers can run and prefetch. The agent's credit beyond one chunk per slot is for
    /// the workers that have something: with several threads, each of them prefetches.
    #[inline]
    pub(crate) fn takes_more(&self, agent: &Agent) -> bool {
        self.count < self.workers.max(1).saturating_add(agent.credit.chunks.saturating_sub(agent.slots()))
    }
}

impl Places {
    pub(crate) fn put(&mut self, place: Place) -> PlaceId {
        let agent = place.agent.index() as usize;
        if self.at.len() <= agent {
            self.at.resize(agent + 1, ABSENT);
        }
        let id = self.all.insert(place);
        self.at[agent] = id.index();
        id
    }

    pub(crate) fn take(&mut self, id: PlaceId) -> Option<Place> {
        let place = self.all.remove(id)?;
        self.at[place.agent.index() as usize] = ABSENT;
        Some(place)
    }

    #[inline]
    pub(crate) fn id_at(&self, agent: AgentId) -> Option<PlaceId> {
        let index = *self.at.get(agent.index() as usize)?;
        let id = self.all.id_at(index)?;
        // The index may belong to another agent by now.
        self.all.get(id).is_some_and(|place| place.agent == agent).then_some(id)
    }

    #[inline]
    pub(crate) fn get(&self, id: PlaceId) -> Option<&Place> {
        self.all.get(id)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: PlaceId) -> Option<&mut Place> {
        self.all.get_mut(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PlaceId, &Place)> {
        self.all.iter()
    }
}
