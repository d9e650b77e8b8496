//! One round: the time, the scheduler, the outbox, and notes of further steps.
//!
//! A round handles one message, or hands out what can run. If a step requires another step above it, it notes that here
//! instead of calling it.

use farpool_core::{Action, Cause, ChunkId, Claim, Core, Event, PoolId};
use farpool_proto::v1::{Failure, FailureKind};

use crate::AgentId;
use crate::config::Config;
use crate::convert::Batch;
use crate::outbox::Outbox;

/// The context that every step of a round may use.
pub(crate) struct Round<'a> {
    pub(crate) now: u64,
    pub(crate) config: &'a Config,
    pub(crate) core: &'a mut Core,
    pub(crate) out: &'a mut Outbox,
    notes: &'a mut Notes,
}

/// Notes of further steps. The struct is kept between rounds for its allocations and its count of late messages;
/// nothing else in it outlives a round.
#[derive(Default)]
pub(crate) struct Notes {
    /// Actions of the core.
    actions: Vec<Action>,
    /// Places that the core has given up before they started.
    withdrawn: Vec<Place>,
    /// Places that start by adopting what the agent holds.
    starting: Vec<Place>,
    /// Pools whose last job may have ended.
    to_end: Vec<PoolId>,
    /// Pools whose clients may need a message.
    to_review: Vec<PoolId>,
    late_messages: u64,
}

/// A pool at an agent.
pub(crate) type Place = (PoolId, AgentId);

impl<'a> Round<'a> {
    pub(crate) fn new(
        now: u64,
        config: &'a Config,
        core: &'a mut Core,
        out: &'a mut Outbox,
        notes: &'a mut Notes,
    ) -> Self {
        Self { now, config, core, out, notes }
    }

    /// Sends the core an event. Its actions must be followed.
    #[inline]
    pub(crate) fn send_to_core(&mut self, event: Event) {
        self.core.handle(event, &mut self.notes.actions);
    }

    /// Has the core hand out what can run. Its actions must be followed.
    pub(crate) fn schedule(&mut self) {
        self.core.schedule(self.now, &mut self.notes.actions);
    }

    /// Takes the core's actions. [Give the vector back](Self::reuse) to keep its allocation.
    #[inline]
    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.notes.actions)
    }

    #[inline]
    pub(crate) fn reuse(&mut self, actions: Vec<Action>) {
        debug_assert!(actions.is_empty() && self.notes.actions.is_empty(), "all actions and notes were handled");
        self.notes.actions = actions;
    }

    /// Has the core adopt what an agent holds. Returns the chunk that the agent resumes, and its attempt; `None`:
    /// nothing was adopted.
    pub(crate) fn adopt_chunk(&mut self, claim: Claim) -> Option<(ChunkId, u32)> {
        self.core.adopt_chunk(claim, self.now, &mut self.notes.actions)
    }

    /// Counts a message that came too late.
    pub(crate) fn count_late(&mut self) {
        self.notes.late_messages += 1;
    }

    /// Counts messages that came too late elsewhere.
    pub(crate) fn count_all_late(&mut self, messages: u64) {
        self.notes.late_messages = self.notes.late_messages.saturating_add(messages);
    }

    pub(crate) fn note_withdrawn(&mut self, place: Place) {
        self.notes.withdrawn.push(place);
    }

    #[inline]
    pub(crate) fn next_withdrawn(&mut self) -> Option<Place> {
        self.notes.withdrawn.pop()
    }

    pub(crate) fn note_starting(&mut self, place: Place) {
        self.notes.starting.push(place);
    }

    /// Takes the places that start by adopting what is held there, in the order in which they were noted.
    pub(crate) fn take_starting(&mut self) -> Vec<Place> {
        std::mem::take(&mut self.notes.starting)
    }

    pub(crate) fn note_to_end(&mut self, pool: PoolId) {
        self.notes.to_end.push(pool);
    }

    #[inline]
    pub(crate) fn next_to_end(&mut self) -> Option<PoolId> {
        self.notes.to_end.pop()
    }

    pub(crate) fn note_to_review(&mut self, pool: PoolId) {
        if self.notes.to_review.last() != Some(&pool) {
            self.notes.to_review.push(pool);
        }
    }

    #[inline]
    pub(crate) fn next_to_review(&mut self) -> Option<PoolId> {
        self.notes.to_review.pop()
    }
}

impl Notes {
    pub(crate) fn late_messages(&self) -> u64 {
        self.late_messages
    }

    /// Whether no further steps are noted.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { actions, withdrawn, starting, to_end, to_review, late_messages: _ } = self;
        let places = withdrawn.is_empty() && starting.is_empty();
        actions.is_empty() && places && to_end.is_empty() && to_review.is_empty()
    }
}

/// Details of an event that the core does not know.
pub(crate) struct Report {
    facts: Option<Facts>,
    id: Option<ReportId>,
}

/// What happened to items.
pub(crate) enum Facts {
    Results(Batch),
    Fault(Failure),
    Lost {
        host: String,
    },
    /// An agent that may have run them was missing when their pool was opened again.
    AgentMissing,
}

/// Identifies a report of items. The agent and the coordinator count its number independently.
#[derive(Clone, Copy)]
pub(crate) struct ReportId {
    pub(crate) agent: AgentId,
    pub(crate) number: u64,
}

impl Report {
    /// Nothing happened to items.
    #[inline]
    pub(crate) fn none() -> Self {
        Self { facts: None, id: None }
    }

    /// An agent reports on items. `id`: none if it keeps no reports.
    #[inline]
    pub(crate) fn of_items(facts: Facts, id: Option<ReportId>) -> Self {
        Self { facts: Some(facts), id }
    }

    pub(crate) fn agent_lost(host: String) -> Self {
        Self { facts: Some(Facts::Lost { host }), id: None }
    }

    pub(crate) fn agent_missing() -> Self {
        Self { facts: Some(Facts::AgentMissing), id: None }
    }

    /// Takes the report's id; the caller notes what the report caused.
    #[inline]
    pub(crate) fn take_id(&mut self) -> Option<ReportId> {
        self.id.take()
    }

    /// Takes the results of these items.
    #[inline]
    pub(crate) fn take_results(&mut self, first: u64, count: u64) -> Batch {
        // Nearly always it is the whole report, which is passed on unchanged.
        match self.facts.take() {
            Some(Facts::Results(results)) if results.count == count => results,
            Some(Facts::Results(results)) => {
                let part = results.part(first, count);
                self.facts = Some(Facts::Results(results));
                part
            }
            _ => unreachable!("results are accepted when reported"),
        }
    }

    /// Returns the failure of items for the client.
    pub(crate) fn failure(&self, attempts: u32, cause: Cause) -> Failure {
        match (cause, &self.facts) {
            (Cause::Reported, Some(Facts::Fault(failure))) => Failure { attempts, ..failure.clone() },
            (_, Some(Facts::Lost { host })) => Failure {
                kind: FailureKind::AgentLost.into(),
                message: format!("the agent on host {host} was lost while it had the item"),
                host: host.clone(),
                attempts,
                ..Failure::default()
            },
            (_, Some(Facts::AgentMissing)) => Failure {
                kind: FailureKind::AgentLost.into(),
                message: "an agent that may have run the item did not reconnect after a coordinator restart, and the \
                          item must not run twice"
                    .to_owned(),
                attempts,
                ..Failure::default()
            },
            _ => unreachable!("items fail when a fault is reported or an agent is lost"),
        }
    }
}
