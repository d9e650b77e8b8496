//! The pools and jobs of the ledger.

use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{AgentOutput, Failure, StartJob, StartPool};

use super::kept::Outcomes;

/// Most bytes of output that an unadopted pool keeps, and the overhead of each part.
const OUTPUT_BYTES: usize = 1 << 20;
const OUTPUT_OVERHEAD: usize = 256;

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
    pub(super) on_hold: bool,
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

/// A job that has chunks here or may get some.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) pool: u32,
    /// Its start command, in the agent's numbers.
    pub(super) start: StartJob,
    /// The coordinator's name for it; `None`: the coordinator sends nothing more about it.
    pub(super) name: Option<u64>,
    /// Whether the agent has it.
    pub(super) active: bool,
    /// Number of its chunks in the ledger.
    pub(super) chunks: u32,
}

impl Job {
    pub(super) fn is_done(&self) -> bool {
        self.chunks == 0 && !self.active && self.name.is_none()
    }
}
