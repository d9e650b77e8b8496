//! A chunk at an agent.

use crate::done::Done;
use crate::ids::{AgentId, ChunkId, JobId, PlaceId};
use crate::run::Run;

/// No neighbour.
pub(crate) const NONE: u32 = u32::MAX;

/// Items that one agent holds. It exists from the assignment until the agent is through with the last of them; what
/// comes back goes into the job's queue and gets a new chunk.
pub(crate) struct Chunk {
    pub(crate) job: JobId,
    pub(crate) place: PlaceId,
    /// Bytes of one of its items, on average.
    pub(crate) item_bytes: u64,
    pub(crate) agent: AgentId,
    pub(crate) run: Run,
    /// Which try this is of the first item.
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

/// What a chunk is made of.
pub(crate) struct Items {
    /// From the first to the last.
    pub(crate) run: Run,
    /// Which of these are not meant.
    pub(crate) done: Done,
    /// Which try this is of the first.
    pub(crate) attempt: u32,
    /// Bytes of each, on average.
    pub(crate) item_bytes: u64,
    pub(crate) hold: Hold,
}

/// How firmly the agent holds the chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Given to it; may be asked for.
    Assigned,
    /// Asked for; the answer has not come.
    Retracting {
        /// For whom.
        to: AgentId,
    },
    /// It has answered: what it kept has begun, so it is not asked again.
    Kept,
    /// Another agent holds a copy of some of it, and whoever is first with an item counts. It is not asked for.
    Doubled {
        /// The other chunk, whose hold names this one.
        twin: ChunkId,
        /// As [`Overtaken`](Self::Overtaken).
        overtaken: bool,
    },
    /// As [`Kept`](Self::Kept), but another agent was first with items that this one still holds, as far as it knows, or they
    /// were not adopted with the others: it has to be told when nothing else is left of the chunk.
    Overtaken,
}

/// What the chunk was expected to take, and took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Time {
    /// When the agent got it, by the caller's clock.
    pub(crate) assigned_at: u64,
    /// What its job was charged, in ns.
    pub(crate) charged_ns: u64,
    /// What was measured so far.
    pub(crate) spent_ns: u64,
    /// Items that `spent_ns` is about.
    pub(crate) covered: u64,
    /// Items reported since then, without a time.
    pub(crate) unmeasured: u64,
}

impl Chunk {
    /// Which try this is of `item`.
    pub(crate) fn attempt_of(&self, item: u64) -> u32 {
        if item == self.run.first { self.attempt } else { 1 }
    }

    /// The chunk at another agent that has items in common with this one.
    #[inline]
    pub(crate) fn twin(&self) -> Option<ChunkId> {
        if let Hold::Doubled { twin, .. } = self.hold { Some(twin) } else { None }
    }

    /// Whether some of what the agent may report of it has its outcome from somebody else.
    #[inline]
    pub(crate) fn overtaken(&self) -> bool {
        matches!(self.hold, Hold::Doubled { overtaken: true, .. } | Hold::Overtaken)
    }

    /// The parts of a run that are left of it.
    pub(crate) fn left_of(&self, run: Run) -> impl Iterator<Item = Run> {
        self.done.holes(self.run).filter_map(move |hole| hole.common(run))
    }
}
