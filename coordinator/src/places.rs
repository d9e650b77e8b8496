//! Where pools run: what agents are told and say of it, and what clients learn.

use std::num::NonZeroU32;

use bytes::Bytes;

use farpool_core::{Event, PoolId};
use farpool_proto::v1::{
    AdoptPool, Failure, FailureKind, PoolAt, PoolOpened, ResizePool, StartPool, StopPool, Waiting, agent_command,
    client_event,
};

use crate::AgentId;
use crate::agents::Agent;
use crate::convert::{HeldPool, Hello};
use crate::coordinator::Coordinator;
use crate::ids::Identity;
use crate::labels::in_words;
use crate::outbox::Outbox;
use crate::pools::Pool;

/// What a client was told last of where its pool runs.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Workers that it may have at once; 0: nothing can run.
    pub(crate) slots: u32,
    /// Why nothing can run; empty: something can, or nothing was said yet.
    pub(crate) waiting: String,
}

impl Coordinator {
    pub(crate) fn start_pool(&mut self, agent: AgentId, id: PoolId, workers: Option<NonZeroU32>, out: &mut Outbox) {
        // What the core has asked for in one go may begin with the pool's end: everybody was told of that.
        let Some(pool) = self.pools.get(id).filter(|pool| pool.runs()) else { return };
        let (own, place) = (pool.key(), self.agents.get(agent).and_then(|agent| agent.identity()));
        let has_client = self.clients.get(pool.client).is_some();
        let must_hear = has_client && place.is_some() && pool.must_hear_of(agent);
        let held = own.and_then(|own| self.take_held(agent, &own));
        self.tell_place(id, place, false, out);
        self.to_review.push(id);
        match self.pools.get_mut(id) {
            Some(pool) if must_hear => pool.await_hearing(agent, workers, held),
            _ => self.begin_place(agent, id, workers, held, out),
        }
    }

    /// Has an agent start the pool, or go on with what it holds of it.
    pub(crate) fn begin_place(
        &mut self,
        agent: AgentId,
        id: PoolId,
        workers: Option<NonZeroU32>,
        held: Option<HeldPool>,
        out: &mut Outbox,
    ) {
        let Some(pool) = self.pools.get_mut(id) else { return };
        pool.at.insert(agent);
        pool.unsettled.add_place(agent);
        let (own, weight) = (pool.asked.id, pool.asked.weight);
        let processes = workers.map_or(0, NonZeroU32::get);
        if let Some(held) = held {
            let (held_as, pool) = (held.number, id.to_bits());
            let adopt = AdoptPool { held: held_as, pool, processes, weight, ..AdoptPool::default() };
            self.begin_to_adopt(agent, id, held, adopt, out);
        } else if let Some(pool) = self.pools.get(id) {
            let start = StartPool {
                pool: id.to_bits(),
                processes,
                settings: Some(pool.asked.settings.clone()),
                program: pool.asked.program.as_ref().map(|program| program.packed.clone()).unwrap_or_default(),
                weight,
                id: own.map_or_else(Bytes::new, |id| Bytes::copy_from_slice(&id)),
                owner: own.map(|_| pool.owner().to_message()),
            };
            out.agent(agent, agent_command::Body::StartPool(Box::new(start)));
        }
    }

    /// Tells the client at which agent its pool runs from now on, or does not any more: if it opens the pool again, it says
    /// who must be waited for.
    pub(crate) fn tell_place(&self, id: PoolId, agent: Option<Identity>, gone: bool, out: &mut Outbox) {
        let known = |pool: &&Pool| pool.runs() && pool.asked.id.is_some() && self.clients.get(pool.client).is_some();
        if let (Some(pool), Some(agent)) = (self.pools.get(id).filter(known), agent) {
            let at = PoolAt { agent: Bytes::copy_from_slice(&agent), gone };
            out.client(pool.client, client_event::Body::PoolAt(at));
        }
    }

