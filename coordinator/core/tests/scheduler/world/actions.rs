//! Compares the core's actions with the records.

use std::collections::BTreeMap;

use farpool_core::{Action, AgentId, Cause, Id, JobId};

use super::{FakeAgent, FakeChunk, FakeJob, FakePlace, FakePool, Outcome, World};

impl World {
    pub(super) fn apply(&mut self, action: Action) {
        self.log.push(action);
        match action {
            Action::StartPool { agent, pool, workers } => {
                let resumed = self.told_to_resume(agent, pool);
                let fake = self.agent(agent);
                let place = FakePlace {
                    workers: workers.map_or(fake.slots, Into::into),
                    started: false,
                    unhealthy: false,
                    unfit: false,
                    stopping: false,
                    resumed,
                };
                assert!(place.workers <= fake.slots);
                let known = fake.places.insert(pool.index(), place);
                assert!(known.is_none(), "{agent:?} was told of {pool:?} twice");
                assert!(!fake.draining || resumed, "{agent:?} leaves");
                let fake = &self.agents[&agent.index()];
                let FakePool { require, limit, .. } = &self.pools[&pool.index()];
                assert!(require.iter().all(|label| fake.labels.contains(label)), "{pool:?} may not run there");
                assert_eq!(workers.is_some(), *limit > 0);
                self.to_start.push((agent.index(), pool.index(), resumed));
            }
            Action::ResizePool { agent, pool, workers } => {
                let fake = self.agent(agent);
                assert!(!fake.draining && workers.get() <= fake.slots);
                let place = fake.places.get_mut(&pool.index()).expect("the agent knows the pool");
                assert!(!place.unfit && place.workers < workers.get());
                place.workers = workers.get();
            }
            Action::StopPool { agent, pool } => {
                let fake = self.agent(agent);
                assert_eq!(fake.held_of(pool.index()), 0, "the agent still holds something");
                let place = fake.places.get_mut(&pool.index()).expect("the agent knows the pool");
                assert!(!std::mem::replace(&mut place.stopping, true) && !place.unfit && !fake.draining);
                self.to_stop.push((agent.index(), pool.index()));
            }
            Action::StartJob { agent, job } => {
                assert!(self.agent(agent).knows.insert(job), "{agent:?} was told of {job:?} twice");
            }
            Action::EndJob { agent, job, .. } => {
                assert!(self.agent(agent).knows.remove(&job), "{agent:?} never knew {job:?}");
            }
            Action::Assign { agent, chunk, job, first, count, attempt } => {
                assert!(self.chunks_seen.insert(chunk), "{chunk:?} existed before");
                let items = first..first + count;
                let copied = self.job(job).items[&first].copies > 0;
                if copied {
                    self.expect_copy(agent, job, items.clone());
                }
                self.job(job).hand_out(items.clone(), attempt, copied);
                let (number, pool) = (job.index(), self.jobs[&job.index()].pool);
                let (fake, state) = (&self.agents[&agent.index()], &self.jobs[&number]);
                assert!(self.takes(fake, state), "{agent:?} cannot take a chunk of {job:?}");
                let bytes = self.config.chunk_target_bytes.max(state.item_bytes);
                assert!(state.policy.chunksize.is_some() || count * state.item_bytes <= bytes, "a chunk of {count}");
                let fake = self.agent(agent);
                assert!(fake.knows.contains(&job), "{agent:?} does not know {job:?}");
                let left = items.collect();
                let (asked_back, overtaken) = (false, false);
                fake.chunks.push(FakeChunk {
                    id: chunk,
                    job: number,
                    pool,
                    attempt,
                    first,
                    left,
                    asked_back,
                    overtaken,
                });
            }
            Action::Retract { agent, chunk } => {
                let fake = self.agent(agent);
                let waits_for_slot = fake.chunks.len() > fake.slots as usize;
                let counts: BTreeMap<u32, u32> = fake.places.keys().map(|&pool| (pool, fake.held_of(pool))).collect();
                let chunk = fake.chunks.iter_mut().find(|held| held.id == chunk).expect("the agent holds the chunk");
                assert!(!std::mem::replace(&mut chunk.asked_back, true), "asked twice");
                let (job, pool, splits) = (chunk.job, chunk.pool, chunk.left.len() > 1);
                assert!(!chunk.overtaken);
                let waits_for_worker = counts[&pool] > fake.places[&pool].workers;
                let job = &self.jobs[&job];
                let splits = splits && job.policy.chunksize.is_none();
                assert!(waits_for_slot || waits_for_worker || splits, "{agent:?} has nothing to spare");
                let idles = |other: &FakeAgent| other.chunks.len() < other.slots as usize && other.id != agent;
                let runs = self.agents.values().any(|other| idles(other) && self.takes(other, job));
                assert!(runs, "a chunk was asked back that can run nowhere else");
                assert!(!self.pools[&pool].paused);
            }
            Action::CancelChunk { agent, chunk } => {
                assert!(self.cancelled.insert(chunk), "cancelled twice");
                let chunks = &mut self.agent(agent).chunks;
                // Otherwise the agent has reported all of it, and some of that was too late.
                if let Some(at) = chunks.iter().position(|held| held.id == chunk) {
                    let chunk = chunks.remove(at);
                    assert!(chunk.overtaken && self.wanted(&chunk).next().is_none(), "cancelled too early");
                }
            }
            Action::Accept { job, first, count, attempts } => {
                let items = &self.job(job).items;
                for (index, item) in items.range(first..first + count) {
                    assert_eq!(item.faults + 1, attempts, "item {index} was tried that often");
                }
                self.settle(job, first..first + count, Outcome::Done);
            }
            Action::Fail { job, first, count, attempts, cause } => {
                let lost = cause == Cause::AgentLost;
                self.settle(job, first..first + count, Outcome::Failed { attempts, lost });
            }
            Action::Retrying { job, item, attempt } => {
                assert_eq!(self.job(job).items[&item].faults + 1, attempt);
            }
            Action::JobFinished { job, cancelled } => {
                assert!(self.finished.insert(job), "{job:?} finished twice");
                assert!(self.agents.values().all(|agent| !agent.knows.contains(&job)), "an agent was not told");
                let job = self.job(job);
                job.finished = Some(cancelled);
                let all = job.items.values().all(|item| item.outcome.is_some());
                assert!(cancelled || all && job.ended, "a job finished before its items");
            }
        }
    }

