//! Pools that were open before, in a session that this coordinator does not know or has given up.
//!
//! Their clients send again what they still want. It is kept, and the core hears nothing of it, until all of it is here and
//! all agents are back at which the pool ran; or until the recovery time is over, and whoever is not back is not waited for.
//! Then the core is told everything in one go: the pool with the places where it is held, jobs and items, and which of them are
//! at agents. So nothing is handed out a second time that an agent still has.

use std::collections::VecDeque;
use std::time::Duration;

use farpool_core::{Event, JobId, JobPolicy, Labels, PoolId};

use crate::AgentId;
use crate::coordinator::Coordinator;
use crate::follow::Report;
use crate::ids::Identity;
use crate::outbox::Outbox;
use crate::pools::Pool;

/// What the core will be told of a pool, beside the items in the stores of its jobs.
pub(crate) struct Reopening {
    require: Labels,
    /// The agents that it ran at, as far as its client knows.
    agents: Vec<Identity>,
    /// Those of them that hold it.
    held_at: Vec<AgentId>,
    jobs: Vec<NewJob>,
    /// Whether the client has sent all that it still wants.
    complete: bool,
    /// The recovery time is over.
    overdue: bool,
}

/// A job, as the core is told of it.
pub(crate) struct NewJob {
    job: JobId,
    policy: JobPolicy,
    require: Labels,
    /// Items before this one may have been at a coordinator before this one, and at agents. The others never left the client.
    said_again_to: u64,
}

impl NewJob {
    pub(crate) fn new(job: JobId, policy: JobPolicy, require: Labels) -> Self {
        Self { job, policy, require, said_again_to: 0 }
    }
}

impl Reopening {
    pub(crate) fn new(agents: Vec<Identity>, require: Labels) -> Self {
        Self { require, agents, held_at: Vec::new(), jobs: Vec::new(), complete: false, overdue: false }
    }

    pub(crate) fn add(&mut self, job: NewJob) {
        self.jobs.push(job);
    }

    /// Stops retries of a job that the core does not know yet.
    pub(crate) fn stop_retries(&mut self, id: JobId) {
        for new in self.jobs.iter_mut().filter(|new| new.job == id) {
            (new.policy.retry_panics, new.policy.retry_failed) = (false, false);
        }
    }

    /// Whether the agent goes on with it, of which the client knows.
    pub(crate) fn is_held_at(&self, agent: AgentId) -> bool {
        self.held_at.contains(&agent)
    }

    /// Whether more comes that no window bounds.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }
}

impl Pool {
    /// Whether the core does not know of it yet.
    pub(crate) fn is_reopening(&self) -> bool {
        self.reopening.is_some()
    }
}

impl Coordinator {
    /// The client has sent all that it still wants. False: its pool was not open before, or that was said already.
    pub(crate) fn pool_is_complete(&mut self, id: PoolId, out: &mut Outbox) -> bool {
        let reopening = self.pools.get_mut(id).and_then(|pool| pool.reopening.as_mut());
        let Some(reopening) = reopening.filter(|reopening| !reopening.complete) else { return false };
        reopening.complete = true;
        for new in &mut reopening.jobs {
            new.said_again_to = self.jobs.get(new.job).map_or(0, |job| job.store.next());
        }
        self.reopen(id, out);
        self.review(id, out);
        true
    }

    /// Agents have come: some pools may have waited for them.
    pub(crate) fn reopen_all(&mut self, out: &mut Outbox) {
        let waiting = self.pools.iter().filter(|(_, pool)| pool.is_reopening());
        let waiting: Vec<PoolId> = waiting.map(|(id, _)| id).collect();
        waiting.into_iter().for_each(|id| self.reopen(id, out));
    }

    /// How many agents at which the pool ran are not back.
    pub(crate) fn missing_agents(&self, reopening: &Reopening) -> usize {
        reopening.agents.iter().filter(|agent| !self.agent_ids.contains_key(*agent)).count()
    }

    /// Why a pool does not run yet that was open before.
    pub(crate) fn why_not_reopened(&self, reopening: &Reopening) -> String {
        match self.missing_agents(reopening) {
            _ if !reopening.complete => "the pool is being reopened".to_owned(),
            1 => "the pool is being reopened: 1 agent that ran it is not back yet".to_owned(),
            missing => format!("the pool is being reopened: {missing} agents that ran it are not back yet"),
        }
    }

    /// The client is gone, or wants nothing any more.
    pub(crate) fn abandon_reopening(&mut self, id: PoolId, out: &mut Outbox) {
        let jobs: Vec<JobId> = self.jobs.iter().filter(|(_, job)| job.pool == id).map(|(job, _)| job).collect();
        jobs.into_iter().for_each(|job| self.job_finished(job, true, out));
        if let Some(pool) = self.pools.get_mut(id) {
            pool.reopening = None;
        }
        self.give_up_everywhere(out);
    }

    /// What must happen by now although nothing has come.
    pub(crate) fn look_at_deadlines(&mut self, out: &mut Outbox) {
        while let Some(awaiting) = self.deadlines.take_due(self.now) {
            match awaiting {
                Awaiting::Agents(pool) => {
                    if let Some(reopening) = self.pools.get_mut(pool).and_then(|pool| pool.reopening.as_mut()) {
                        reopening.overdue = true;
                        self.reopen(pool, out);
                    }
                }
                Awaiting::Clients(agent) => self.give_up_held(agent, |_| true, out),
            }
        }
    }