    pub(crate) fn resize_pool(&mut self, agent: AgentId, id: PoolId, workers: NonZeroU32, out: &mut Outbox) {
        self.to_review.push(id);
        if self.pools.get_mut(id).is_some_and(|pool| pool.resize_unheard(agent, workers)) {
            return;
        }
        let resize = ResizePool { pool: id.to_bits(), processes: workers.get() };
        out.agent(agent, agent_command::Body::ResizePool(resize));
    }

    /// The pool's workers there are wanted elsewhere.
    pub(crate) fn give_up_place(&mut self, agent: AgentId, id: PoolId, out: &mut Outbox) {
        if self.withdraw_unheard(agent, id, out) {
            return;
        }
        let Some(pool) = self.pools.get_mut(id) else { return };
        pool.given_up.insert(agent);
        out.agent(agent, agent_command::Body::StopPool(StopPool { pool: id.to_bits(), now: false }));
    }

    pub(crate) fn pool_started(&mut self, from: AgentId, id: PoolId, out: &mut Outbox) {
        let Some(pool) = self.pools.get_mut(id).filter(|pool| pool.runs() && pool.at.contains(&from)) else {
            self.late_messages += 1;
            return;
        };
        pool.proven = true;
        let ailed = pool.ailing.remove(&from).is_some();
        self.feed(Event::PlaceStarted { pool: id, agent: from }, out);
        if ailed {
            self.review(id, out);
        }
    }

    /// The pool's workers die there while other pools can serve: the agent gets no more of its items until it reports that the pool has
    /// started.
    pub(crate) fn pool_ails(&mut self, from: AgentId, id: PoolId, reason: String, out: &mut Outbox) {
        let works = |pool: &&mut Pool| pool.runs() && pool.at.contains(&from) && !pool.unfit.contains_key(&from);
        let Some(pool) = self.pools.get_mut(id).filter(works) else {
            self.late_messages += 1;
            return;
        };
        if pool.ailing.insert(from, reason).is_none() {
            self.feed(Event::PlaceAils { pool: id, agent: from }, out);
            self.review(id, out);
        }
    }

    pub(crate) fn pool_fault(&mut self, from: AgentId, id: PoolId, failure: Failure, out: &mut Outbox) {
        let works = |pool: &&mut Pool| pool.runs() && pool.at.contains(&from) && !pool.unfit.contains_key(&from);
        let Some(pool) = self.pools.get_mut(id).filter(works) else {
            self.late_messages += 1;
            return;
        };
        if !matches!(failure.kind(), FailureKind::ProgramRejected | FailureKind::Unavailable) {
            self.fail_pool(id, failure, out);
            return;
        }
        // Another agent may be able to.
        pool.unfit.insert(from, failure.clone());
        self.feed(Event::PlaceUnfit { pool: id, agent: from }, out);
        if self.core.workers_of(id) == 0 {
            self.fail_pool(id, failure, out);
        } else {
            self.review(id, out);
        }
    }

    /// An agent is gone, and the workers there with it.
    pub(crate) fn leave_pools(&mut self, agent: AgentId, own: Option<Identity>, out: &mut Outbox) {
        let mut all = Vec::new();
        for (id, pool) in self.pools.iter_mut() {
            all.push((id, pool.unheard.remove(&agent).is_some() | pool.at.remove(&agent)));
            pool.unsettled.forget_place(agent);
            pool.unfit.remove(&agent);
            pool.ailing.remove(&agent);
            pool.given_up.remove(&agent);
        }
        for (pool, ran_there) in all {
            if ran_there {
                self.tell_place(pool, own, true, out);
            }
            self.finish_pool(pool, out);
        }
        self.review_all(out);
    }

    /// Agents have come or gone: clients are told what that means for them.
    pub(crate) fn review_all(&mut self, out: &mut Outbox) {
        let all: Vec<PoolId> = self.pools.iter().map(|(id, _)| id).collect();
        for pool in all {
            self.review(pool, out);
        }
    }

