//! Messages for agents that these do not take.
//!
//! Credit bounds what an agent is given to run, but not what it is told of pools and jobs that come and go, and that is as large as
//! clients make it: a job's function, a pool's environment. So each agent has a window, as clients have
//! ([`acks`](super::acks)): while more than that is sent and not acknowledged, no further message is begun for it. What waits
//! behind it counts towards the memory, so that clients are stopped until agents have caught up. What a window lets through
//! does not count: most of it are items, which count as long as they have no outcome.
//!
//! Agents acknowledge what they have received, whatever becomes of it, and are read while clients are stopped: so all of them catch up.
//! One that does not read is disconnected, and sooner the more waits for it. An agent that is not read itself cannot
//! acknowledge anything, nor can one whose connection is lost: these have time.

use std::ops::RangeInclusive;

use farpool_coordinator::AgentId;
use tonic::Status;

use super::Driver;
use super::agents::Agent;
use super::memory::Memory;

/// An agent's window in bytes. All agents together may have such a part of the memory, as far as that is not too little for each.
const WINDOW: RangeInclusive<u64> = 1 << 20..=10 << 20;
const WINDOWS_PART: u64 = 8;

/// An agent for which more than this waits, in bytes, and that has not read any of it for so long, in ns, is lost. Where there is
/// little memory, a part of that.
const MAX_UNREAD: usize = 64 << 20;
const UNREAD_PART: u64 = 64;
pub(super) const READS_WITHIN_NS: u64 = 30_000_000_000;
/// With so many times as much waiting it is lost much sooner.
const FAR_TOO_MUCH: usize = 4;
pub(super) const READS_SOON_NS: u64 = 500_000_000;

/// What waited for an agent.
pub(super) struct Unread {
    /// Bytes that waited when that was last looked at, and when they were last seen to have become fewer.
    bytes: usize,
    moved_at: u64,
    /// What it is counted with; see [`Memory`].
    counted: u64,
}

impl Unread {
    pub(super) fn new(now: u64) -> Self {
        Self { bytes: 0, moved_at: now, counted: 0 }
    }

    /// Another connection has come.
    pub(super) fn begin_again(&mut self, now: u64) {
        (self.bytes, self.moved_at) = (0, now);
    }
}

impl Agent {
    /// Bytes that wait to be sent to it.
    pub(super) fn unread(&self) -> u64 {
        self.session.outgoing.waiting() as u64
    }

    /// Looks at whether it has read some of what waited. To be called before more is added.
    pub(super) fn look_whether_it_reads(&mut self, now: u64) {
        let waiting = self.session.outgoing.waiting();
        if waiting < self.unread.bytes || self.unread.bytes == 0 || self.is_stopped() || self.session.is_away() {
            self.unread.moved_at = now;
        }
        self.unread.bytes = waiting;
    }

    /// Whether it reads what it is sent, as far as can be told. To be called when more was added.
    pub(super) fn reads(&mut self, now: u64, memory: u64) -> bool {
        self.unread.bytes = self.session.outgoing.waiting();
        let most = usize::try_from(memory / UNREAD_PART).unwrap_or(MAX_UNREAD).min(MAX_UNREAD);
        match self.unread.bytes {
            unread if unread <= most => true,
            unread if unread <= FAR_TOO_MUCH * most => now - self.unread.moved_at <= READS_WITHIN_NS,
            _ => now - self.unread.moved_at <= READS_SOON_NS,
        }
    }
}

impl Memory {
    /// To be called when more may wait for the agent than before.
    pub(super) fn count_unread(&mut self, agent: &mut Agent) {
        self.forget_unread(agent);
        agent.unread.counted = agent.unread();
        self.unread += agent.unread.counted;
    }

    pub(super) fn forget_unread(&mut self, agent: &mut Agent) {
        self.unread -= std::mem::take(&mut agent.unread.counted);
    }
}

impl Driver {
    /// Gives agents larger or smaller windows when some have come or gone.
    pub(super) fn share_agents_windows(&mut self) {
        let share = self.memory.bound() / WINDOWS_PART / self.agents.len().max(1) as u64;
        let window = share.clamp(*WINDOW.start(), *WINDOW.end()) as usize;
        if self.agents_window != window {
            self.agents_window = window;
            self.agents.values().for_each(|agent| agent.session.outgoing.set_window(window));
        }
    }

    /// Ends agents that do not read: while clients are stopped there may be nothing more to say to them.
    pub(super) fn tend_unread(&mut self) {
        if !self.memory.is_full() {
            return;
        }
        let (now, bound) = (self.now, self.memory.bound());
        let reads = |agent: &mut Agent| {
            agent.look_whether_it_reads(now);
            agent.reads(now, bound)
        };
        let lost = self.agents.iter_mut().filter_map(|(&id, agent)| (!reads(agent)).then_some(id));
        let lost: Vec<AgentId> = lost.collect();
        lost.into_iter().for_each(|id| self.end_deaf_agent(id));
    }

    /// Ends the session of an agent that does not read.
    pub(super) fn end_deaf_agent(&mut self, id: AgentId) {
        self.end_agent(id, Err(Status::resource_exhausted("the agent does not read its messages")));
    }
}