    /// The items have their outcome. Any other agent that holds some of them was too late.
    fn settle(&mut self, job: JobId, items: std::ops::Range<u64>, outcome: Outcome) {
        self.job(job).settle(items.clone(), outcome);
        let chunks = self.agents.values_mut().flat_map(|agent| &mut agent.chunks);
        for chunk in chunks.filter(|chunk| chunk.job == job.index()) {
            chunk.overtaken |= chunk.left.iter().any(|item| items.contains(item));
        }
    }

    /// Checks that a copy may be made: nothing else could be done for the job, and one other agent holds all these
    /// items.
    fn expect_copy(&mut self, to: AgentId, id: JobId, items: std::ops::Range<u64>) {
        self.copies += 1;
        let number = id.index();
        let job = &self.jobs[&number];
        assert!(job.policy.speculate && job.policy.retries > 0 && !job.must_be_handed_out());
        assert!(job.items[&items.start].faults < job.policy.retries, "tried too often");
        let holds = |chunk: &&FakeChunk| chunk.job == number && chunk.left.contains(&items.start);
        let mut holders =
            self.agents.values().flat_map(|agent| agent.chunks.iter().map(move |chunk| (agent.id, chunk)));
        let (holder, chunk) = holders.find(|(_, chunk)| holds(chunk)).expect("an agent holds the chunk");
        assert!(holder != to && !chunk.asked_back && self.wanted(chunk).all(|item| job.items[&item].copies == 1));
        assert!(items.clone().all(|item| chunk.left.contains(&item)), "a copy of two chunks");
    }

    fn agent(&mut self, id: AgentId) -> &mut FakeAgent {
        self.agents.get_mut(&id.index()).filter(|agent| agent.id == id).expect("the action is for an existing agent")
    }

    fn job(&mut self, id: JobId) -> &mut FakeJob {
        self.jobs.get_mut(&id.index()).filter(|job| job.finished.is_none()).expect("the action is about an open job")
    }
}
