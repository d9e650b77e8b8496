//! Agents reconnect with the chunks that they hold, while the core does not know them.

use std::num::NonZeroU32;

use farpool_core::{AgentId, ChunkId, Claim, Core, Event, Id, JobId, Labels, PoolId, Run};

use super::{FakeAgent, FakeChunk, FakePlace, World, runs};

/// When an agent reconnects after the core was restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    InTime,
    Late,
    Never,
}

impl World {
    /// The core considers the agent lost, but the agent keeps running its chunks and will reconnect.
    pub(crate) fn give_up(&mut self, agent: u32) {
        let gone = self.remove_agent(agent);
        self.away.push(gone.with_all_held());
    }

    /// An agent that was considered lost reconnects.
    pub(crate) fn reconnect(&mut self, at: usize) -> u32 {
        let gone = self.away.remove(at);
        let drains = gone.draining;
        let agent = self.enter(gone);
        let held = std::mem::take(&mut self.agent_at(agent).held_chunks);
        for chunk in held {
            if self.agents[&agent].places.get(&chunk.pool).is_some_and(FakePlace::can_adopt) {
                self.claim(agent, chunk);
            }
        }
        self.agent_at(agent).held_places.clear();
        if drains {
            self.drain_agent(agent);
        }
        agent
    }

    /// The core is restarted and told what clients and agents still know. `fates`: one for each agent in turn.
    pub(crate) fn restart(&mut self, fates: &[Fate]) {
        self.core = Core::new(self.config.clone());
        (self.stale_expected, self.life) = (0, self.life + 1);
        self.chunks_seen.clear();
        self.cancelled.clear();
        let pools = std::mem::take(&mut self.pools);
        let before = self.agents.len();
        let mut fates = fates.iter().copied().cycle();
        for agent in std::mem::take(&mut self.agents).into_values() {
            let agent = agent.with_all_held();
            match fates.next().unwrap_or(Fate::InTime) {
                Fate::InTime => {
                    let drains = agent.draining;
                    let agent = self.enter(agent);
                    if drains {
                        self.drain_agent(agent);
                    }
                }
                Fate::Late => self.away.push(agent),
                Fate::Never => {}
            }
        }
        let mut all_back = self.agents.len() == before && self.away.is_empty();
        for (number, pool) in pools {
            let (id, slots, paused) = (pool.id, NonZeroU32::new(pool.limit), pool.paused);
            let require = Labels::new(pool.require.iter().copied());
            self.pools.insert(number, pool);
            let held =
                self.agents.values().filter_map(|agent| Some((agent.id, agent.held_places.get(&number)?.workers)));
            let held = held.collect();
            self.send(Event::PoolOpened { pool: id, slots, weight: 1, require, held });
            // Where no worker is left for the pool, it is stopped together with what it holds.
            let left_out = self.agents.values_mut().filter_map(|agent| agent.held_places.remove(&number)).count();
            all_back &= left_out == 0;
            if paused {
                self.pause(number, true);
            }
            self.reopen_jobs(number);
            self.claim_all(number);
            if !all_back {
                self.fail_queues(number);
            }
        }
    }

    /// Opens the jobs of a pool again, with the items that have no outcome.
    fn reopen_jobs(&mut self, pool: u32) {
        let open = self.jobs.iter_mut().filter(|(_, job)| job.pool == pool && job.finished.is_none());
        let mut events = Vec::new();
        for (&number, job) in open {
            job.id = JobId::new(number, self.life);
            let (id, policy, item_bytes) = (job.id, job.policy, job.item_bytes);
            let require = Labels::new(job.require.iter().copied());
            events.push(Event::JobOpened { job: id, pool: self.pools[&pool].id, policy, require });
            let left: Vec<u64> =
                job.items.iter().filter(|(_, item)| item.outcome.is_none()).map(|(&index, _)| index).collect();
            for index in &left {
                let item = job.items.get_mut(index).expect("the item was just found");
                (item.faults, item.copies, item.was_handed_out) = (0, 0, false);
            }
            let arrive = |(first, count)| Event::ItemsArrived { job: id, first, count, bytes: count * item_bytes };
            events.extend(runs(&left).into_iter().map(arrive));
            job.resent_to = left.last().map_or(0, |last| last + 1);
            events.push(Event::ResendComplete { job: id });
            if job.ended {
                events.push(Event::InputEnded { job: id });
            }
        }
        events.into_iter().for_each(|event| drop(self.send(event)));
    }

    /// Agents claim what they hold of a pool, each agent's oldest first.
    fn claim_all(&mut self, pool: u32) {
        let mut all = Vec::new();
        for (&number, agent) in &mut self.agents {
            let chunks = agent.held_chunks.extract_if(.., |chunk| chunk.pool == pool);
            all.extend(chunks.enumerate().map(|(at, chunk)| (at, number, chunk)));
        }
        all.sort_by_key(|&(at, number, _)| (at, number));
        for (_, agent, chunk) in all {
            if self.agents[&agent].places.get(&pool).is_some_and(FakePlace::can_adopt) {
                self.claim(agent, chunk);
            }
        }
    }

