//! One pool of the ledger.

use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{AgentOutput, Failure, StartPool};

use super::kept::Outcomes;

/// Most bytes of output that an unadopted pool keeps, and the overhead of each part.
const OUTPUT_BYTES: usize = 1 << 20;
const OUTPUT_OVERHEAD: usize = 256;
/// Kept outcomes, in bytes, above which new ones stay with the workers.
pub(super) const HOLD_BYTES: usize = 64 << 20;
/// The level at which the pool resumes.
const RESUME_BYTES: usize = HOLD_BYTES / 2;

/// A pool, with the agent's number and the coordinator's name.
#[derive(Debug)]
pub(super) struct Pool {
    /// The agent's number for it.
    pub(super) number: u64,
    /// The coordinator's name for it; `None`: not adopted yet.
    pub(super) name: Option<u64>,
    /// Its start command, with the latest number of workers.
    pub(super) start: Box<StartPool>,
    /// Whether the agent has started it.
    pub(super) started: bool,
    /// Why its workers die at startup, if the agent has reported that since the last start.
    pub(super) unhealthy: Option<String>,
    /// The coordinator requested the stop and sends nothing more about it.
    pub(super) stop_requested: bool,
    /// Why it has failed, if it has.
    pub(super) fault: Option<Failure>,
    /// Whether all its processes have ended.
    pub(super) stopped: bool,
    pub(super) outcomes: Outcomes,
    /// Whether its outcomes are not read, because too many are kept already.
    on_hold: bool,
    /// Other events to send once it is adopted: output and returned items.
    pub(super) unsent: Vec<Event>,
}

impl Pool {
    pub(super) fn new(number: u64, start: Box<StartPool>) -> Pool {
        Pool {
            number,
            name: Some(start.pool),
            start,
            started: false,
            unhealthy: None,
            stop_requested: false,
            fault: None,
            stopped: false,
            outcomes: Outcomes::default(),
            on_hold: false,
            unsent: Vec::new(),
        }
    }

    /// Returns whether another coordinator could adopt it, which needs its client's id.
    pub(super) fn can_be_held(&self) -> bool {
        !self.start.id.is_empty()
    }

    /// Keeps output of its processes for the next coordinator, up to a bound.
    pub(super) fn keep_output(&mut self, output: AgentOutput) {
        let bytes_of =
            |event: &Event| if let Event::Output(kept) = event { OUTPUT_OVERHEAD + kept.data.len() } else { 0 };
        let bytes: usize = self.unsent.iter().map(bytes_of).sum();
        if bytes + output.data.len() <= OUTPUT_BYTES {
            self.unsent.push(Event::Output(output));
        }
    }

    /// Forgets what is kept of removed chunks: outcomes by the chunk's key, returned items by the agent's number of it.
    /// Returns the number of items with forgotten outcomes.
    pub(super) fn purge(&mut self, is_removed: impl Fn(u32) -> bool, exists: impl Fn(u64) -> bool) -> u64 {
        let purged = self.outcomes.purge(is_removed);
        self.unsent.retain(|event| match event {
            Event::Returned(back) => exists(back.chunk),
            _ => true,
        });
        purged.iter().map(|kept| kept.outcome.items().1).sum()
    }

    /// Puts it on hold if it keeps too many outcomes. Returns whether it did that now.
    pub(super) fn hold_if_full(&mut self) -> bool {
        let full = !self.on_hold && !self.stopped && self.outcomes.bytes() > HOLD_BYTES;
        self.on_hold |= full;
        full
    }

    /// Takes it off hold if it keeps few outcomes again. Returns whether it did that now.
    pub(super) fn resume_if_drained(&mut self) -> bool {
        let drained = self.on_hold && self.outcomes.bytes() <= RESUME_BYTES;
        self.on_hold &= !drained;
        drained
    }

    /// Returns whether it is never needed again.
    pub(super) fn is_done(&self) -> bool {
        self.stopped && self.stop_requested && self.outcomes.is_empty()
    }

    /// Resets it for a restart under another number of the agent. Returns the command.
    pub(super) fn restart(&mut self, number: u64) -> Box<StartPool> {
        (self.number, self.on_hold) = (number, false);
        (self.started, self.stop_requested, self.stopped) = (false, false, false);
        self.unhealthy = None;
        Box::new(StartPool { pool: number, ..(*self.start).clone() })
    }
}
