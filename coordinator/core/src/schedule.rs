//! Hands out chunks.

use crate::action::Action;
use crate::chunk::{Chunk, Hold, Items, Links, Time};
use crate::core::Core;
use crate::done::Done;
use crate::ids::{AgentId, ChunkId, JobId, ReachId};
use crate::run::Run;

impl Core {
    /// Gives chunks to agents with room, the least loaded first, until no lane has both something to run and an agent
    /// to run it on.
    pub(crate) fn hand_out(&mut self, now: u64, actions: &mut Vec<Action>) {
        while self.fleet.with_room > 0
            && let Some(reach) = self.reaches.first()
        {
            self.refresh(reach);
            let Some((number, _)) = self.reaches.all.get(reach).and_then(|reach| reach.room.first()) else { continue };
            let agent = self.reaches.agent(reach, number).expect("an agent with room is in the reach");
            let lane = self.reaches.first_lane(reach).expect("a reach in the order has a lane to serve");
            let lane = self.lanes.get_at(lane).expect("the lane to serve exists");
            let (job, _) = lane.ready.first().expect("the lane to serve has a job");
            let job = self.jobs.id_at(job).expect("the job to serve is open");
            self.assign(agent, job, now, actions);
        }
    }

    /// Updates the outdated keys of a reach.
    #[inline]
    pub(crate) fn refresh(&mut self, id: ReachId) {
        let Some(reach) = self.reaches.all.get(id) else { return };
        let pool = reach.owner.and_then(|lane| self.lanes.get(lane)).and_then(|lane| self.pools.get(lane.pool));
        while let Some((number, agent_id)) = self.reaches.next_outdated(id) {
            let agent = self.fleet.agents.get_mut(agent_id).expect("an agent in a reach exists");
            let keys = match pool.filter(|pool| pool.limit.is_some()) {
                None => agent.keys(),
                Some(pool) => {
                    let place = pool.places.id_at(agent_id).and_then(|place| pool.places.get(place));
                    place.expect("an agent in a pool's own reach is a place of it").keys(agent)
                }
            };
            self.reaches.update(id, number, &mut agent.reaches, keys);
        }
        if self.reaches.all.get(id).is_some_and(|reach| reach.room.is_empty()) {
            self.reaches.reorder(id);
        }
    }

    #[inline]
    fn assign(&mut self, agent: AgentId, id: JobId, now: u64, actions: &mut Vec<Action>) {
        let job = self.jobs.get_mut(id).expect("a job in the order is open");
        let piece = job.queue.next(job.policy.chunksize).expect("a job in the order has something to run");
        let item_bytes = job.queue.item_bytes();
        let count = if job.policy.chunksize.is_some() {
            piece.run.count
        } else {
            let lane = self.lanes.get(job.lane).expect("the job's lane exists");
            let workers = |reach| self.reaches.all.get(reach).map_or(0, |reach| reach.slots);
            let workers = workers(lane.own) + lane.common.map_or(0, workers);
            let fits = self.config.chunk_target_bytes.checked_div(item_bytes).unwrap_or(u64::MAX).max(1);
            job.pace.size(job.queue.items(), workers).min(piece.run.count).min(fits)
        };
        job.queue.take(count);
        let (run, attempt) = (Run::new(piece.run.first, count), piece.attempt);
        if job.agents.insert(agent) {
            actions.push(Action::StartJob { agent, job: id });
        }
        let items = Items { run, attempt, item_bytes, done: Done::none_of(run), hold: Hold::Assigned };
        let chunk = self.hold((agent, id), items, now);
        actions.push(Action::Assign { agent, chunk, job: id, first: run.first, count, attempt });
    }

    /// Records that the agent holds these items, and charges their job for them.
    #[inline]
    pub(crate) fn hold(&mut self, (agent, id): (AgentId, JobId), items: Items, now: u64) -> ChunkId {
        let Items { run, attempt, item_bytes, done, hold } = items;
        let job = self.jobs.get(id).expect("a chunk's job is open");
        // Before anything is measured, each chunk counts as long as the target.
        let charged_ns = job.pace.expected_ns(done.left()).unwrap_or(self.config.chunk_target_ns);
        let pool = self.pools.get_mut(job.pool).expect("a job's pool is open");
        let place = pool.places.id_at(agent).expect("a pool's chunk goes to a place of it");
        let state = pool.places.get_mut(place).expect("the place was just found");
        state.count += 1;
        if pool.limit.is_some() && state.count > state.workers {
            // It waits for a worker, and one at another place may be free sooner.
            self.reaches.look(self.lanes.get(job.lane).expect("the job's lane exists").own);
        }
        self.served(id, agent, charged_ns);
        let chunk = self.chunks.insert(Chunk {
            job: id,
            place,
            item_bytes,
            agent,
            run,
            attempt,
            hold,
            done,
            time: Time { assigned_at: now, charged_ns, ..Time::default() },
            links: Links::default(),
        });
        self.fleet.hold(chunk, &mut self.chunks, &mut self.reaches);
        chunk
    }
}