    /// Lets a pool go on if it need not wait any longer.
    fn reopen(&mut self, id: PoolId, out: &mut Outbox) {
        let Some(reopening) = self.pools.get(id).and_then(|pool| pool.reopening.as_ref()) else { return };
        if !reopening.complete || !(reopening.overdue || self.missing_agents(reopening) == 0) {
            return;
        }
        let pool = self.pools.get_mut(id).expect("it was just found");
        // It stays marked until the core knows all of it.
        let reopening = pool.reopening.as_mut().expect("it was just found");
        let (agents, jobs) = (std::mem::take(&mut reopening.agents), std::mem::take(&mut reopening.jobs));
        let (slots, weight, require) = (pool.asked.processes, pool.asked.weight, reopening.require.clone());
        let (paused, key) = (pool.paused, pool.key());
        let mut held = key.map_or_else(Vec::new, |key| self.holders(&key));
        let known: Vec<AgentId> = agents.iter().filter_map(|own| self.agent_ids.get(own).copied()).collect();
        held.retain(|(agent, _)| known.contains(agent));
        if let Some(reopening) = self.pools.get_mut(id).and_then(|pool| pool.reopening.as_mut()) {
            reopening.held_at = held.iter().map(|(agent, _)| *agent).collect();
        }
        self.feed(Event::PoolOpened { pool: id, slots, weight, require, held }, out);
        if paused {
            self.feed(Event::PoolPaused { pool: id, paused }, out);
        }
        // An agent that is back without the pool, or that has no place for it any more, has ended what ran there, which is
        // as bad as if it were not back.
        let goes_on =
            |pool: &Pool, own: &Identity| self.agent_ids.get(own).is_some_and(|agent| pool.at.contains(agent));
        let all_held = self.pools.get(id).is_some_and(|pool| agents.iter().all(|own| goes_on(pool, own)));
        jobs.iter().for_each(|job| self.begin_job(job, out));
        self.finish_adopting(out);
        for NewJob { job, policy, .. } in &jobs {
            if !all_held && policy.retries == 0 && self.jobs.get(*job).is_some() {
                self.core.handle(Event::QueueLost { job: *job }, self.now, &mut self.actions);
                self.follow(Some(Report::NotBack), out);
            }
        }
        jobs.iter().for_each(|job| self.catch_up(job, out));
        // What ran there has its outcomes now.
        for own in agents {
            let runs = |pool: &Pool, agent| pool.at.contains(agent) || pool.unheard.contains_key(agent);
            if !self.agent_ids.get(&own).is_some_and(|agent| self.pools.get(id).is_some_and(|pool| runs(pool, agent))) {
                self.tell_place(id, Some(own), true, out);
            }
        }
        if let Some(pool) = self.pools.get_mut(id) {
            pool.reopening = None;
        }
        self.give_up_everywhere(out);
        self.end_if_done(id, out);
        self.review(id, out);
    }

    /// Tells the core of a job and of those of its items that may be at agents; nothing if it was cancelled meanwhile.
    fn begin_job(&mut self, new: &NewJob, out: &mut Outbox) {
        let NewJob { job: id, policy, said_again_to, .. } = *new;
        let Some(job) = self.jobs.get(id) else { return };
        let opened = Event::JobOpened { job: id, pool: job.pool, policy, require: new.require.clone() };
        self.core.handle(opened, self.now, &mut self.actions);
        self.arrive(id, |first| first < said_again_to);
        self.core.handle(Event::ItemsResent { job: id }, self.now, &mut self.actions);
        self.follow(None, out);
    }

    /// Tells the core what else has come of a job while its pool waited for agents.
    fn catch_up(&mut self, new: &NewJob, out: &mut Outbox) {
        let NewJob { job: id, said_again_to, .. } = *new;
        self.arrive(id, |first| first >= said_again_to);
        self.follow(None, out);
        if self.jobs.get(id).is_some_and(|job| job.input_ended) {
            self.feed(Event::InputEnded { job: id }, out);
        }
    }

    /// Tells the core of those items of a job whose message begins with one of these.
    fn arrive(&mut self, id: JobId, these: impl Fn(u64) -> bool) {
        let Some(job) = self.jobs.get(id) else { return };
        for batch in job.store.batches().filter(|batch| these(batch.first)) {
            let (first, count, bytes) = (batch.first, batch.count, batch.bytes());
            self.core.handle(Event::ItemsArrived { job: id, first, count, bytes }, self.now, &mut self.actions);
        }
    }

    /// A pool has gone on, or is gone: what agents hold of it and it did not adopt is not wanted.
    fn give_up_everywhere(&mut self, out: &mut Outbox) {
        let holding: Vec<AgentId> =
            self.agents.iter().filter(|(_, agent)| !agent.held.is_empty()).map(|(id, _)| id).collect();
        holding.into_iter().for_each(|id| self.give_up_held(id, |_| false, out));
    }
}

/// Who is waited for, and until when.
#[derive(Default)]
pub(crate) struct Deadlines {
    // Rising: all are waited for equally long.
    all: VecDeque<(u64, Awaiting)>,
}

enum Awaiting {
    /// Those at which the pool ran.
    Agents(PoolId),
    /// Those whose pools the agent holds.
    Clients(AgentId),
}

impl Deadlines {
    pub(crate) fn next(&self) -> Option<u64> {
        self.all.front().map(|(at, _)| *at)
    }

    pub(crate) fn wait_for_agents_of(&mut self, pool: PoolId, now: u64, time: Duration) {
        self.wait(Awaiting::Agents(pool), now, time);
    }

    pub(crate) fn wait_for_clients_of(&mut self, agent: AgentId, now: u64, time: Duration) {
        self.wait(Awaiting::Clients(agent), now, time);
    }

    fn wait(&mut self, awaiting: Awaiting, now: u64, time: Duration) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.all.push_back((now.saturating_add(time), awaiting));
    }

    fn take_due(&mut self, now: u64) -> Option<Awaiting> {
        if self.next()? > now {
            return None;
        }
        self.all.pop_front().map(|(_, awaiting)| awaiting)
    }
}
