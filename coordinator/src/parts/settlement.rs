//! Which reports agents may forget: those whose outcomes clients have, and those that led to nothing.
//!
//! An agent counts its reports of items, from the session's start, and keeps each until it is told that it is settled: so that
//! it can say it again to a coordinator that does not know it. A pool remembers in order which report led to a message to
//! its client that the client may not have. Reports that led to no message need no entry: a pool's reports up to some number are
//! settled when none of its entries has that number or a lower one.

use std::collections::{BTreeMap, VecDeque};

use farpool_core::PoolId;

use crate::AgentId;
use crate::outbox::UNNUMBERED;
use crate::round::ReportId;

/// What is to be looked at, at the end of a round.
#[derive(Default)]
pub(crate) struct Settlement {
    /// Agents of which reports came to nothing.
    strays: Vec<AgentId>,
    /// Places whose reports may have been settled.
    places: Vec<(AgentId, PoolId)>,
}

/// How many reports of items have come from an agent.
#[derive(Default)]
pub(crate) struct Reports {
    count: u64,
    /// Whether some of them came to nothing in this round, of which it is not known whose they were.
    strays: bool,
}

/// A pool's reports whose outcomes its client may not have, oldest first.
pub(crate) struct Unsettled {
    /// Whether they are kept: the pool can be opened again.
    kept: bool,
    entries: VecDeque<Entry>,
    /// The agents that may keep reports of the pool: also where it has stopped.
    places: BTreeMap<AgentId, PlaceReports>,
}

/// Reports of one agent, one behind the other, up to this one.
struct Entry {
    report: ReportId,
    /// The client's message behind which it is settled.
    message: u64,
}

/// The reports that came from one of a pool's places.
#[derive(Default)]
struct PlaceReports {
    /// Entries of the place.
    entries: usize,
    /// The report up to which all are settled, and the one up to which the agent was told so.
    settled: u64,
    told: u64,
    /// It will be looked at at the end of this round.
    to_settle: bool,
}

impl Settlement {
    /// A report of the agent had no consequence: nobody knows whose it was.
    pub(crate) fn note_stray(&mut self, id: AgentId, reports: &mut Reports) {
        if !std::mem::replace(&mut reports.strays, true) {
            self.strays.push(id);
        }
    }

    /// The agents of which reports came to nothing.
    pub(crate) fn take_strays(&mut self) -> Vec<AgentId> {
        std::mem::take(&mut self.strays)
    }

    /// The places whose reports may have been settled.
    pub(crate) fn drain_places(&mut self) -> impl Iterator<Item = (AgentId, PoolId)> {
        self.places.drain(..)
    }
}

impl Reports {
    /// Another one has come. Returns its number.
    #[inline]
    pub(crate) fn count(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// The number of the last one.
    pub(crate) fn last(&self) -> u64 {
        self.count
    }

    /// Those that came to nothing are being looked at.
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

    /// The agent is gone, and with it what it kept.
    pub(crate) fn forget_place(&mut self, agent: AgentId) {
        self.places.remove(&agent);
    }

    /// The agents that may keep reports.
    pub(crate) fn into_places(self) -> Vec<AgentId> {
        if self.kept { self.places.into_keys().collect() } else { Vec::new() }
    }

    /// The report has led to a message to the pool's client.
    #[inline]
    pub(crate) fn led_on(&mut self, report: ReportId) {
        if !self.kept {
            return;
        }
        if let Some(last) = self.entries.back_mut()
            && (last.report.agent, last.message) == (report.agent, UNNUMBERED)
        {
            last.report = report;
        } else if let Some(place) = self.places.get_mut(&report.agent) {
            place.entries += 1;
            self.entries.push_back(Entry { report, message: UNNUMBERED });
        }
    }

    /// The client's messages that were in the outbox have numbers: the last has this one.
    pub(crate) fn number(&mut self, last: u64) {
        let fresh = self.entries.iter_mut().rev().take_while(|entry| entry.message == UNNUMBERED);
        fresh.for_each(|entry| entry.message = last);
    }

    /// The client has its messages up to this one.
    pub(crate) fn settle_up_to(&mut self, last: u64, id: PoolId, to_settle: &mut Settlement) {
        while self.entries.front().is_some_and(|entry| entry.message <= last) {
            let Some(Entry { report, .. }) = self.entries.pop_front() else { break };
            // If the agent is gone there is nobody who keeps it.
            let Some(place) = self.places.get_mut(&report.agent) else { continue };
            place.entries -= 1;
            place.settled = report.number;
            place.note((report.agent, id), to_settle);
        }
    }

    /// The client is gone, and nobody else wants to hear what it was told.
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

    /// A report from the agent was of the pool, and the client hears nothing of it.
    pub(crate) fn used_up(&mut self, agent: AgentId, id: PoolId, to_settle: &mut Settlement) {
        if let Some(place) = self.places.get_mut(&agent) {
            place.note((agent, id), to_settle);
        }
    }

    /// A report from the agent may have been of the pool, and the client hears nothing of it.
    pub(crate) fn may_be_used_up(&mut self, agent: AgentId, id: PoolId, to_settle: &mut Settlement) {
        if self.kept {
            self.used_up(agent, id, to_settle);
        }
    }

    /// Up to which report, of so many that have come, the agent is to be told that they are settled; none: it knows.
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
