//! What agents do, except for their reports of items.

use std::collections::{BTreeMap, HashSet};

use farpool_core::{Action, AgentId, Event, Id, Labels};

use super::{FakeAgent, FakeChunk, Outcome, World};

impl World {
    pub(crate) fn join(&mut self, slots: u32, credit: u32) -> u32 {
        self.join_with(slots, credit, &[])
    }

    pub(crate) fn join_with(&mut self, slots: u32, credit: u32, labels: &[u32]) -> u32 {
        self.enter(FakeAgent {
            id: AgentId::new(0, 0),
            credit,
            credit_bytes: 0,
            slots,
            labels: labels.to_vec(),
            draining: false,
            places: BTreeMap::new(),
            chunks: Vec::new(),
            held_places: BTreeMap::new(),
            held_chunks: Vec::new(),
            knows: HashSet::new(),
        })
    }

    /// The agent says hello, but not yet whether it is leaving.
    pub(crate) fn enter(&mut self, agent: FakeAgent) -> u32 {
        // Indices are used again, as in a caller's slab.
        let place = (0..).find(|place| !self.agents.contains_key(place)).expect("there is always a place");
        let generation = self.generations.entry(place).or_insert(0);
        *generation += 1;
        let id = AgentId::new(place, *generation);
        let FakeAgent { slots, credit, credit_bytes, .. } = agent;
        let labels = Labels::new(agent.labels.iter().copied());
        self.agents.insert(place, FakeAgent { id, credit: 0, draining: false, ..agent });
        self.send(Event::AgentJoined { agent: id, slots, labels });
        self.credit_bytes(place, credit, credit_bytes);
        place
    }

    pub(crate) fn credit(&mut self, agent: u32, chunks: u32) {
        self.credit_bytes(agent, chunks, 0);
    }

    pub(crate) fn credit_bytes(&mut self, agent: u32, chunks: u32, bytes: u64) {
        let fake = self.agents.get_mut(&agent).expect("the agent exists");
        (fake.credit, fake.credit_bytes) = (chunks, bytes);
        let id = fake.id;
        self.send(Event::AgentCredit { agent: id, chunks, bytes });
    }

    /// The agent answers that the pool runs there.
    pub(crate) fn started(&mut self, agent: u32, pool: u32) {
        let fake = self.agents.get_mut(&agent).expect("the agent exists");
        let place = fake.places.get_mut(&pool).expect("the agent was told to start the pool");
        (place.started, place.unhealthy) = (true, false);
        let (agent, pool) = (fake.id, self.pools[&pool].id);
        self.send(Event::PlaceStarted { pool, agent });
    }

    /// The pool's workers die at the agent before they can serve.
    pub(crate) fn set_place_unhealthy(&mut self, agent: u32, pool: u32) -> Vec<Action> {
        self.some_were_unhealthy = true;
        let fake = self.agents.get_mut(&agent).expect("the agent exists");
        fake.places.get_mut(&pool).expect("the agent was told to start the pool").unhealthy = true;
        let (agent, pool) = (fake.id, self.pools[&pool].id);
        self.send(Event::PlaceUnhealthy { pool, agent })
    }

    /// The agent answers that the pool has stopped there.
    pub(crate) fn stopped(&mut self, agent: u32, pool: u32) {
        let fake = self.agents.get_mut(&agent).expect("the agent exists");
        fake.places.remove(&pool).filter(|place| place.stopping).expect("the agent was told to stop the pool");
        // With the pool it forgets its jobs.
        let jobs = &self.jobs;
        fake.knows.retain(|job| jobs.get(&job.index()).is_none_or(|job| job.pool != pool));
        let (agent, pool) = (fake.id, self.pools[&pool].id);
        self.send(Event::PlaceStopped { pool, agent });
    }

    /// The agent answers that the pool cannot run there.
    pub(crate) fn unfit(&mut self, agent: u32, pool: u32) -> Vec<Action> {
        let fake = self.agents.get_mut(&agent).expect("the agent exists");
        fake.places.get_mut(&pool).expect("the agent was told to start the pool").unfit = true;
        let agent = fake.id;
        let gone: Vec<FakeChunk> = fake.chunks.extract_if(.., |chunk| chunk.pool == pool).collect();
        for chunk in gone {
            let items = &mut self.jobs.get_mut(&chunk.job).expect("the job exists").items;
            let held = items.iter_mut().filter(|(index, item)| chunk.left.contains(index) && item.outcome.is_none());
            held.for_each(|(_, item)| item.has_not_begun());
        }
        let pool = self.pools[&pool].id;
        self.send(Event::PlaceUnfit { pool, agent })
    }

    /// Workers die there from now on, or no longer do.
    pub(crate) fn unhealthy(&mut self, agent: u32, unhealthy: bool) -> Vec<Action> {
        self.some_were_unhealthy |= unhealthy;
        let agent = self.agents[&agent].id;
        self.send(Event::AgentHealthChanged { agent, unhealthy })
    }

    /// The agent is leaving: it will give back what has not begun.
    pub(crate) fn drain_agent(&mut self, agent: u32) -> Vec<Action> {
        let fake = self.agents.get_mut(&agent).expect("the agent exists");
        fake.draining = true;
        let id = fake.id;
        self.send(Event::AgentDraining { agent: id })
    }

    pub(crate) fn lose(&mut self, agent: u32) {
        self.remove_agent(agent);
    }

    /// The core considers the agent lost. Returns it, in case it reconnects.
    pub(crate) fn remove_agent(&mut self, agent: u32) -> FakeAgent {
        let gone = self.agents.remove(&agent).expect("the agent exists");
        // The records first: its items are now at no agent, and the first unfinished item of each chunk was running.
        let mut must_fail = Vec::new();
        for chunk in &gone.chunks {
            let wanted: Vec<u64> = self.wanted(chunk).collect();
            let job = self.jobs.get_mut(&chunk.job).expect("the job exists");
            let at_most_once = job.policy.retries == 0;
            for (at, item) in wanted.iter().enumerate() {
                let state = job.items.get_mut(item).expect("the item has arrived");
                state.copies -= 1;
                if state.copies == 0 && (at_most_once || at == 0) {
                    state.faults += 1;
                }
                if state.faults > job.policy.retries {
                    must_fail.push((chunk.job, *item, state.faults));
                }
            }
        }
        self.send(Event::AgentLost { agent: gone.id });
        for (job, item, attempts) in must_fail {
            let outcome = self.jobs[&job].items[&item].outcome;
            assert_eq!(outcome, Some(Outcome::Failed { attempts, lost: true }), "item {item} of job {job}");
        }
        gone
    }
}
