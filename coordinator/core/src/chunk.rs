//! A chunk at an agent.

use crate::done::Done;
use crate::ids::{AgentId, ChunkId, JobId, PlaceId};
use crate::run::Run;

/// No neighbour.
pub(crate) const NONE: u32 = u32::MAX;

/// Items that one agent holds. It exists from the assignment until the agent has finished the last of them. Items that
/// it returns go into the job's queue and get a new chunk.
pub(crate) struct Chunk {
    pub(crate) job: JobId,
    pub(crate) place: PlaceId,
    /// Average bytes of an item.
    pub(crate) item_bytes: u64,
    pub(crate) agent: AgentId,
    pub(crate) run: Run,
    /// The attempt number of the first item.
    pub(crate) attempt: u32,
    pub(crate) hold: Hold,
    pub(crate) done: Done,
    pub(crate) time: Time,
    pub(crate) links: Links,
}

/// A chunk's neighbours in its list.
#[derive(Clone, Copy)]
pub(crate) struct Links {
    pub(crate) newer: u32,
    pub(crate) older: u32,
}

impl Default for Links {
    fn default() -> Self {
        Self { newer: NONE, older: NONE }
    }
}

/// The items to make a chunk of.
pub(crate) struct Items {
    /// From the first item to the last.
    pub(crate) run: Run,
    /// Items of the run that are not part of it.
    pub(crate) done: Done,
    /// The attempt number of the first.
    pub(crate) attempt: u32,
    /// Average bytes of each.
    pub(crate) item_bytes: u64,
    pub(crate) hold: Hold,
}

/// Whether the chunk can be retracted, and whether there is a copy of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Assigned; may be retracted.
    Assigned,
    /// The agent was asked to return it and has not answered.
    Retracting {
        /// The agent that will get it.
        to: AgentId,
    },
    /// The agent answered a retraction: the items it kept have begun, so it is not asked again.
    Kept,
    /// Another agent holds a copy of some items, and the first outcome of each item counts. It is not retracted.
    Doubled {
        /// The other chunk, whose hold refers to this one.
        twin: ChunkId,
        /// As [`Overtaken`](Self::Overtaken).
        overtaken: bool,
    },
    /// Like [`Kept`](Self::Kept), but some items that the agent believes to hold are no longer its own: another
    /// agent was first with them, or they were not adopted. The agent has to be told when nothing else of the chunk
    /// remains.
    Overtaken,
}

/// The time that the chunk was expected to take, and took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Time {
    /// When the agent got it, by the caller's clock.
    pub(crate) assigned_at: u64,
    /// The time that its job was charged, in ns.
    pub(crate) charged_ns: u64,
    /// The time measured so far.
    pub(crate) spent_ns: u64,
    /// Items that `spent_ns` covers.
    pub(crate) covered: u64,
    /// Items reported since then without a time.
    pub(crate) unmeasured: u64,
}

impl Chunk {
    /// Returns the attempt number of `item`.
    pub(crate) fn attempt_of(&self, item: u64) -> u32 {
        if item == self.run.first { self.attempt } else { 1 }
    }

    /// Returns the chunk at another agent that shares items with this one.
    #[inline]
    pub(crate) fn twin(&self) -> Option<ChunkId> {
        if let Hold::Doubled { twin, .. } = self.hold { Some(twin) } else { None }
    }

    /// Whether another agent was first with some items that this agent may still report.
    #[inline]
    pub(crate) fn overtaken(&self) -> bool {
        matches!(self.hold, Hold::Doubled { overtaken: true, .. } | Hold::Overtaken)
    }

    /// Returns the parts of a run that this chunk has not finished.
    pub(crate) fn left_of(&self, run: Run) -> impl Iterator<Item = Run> {
        self.done.holes(self.run).filter_map(move |hole| hole.common(run))
    }
}
