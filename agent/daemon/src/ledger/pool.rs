//! What the ledger knows of a pool, and of a job.

use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{AgentOutput, Failure, StartJob, StartPool};

use super::kept::Outcomes;

/// Output of a pool that nobody has adopted is kept up to so many bytes, and what each part of it takes beside its own.
const OUTPUT_BYTES: usize = 1 << 20;
const OUTPUT_OVERHEAD: usize = 256;

/// A pool, by whatever name.
#[derive(Debug)]
pub(super) struct Pool {
    /// The agent's number for it.
    pub(super) number: u64,
    /// The coordinator's; none: no coordinator has adopted it yet.
    pub(super) name: Option<u64>,
    /// How it was started, with what was said of its workers last.
    pub(super) start: Box<StartPool>,
    /// Its program was here and has been started.
    pub(super) started: bool,
    /// Why its workers die before they can serve, if the agent has reported that since the pool last started.
    pub(super) ailing: Option<String>,
    /// The coordinator has told it to stop, and says no more about it.
    pub(super) told_to_stop: bool,
    /// Why it cannot go on, if it cannot.
    pub(super) fault: Option<Failure>,
    /// Nothing is left of its processes.
    pub(super) stopped: bool,
    pub(super) outcomes: Outcomes,
    /// Its outcomes are left where they are, since too many are kept already.
    pub(super) on_hold: bool,
    /// What is to be told beside outcomes once it is adopted: output, and what was given back.
    pub(super) unsaid: Vec<Event>,
}

impl Pool {
    pub(super) fn new(number: u64, start: Box<StartPool>) -> Pool {
        Pool {
            number,
            name: Some(start.pool),
            start,
            started: false,
            ailing: None,
            told_to_stop: false,
            fault: None,
            stopped: false,
            outcomes: Outcomes::default(),
            on_hold: false,
            unsaid: Vec::new(),
        }
    }

    /// Whether another coordinator could adopt it: only by its client's id it is known again.
    pub(super) fn can_be_held(&self) -> bool {
        !self.start.id.is_empty()
    }

    /// Keeps what one of its processes has written for whoever adopts it, up to a bound.
    pub(super) fn keep_output(&mut self, output: AgentOutput) {
        let bytes_of =
            |event: &Event| if let Event::Output(kept) = event { OUTPUT_OVERHEAD + kept.data.len() } else { 0 };
        let bytes: usize = self.unsaid.iter().map(bytes_of).sum();
        if bytes + output.data.len() <= OUTPUT_BYTES {
            self.unsaid.push(Event::Output(output));
        }
    }

    /// Whether nobody will ever ask for it again.
    pub(super) fn is_over(&self) -> bool {
        self.stopped && self.told_to_stop && self.outcomes.is_empty()
    }

    /// How it is started once more, under another number of the agent's.
    pub(super) fn start_again(&mut self, number: u64) -> Box<StartPool> {
        (self.number, self.on_hold) = (number, false);
        (self.started, self.told_to_stop, self.stopped) = (false, false, false);
        self.ailing = None;
        Box::new(StartPool { pool: number, ..(*self.start).clone() })
    }
}

/// A job of which chunks are here, or may come.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) pool: u32,
    /// How it was started, in the agent's names.
    pub(super) start: StartJob,
    /// What the coordinator calls it; none: it says no more about it.
    pub(super) name: Option<u64>,
    /// The agent knows it.
    pub(super) lives: bool,
    /// Chunks of it that the ledger has.
    pub(super) chunks: u32,
}

impl Job {
    pub(super) fn is_over(&self) -> bool {
        self.chunks == 0 && !self.lives && self.name.is_none()
    }
}