    /// Tells the client how many workers its pool may have, or why none, if that is news.
    pub(crate) fn review(&mut self, id: PoolId, out: &mut Outbox) {
        let Some(pool) = self.pools.get(id).filter(|pool| pool.runs()) else { return };
        let slots = u32::try_from(self.core.workers_of(id)).unwrap_or(u32::MAX);
        if slots == 0
            && !pool.proven
            && let Some(failure) = pool.unfit.values().next_back()
        {
            let failure = failure.clone();
            self.fail_pool(id, failure, out);
            return;
        }
        let waiting = if slots == 0 { self.why_nothing_runs(pool) } else { self.why_a_job_waits(id, pool) };
        let ends_waiting = waiting.is_empty() && !pool.told.waiting.is_empty();
        let news = if !waiting.is_empty() {
            (waiting != pool.told.waiting).then(|| client_event::Body::Waiting(Waiting { reason: waiting.clone() }))
        } else {
            let is_news = ends_waiting || slots != pool.told.slots;
            is_news.then_some(client_event::Body::PoolOpened(PoolOpened { slots }))
        };
        let pool = self.pools.get_mut(id).expect("it was just found");
        pool.told = Told { slots, waiting };
        if let Some(news) = news {
            out.client(pool.client, news);
        }
    }

    fn why_nothing_runs(&self, pool: &Pool) -> String {
        if let Some(reopening) = &pool.reopening {
            return self.why_not_reopened(reopening);
        }
        let agents: Vec<(&Agent, &Hello)> =
            self.agents.iter().filter_map(|(_, agent)| Some((agent, agent.hello.as_ref()?))).collect();
        if agents.is_empty() {
            return "no agent is connected".to_owned();
        }
        let staying: Vec<&Hello> =
            agents.iter().filter(|(agent, _)| !agent.draining).map(|(_, hello)| *hello).collect();
        if staying.is_empty() {
            return "all agents are leaving".to_owned();
        }
        let require = &pool.asked.require;
        let fitting = staying.iter().filter(|hello| require.iter().all(|label| hello.labels.contains(label))).count();
        if fitting == 0 {
            return none(staying.len(), "", "has", "does not have") + &in_words(require);
        }
        let with = if require.is_empty() { String::new() } else { format!(" with {}", in_words(require)) };
        match pool.unfit.values().next_back() {
            Some(failure) => {
                let none = none(fitting, &with, "can", "cannot");
                format!("{none}run this program: {}: {}", failure.host, failure.message)
            }
            None => none(fitting, &with, "has", "does not have") + "a free slot for it",
        }
    }

    /// Empty: all jobs can run.
    fn why_a_job_waits(&self, id: PoolId, pool: &Pool) -> String {
        let is_well = |agent: &AgentId| self.agents.get(*agent).is_some_and(|agent| agent.ailing.is_empty());
        if !pool.at.is_empty() && !pool.at.iter().any(is_well) {
            // Not the reason itself, which may change with every worker that dies.
            let are = match pool.at.len() {
                1 => "the only agent that the pool runs on is unhealthy".to_owned(),
                agents => format!("all {agents} agents that the pool runs on are unhealthy"),
            };
            return format!("{are}: `farpool agents` says why");
        }
        let serves = |agent: &AgentId| is_well(agent) && !pool.ailing.contains_key(agent);
        if let Some((agent, reason)) = pool.ailing.first_key_value().filter(|_| !pool.at.iter().any(serves)) {
            let host = self.agents.get(*agent).map_or("", |agent| agent.host());
            return match pool.ailing.len() {
                1 => format!("its workers do not start: {host}: {reason}"),
                agents => format!("its workers do not start on {agents} agents: {host}: {reason}"),
            };
        }
        let Some(job) = self.core.job_without_place(id).and_then(|job| self.jobs.get(job)) else {
            return String::new();
        };
        let name = if job.label.is_empty() { String::new() } else { format!(" {:?}", job.label) };
        let places = pool.at.iter().filter(|agent| !pool.unfit.contains_key(agent)).count();
        let none = none(places, " that the pool runs on", "has", "does not have");
        format!("{none}{}, which the job{name} requires", in_words(&job.require))
    }
}

/// The beginning of a sentence: that so many agents of a kind do not do something.
fn none(agents: usize, kind: &str, does: &str, does_not: &str) -> String {
    match agents {
        1 => format!("the only agent{kind} {does_not} "),
        _ => format!("none of the {agents} agents{kind} {does} "),
    }
}
