//! An agent's session, as the loop knows it.

use farpool_proto::v1::{AgentCommand, AgentEvent, agent_command, agent_event};

use super::session::Session;

pub(super) struct Agent {
    pub(super) session: Session<AgentCommand>,
    pub(super) host: String,
    /// It has reported that it is draining.
    pub(super) leaving: bool,
    /// Size of its hello in memory, in bytes.
    pub(super) opening: u64,
    /// Bytes of a message that has not arrived completely.
    pub(super) partial: u64,
    /// It is not read until there is room for the rest of its message.
    pub(super) waits: bool,
    /// It is not read until clients have taken their results.
    pub(super) waits_for_clients: bool,
    /// How many bytes it is counted with; see [`Agents`](super::agents::Agents).
    pub(super) counted: u64,
    /// Bytes that waited at the last check, and when their number last fell.
    waited: usize,
    moved_at: u64,
    /// Bytes of results that it has reported since the last message to it.
    reported: usize,
    /// Bytes of results that it has reported since the memory has been full of results.
    pub(super) reported_while_full: u64,
    /// The latest time to send messages that may be delayed.
    pub(super) flush_at: Option<u64>,
    // The messages of this round. Kept for its capacity.
    fresh: Vec<AgentCommand>,
}

/// How long a message that may be delayed waits for an urgent one, in ns, unless the agent keeps more than `MAX_KEPT`
/// bytes of results. The next call nearly always comes first, and a frame costs both sides more than the messages in
/// it.
const DELAY_NS: u64 = 5_000_000;
const MAX_KEPT: usize = 1 << 20;

/// An agent is disconnected if more than `MAX_UNREAD` bytes, or more than one part in `UNREAD_PART` of the memory, wait
/// for it, and it reads none of them for `READS_WITHIN_NS`.
const MAX_UNREAD: usize = 64 << 20;
const UNREAD_PART: u64 = 64;
const READS_WITHIN_NS: u64 = 30_000_000_000;
/// If more than this many times as much waits, it is disconnected after `READS_SOON_NS`.
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

    /// Returns whether it is not read for now.
    pub(super) fn is_stopped(&self) -> bool {
        self.waits || self.waits_for_clients
    }

    /// Updates the agent's state from its event. `is_full`: the memory is full of results.
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

    /// Keeps a command until the end of the round. Returns whether it is the first one.
    pub(super) fn gather(&mut self, command: AgentCommand) -> bool {
        self.fresh.push(command);
        self.fresh.len() == 1
    }

    /// Queues the commands of the round. Returns false if the agent does not read.
    pub(super) fn send_gathered(&mut self, now: u64, memory: u64) -> bool {
        self.note_reading(now);
        let outgoing = &self.session.outgoing;
        if self.reported <= MAX_KEPT && self.fresh.iter().all(may_wait) {
            outgoing.extend_later(self.fresh.drain(..));
            self.flush_at.get_or_insert(now + DELAY_NS);
        } else {
            outgoing.extend(self.fresh.drain(..));
            (self.reported, self.flush_at) = (0, None);
        }
        self.reads(now, memory)
    }

    /// Sends the messages that were delayed.
    pub(super) fn flush(&mut self) {
        self.session.outgoing.flush();
        (self.reported, self.flush_at) = (0, None);
    }

    /// Returns how many bytes wait to be sent to it.
    pub(super) fn unread(&self) -> u64 {
        self.session.outgoing.waiting() as u64
    }

    /// Begins to read its new connection: unacknowledged messages wait again.
    pub(super) fn begin_to_read(&mut self, now: u64) {
        (self.waited, self.moved_at) = (0, now);
        self.waits_for_clients = false;
    }

    /// Checks whether it has read some of what waited. Call this before more is added.
    pub(super) fn note_reading(&mut self, now: u64) {
        let waiting = self.session.outgoing.waiting();
        if waiting < self.waited || self.waited == 0 || self.is_stopped() || self.session.is_disconnected() {
            self.moved_at = now;
        }
        self.waited = waiting;
    }

    /// Returns whether it reads its messages, as far as known. Call this after more was added.
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

/// Returns whether a command may be delayed: it only lets the agent forget something.
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
