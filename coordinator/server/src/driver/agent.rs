//! An agent's session, as the loop sees it.

use farpool_proto::v1::{AgentCommand, AgentEvent, agent_command, agent_event};

use super::session::Session;

pub(super) struct Agent {
    pub(super) session: Session<AgentCommand>,
    pub(super) host: String,
    /// It has said that it is leaving.
    pub(super) leaving: bool,
    /// What it has said of itself takes so many bytes.
    pub(super) opening: u64,
    /// Bytes of a message that is not whole yet.
    pub(super) partial: u64,
    /// Its turn is over, and it waits for the next until there is room for the rest of its message.
    pub(super) waits: bool,
    /// The same, until clients have taken their results.
    pub(super) waits_for_clients: bool,
    /// What waits for it is counted with so many bytes; see [`Agents`](super::agents::Agents).
    pub(super) counted: u64,
    /// Bytes that waited when that was last looked at, and when they were last seen to have become fewer.
    waited: usize,
    moved_at: u64,
    /// Bytes of results that it has reported since it was last sent anything.
    reported: usize,
    /// The same, since the memory has been full of them.
    pub(super) reported_while_full: u64,
    /// What waits for company is sent then.
    pub(super) flush_at: Option<u64>,
    // Gathered in a round. Kept for its memory.
    fresh: Vec<AgentCommand>,
}

/// What an agent need not know at once waits so long, in ns, for something that it must know, unless it keeps more results
/// than these, in bytes: nearly always the next call comes first, and a frame costs both sides more than what is in it.
const COMPANY_NS: u64 = 5_000_000;
const MAX_KEPT: usize = 1 << 20;

/// An agent for which more than this waits, in bytes, and that has not read any of it for so long, in ns, is lost. Where there is
/// little memory, a part of that.
const MAX_UNREAD: usize = 64 << 20;
const UNREAD_PART: u64 = 64;
const READS_WITHIN_NS: u64 = 30_000_000_000;
/// With so many times as much waiting it is lost much sooner.
const FAR_TOO_MUCH: usize = 4;
const READS_SOON_NS: u64 = 500_000_000;

impl Agent {
    pub(super) fn new(session: Session<AgentCommand>, host: String, opening: u64, now: u64) -> Self {
        Self {
            session,
            host,
            leaving: false,
            opening,
            partial: 0,
            waits: false,
            waits_for_clients: false,
            counted: 0,
            waited: 0,
            moved_at: now,
            reported: 0,
            reported_while_full: 0,
            flush_at: None,
            fresh: Vec::new(),
        }
    }

    /// Whether nothing is read of it for now.
    pub(super) fn is_stopped(&self) -> bool {
        self.waits || self.waits_for_clients
    }

    /// Notes what it says. `is_full`: the memory is, of results.
    pub(super) fn note(&mut self, event: &AgentEvent, is_full: bool) {
        match &event.body {
            Some(agent_event::Body::RunDone(done)) => {
                self.reported += done.data.len();
                self.reported_while_full += if is_full { done.data.len() as u64 } else { 0 };
            }
            Some(agent_event::Body::Draining(_)) => self.leaving = true,
            _ => {}
        }
    }

    pub(super) fn welcome(&self) {
        let welcome = agent_command::Body::Welcome(farpool_proto::version());
        self.session.outgoing.push(AgentCommand { body: Some(welcome) });
    }

    /// Keeps a command for the end of the round; says whether it is the first one.
    pub(super) fn gather(&mut self, command: AgentCommand) -> bool {
        self.fresh.push(command);
        self.fresh.len() == 1
    }

    /// Puts what was gathered into its queue. False: it does not read.
    pub(super) fn send_gathered(&mut self, now: u64, memory: u64) -> bool {
        self.look_whether_it_reads(now);
        let outgoing = &self.session.outgoing;
        if self.reported <= MAX_KEPT && self.fresh.iter().all(may_wait) {
            outgoing.extend_later(self.fresh.drain(..));
            self.flush_at.get_or_insert(now + COMPANY_NS);
        } else {
            outgoing.extend(self.fresh.drain(..));
            (self.reported, self.flush_at) = (0, None);
        }
        self.reads(now, memory)
    }

    /// Sends what has waited for company.
    pub(super) fn flush(&mut self) {
        self.session.outgoing.flush();
        (self.reported, self.flush_at) = (0, None);
    }

    /// Bytes that wait to be sent to it.
    pub(super) fn unread(&self) -> u64 {
        self.session.outgoing.waiting() as u64
    }

    /// Another connection has come: what the agent has not taken in waits again.
    pub(super) fn begin_to_read(&mut self, now: u64) {
        (self.waited, self.moved_at) = (0, now);
        self.waits_for_clients = false;
    }

    /// Looks at whether it has read some of what waited. To be called before more is added.
    pub(super) fn look_whether_it_reads(&mut self, now: u64) {
        let waiting = self.session.outgoing.waiting();
        if waiting < self.waited || self.waited == 0 || self.is_stopped() || self.session.is_away() {
            self.moved_at = now;
        }
        self.waited = waiting;
    }

    /// Whether it reads what it is sent, as far as can be told. To be called when more was added.
    pub(super) fn reads(&mut self, now: u64, memory: u64) -> bool {
        self.waited = self.session.outgoing.waiting();
        let most = usize::try_from(memory / UNREAD_PART).unwrap_or(MAX_UNREAD).min(MAX_UNREAD);
        match self.waited {
            unread if unread <= most => true,
            unread if unread <= FAR_TOO_MUCH * most => now - self.moved_at <= READS_WITHIN_NS,
            _ => now - self.moved_at <= READS_SOON_NS,
        }
    }
}

/// Whether nothing depends on when the agent hears of it: what it may forget.
fn may_wait(command: &AgentCommand) -> bool {
    use agent_command::Body;
    match &command.body {
        Some(Body::Settled(_)) => true,
        Some(Body::EndJob(end)) => !end.kill,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