    /// The agent claims the chunk.
    fn claim(&mut self, agent: u32, chunk: FakeChunk) {
        let job = &self.jobs[&chunk.job];
        let held = runs(&chunk.left);
        let (mut adopted, mut attempt) = (Vec::new(), 1);
        for &(first, count) in held.iter().filter(|_| job.finished.is_none()) {
            let mut items = (first..first + count).map(|item| (item, &job.items[&item]));
            let lowest = adopted.is_empty();
            let is_queued = items.all(|(index, item)| {
                let tried_in_front = index == first && lowest;
                item.outcome.is_none() && item.copies == 0 && (item.faults == 0 || tried_in_front)
            });
            if !is_queued {
                continue;
            }
            if lowest {
                let next = job.items[&first].faults + 1;
                attempt = if first == chunk.first { next.max(chunk.attempt) } else { next };
            }
            adopted.extend(first..first + count);
        }
        let (job, agent_id) = (job.id, self.agents[&agent].id);
        let (first, claimed, nothing) = (chunk.first, chunk.attempt, adopted.is_empty());
        let runs = held.into_iter().map(|(first, count)| Run::new(first, count)).rev().collect();
        let held = Claim { agent: agent_id, job, first, attempt: claimed, runs };
        let found = self.adopt_chunk(held);
        assert_eq!(found.is_none(), nothing);
        self.stale_expected += u64::from(nothing);
        if let Some((name, found)) = found {
            assert!(self.chunks_seen.insert(name), "{name:?} existed before");
            assert_eq!(found, attempt);
            self.note_adopted(agent, chunk, adopted, name, attempt);
        }
        self.check_after();
    }

    /// Queued items of jobs that run items at most once may have run at an agent that did not reconnect.
    fn fail_queues(&mut self, pool: u32) {
        let open = self.jobs.values_mut().filter(|job| job.pool == pool && job.finished.is_none());
        let mut lost = Vec::new();
        for job in open.filter(|job| job.policy.retries == 0) {
            for item in job.items.values_mut().filter(|item| item.outcome.is_none() && item.copies == 0) {
                (item.faults, item.was_handed_out) = (1, true);
            }
            lost.push(job.id);
        }
        for job in lost {
            self.send(Event::FailQueued { job });
            let queued = self.core.progress(job).map_or(0, |progress| progress.queued);
            assert_eq!(queued, 0, "an item that may have run is queued");
        }
    }

    /// Whether the agent that is told to start the pool runs it already.
    pub(super) fn told_to_resume(&mut self, agent: AgentId, pool: PoolId) -> bool {
        self.agent_at(agent.index()).held_places.remove(&pool.index()).is_some()
    }

    /// Adopts a chunk; no other action may follow.
    fn adopt_chunk(&mut self, held: Claim) -> Option<(ChunkId, u32)> {
        self.now += 1000;
        let mut actions = Vec::new();
        let adopted = self.core.adopt_chunk(held, self.now, &mut actions);
        assert_eq!(actions, []);
        adopted
    }

    fn note_adopted(&mut self, agent: u32, chunk: FakeChunk, adopted: Vec<u64>, name: ChunkId, attempt: u32) {
        let fake = self.jobs.get_mut(&chunk.job).expect("the job exists");
        for index in &adopted {
            let item = fake.items.get_mut(index).expect("the item has arrived");
            (item.copies, item.was_handed_out) = (1, true);
            assert!(item.begun == 1 || fake.policy.retries > 0, "item {index} may run twice");
        }
        fake.items.get_mut(&adopted[0]).expect("the item has arrived").faults = attempt - 1;
        self.adopted += 1;
        let job = fake.id;
        let agent = self.agent_at(agent);
        agent.knows.insert(job);
        let (asked_back, overtaken) = (false, false);
        let chunk = FakeChunk { id: name, attempt, first: adopted[0], left: adopted, asked_back, overtaken, ..chunk };
        agent.chunks.push(chunk);
    }
}

impl FakeAgent {
    /// It will claim what it holds now.
    fn with_all_held(mut self) -> Self {
        self.knows.clear();
        let started = |place: &FakePlace| place.started && !place.unfit && !place.stopping;
        self.held_places = std::mem::take(&mut self.places).into_iter().filter(|(_, place)| started(place)).collect();
        // If they still are unhealthy, they report it after the adoption.
        self.held_places.values_mut().for_each(|place| place.unhealthy = false);
        self.held_chunks = std::mem::take(&mut self.chunks);
        self
    }
}

impl FakePlace {
    fn can_adopt(&self) -> bool {
        self.resumed && !self.stopping
    }
}
