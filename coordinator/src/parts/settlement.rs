//! Decides which reports agents may forget: those whose outcomes clients have, and those without consequence.
//!
//! An agent numbers its reports of items from the session's start. It keeps each until it is told that the report is
//! settled, so that it can resend it to a new coordinator. A pool remembers in order which reports caused messages to
//! its client that the client may not have. Other reports need no entry: a pool's reports up to some number are settled
//! when no entry has that number or a lower one.

use std::collections::{BTreeMap, VecDeque};

use farpool_core::PoolId;

use crate::AgentId;
use crate::outbox::UNNUMBERED;
use crate::round::ReportId;

/// The agents and places to check at the end of a round.
#[derive(Default)]
pub(crate) struct Settlement {
    /// Agents with reports that had no consequence.
    strays: Vec<AgentId>,
    /// Places whose reports may have been settled.
    places: Vec<(AgentId, PoolId)>,
}

/// Counts the reports of items from an agent.
#[derive(Default)]
pub(crate) struct Reports {
    count: u64,
    /// Whether some reports of this round had no consequence, so that their pool is unknown.
    strays: bool,
}

/// A pool's reports whose outcomes its client may not have, oldest first.
pub(crate) struct Unsettled {
    /// Whether reports are kept, because the pool can be opened again.
    kept: bool,
    entries: VecDeque<UnsettledReports>,
    /// The agents that may keep reports of the pool, including those where it has stopped.
    places: BTreeMap<AgentId, PlaceReports>,
}

/// Consecutive reports of one agent, up to this one.
struct UnsettledReports {
    report: ReportId,
    /// The client's message whose acknowledgement settles it.
    message: u64,
}

/// The reports from one of a pool's places.
#[derive(Default)]
struct PlaceReports {
    /// Number of entries of the place.
    entries: usize,
    /// The number of the last settled report, and of the last one that the agent was told is settled.
    settled: u64,
    told: u64,
    /// Whether it is checked at the end of this round.
    to_settle: bool,
}

impl Settlement {
    /// A report of the agent had no consequence, so its pool is unknown.
    pub(crate) fn note_stray(&mut self, id: AgentId, reports: &mut Reports) {
        if !std::mem::replace(&mut reports.strays, true) {
            self.strays.push(id);
        }
    }

    /// Returns the agents with reports that had no consequence.
    pub(crate) fn take_strays(&mut self) -> Vec<AgentId> {
        std::mem::take(&mut self.strays)
    }

    /// Returns the places whose reports may have been settled.
    pub(crate) fn drain_places(&mut self) -> impl Iterator<Item = (AgentId, PoolId)> {
        self.places.drain(..)
    }
}

impl Reports {
    /// Counts a new report. Returns its number.
    #[inline]
    pub(crate) fn count(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// Returns the number of the last one.
    pub(crate) fn last(&self) -> u64 {
        self.count
    }

    /// Reports without consequence are being handled.
    pub(crate) fn forget_strays(&mut self) {
        self.strays = false;
    }
}

impl Unsettled {
    /// `kept`: whether the pool can be opened again.
    pub(crate) fn new(kept: bool) -> Self {
        Self { kept, entries: VecDeque::new(), places: BTreeMap::new() }
    }

    /// The pool starts at an agent, for the first time or again.
    pub(crate) fn add_place(&mut self, agent: AgentId) {
        self.places.entry(agent).or_default();
    }

    /// The agent is gone, and the reports it kept with it.
    pub(crate) fn forget_place(&mut self, agent: AgentId) {
        self.places.remove(&agent);
    }

    /// Returns the agents that may keep reports.
    pub(crate) fn into_places(self) -> Vec<AgentId> {
        if self.kept { self.places.into_keys().collect() } else { Vec::new() }
    }

    /// The report caused a message to the pool's client.
    #[inline]
    pub(crate) fn caused_message(&mut self, report: ReportId) {
        if !self.kept {
            return;
        }
        if let Some(last) = self.entries.back_mut()
            && (last.report.agent, last.message) == (report.agent, UNNUMBERED)
        {
            last.report = report;
        } else if let Some(place) = self.places.get_mut(&report.agent) {
            place.entries += 1;
            self.entries.push_back(UnsettledReports { report, message: UNNUMBERED });
        }
    }

    /// The client's messages in the outbox have numbers now; the last has this one.
    pub(crate) fn number(&mut self, last: u64) {
        let fresh = self.entries.iter_mut().rev().take_while(|entry| entry.message == UNNUMBERED);
        fresh.for_each(|entry| entry.message = last);
    }

    /// The client has its messages up to this one.
    pub(crate) fn settle_up_to(&mut self, last: u64, id: PoolId, to_settle: &mut Settlement) {
        while self.entries.front().is_some_and(|entry| entry.message <= last) {
            let Some(UnsettledReports { report, .. }) = self.entries.pop_front() else { break };
            // If the agent is gone, it no longer keeps the report.
            let Some(place) = self.places.get_mut(&report.agent) else { continue };
            place.entries -= 1;
            place.settled = report.number;
            place.note((report.agent, id), to_settle);
        }
    }

    /// The client is gone, so its messages are no longer needed.
    pub(crate) fn settle_all(&mut self, id: PoolId, to_settle: &mut Settlement) {
        if !self.kept {
            return;
        }
        self.entries.clear();
        for (&agent, place) in &mut self.places {
            place.entries = 0;
            place.note((agent, id), to_settle);
        }
    }

    /// A report from the agent belonged to the pool and caused no message to the client.
    pub(crate) fn caused_no_message(&mut self, agent: AgentId, id: PoolId, to_settle: &mut Settlement) {
        if let Some(place) = self.places.get_mut(&agent) {
            place.note((agent, id), to_settle);
        }
    }

    /// A report from the agent may have belonged to the pool and caused no message to the client.
    pub(crate) fn may_have_caused_no_message(&mut self, agent: AgentId, id: PoolId, to_settle: &mut Settlement) {
        if self.kept {
            self.caused_no_message(agent, id, to_settle);
        }
    }

    /// Returns the last settled report, if the agent must still be told of it. `reports`: how many the agent has sent.
    pub(crate) fn settle(&mut self, agent: AgentId, reports: u64) -> Option<u64> {
        let place = self.places.get_mut(&agent)?;
        place.to_settle = false;
        if place.entries == 0 {
            place.settled = reports;
        }
        let is_news = place.settled > place.told;
        place.told = place.told.max(place.settled);
        is_news.then_some(place.settled)
    }
}

impl PlaceReports {
    fn note(&mut self, place: (AgentId, PoolId), to_settle: &mut Settlement) {
        if !std::mem::replace(&mut self.to_settle, true) {
            to_settle.places.push(place);
        }
    }
}
