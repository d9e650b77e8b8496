use std::sync::atomic::{AtomicU8, Ordering};

/// How far a pool is in its life; it only ever goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Stage {
    Open,
    Closed,
    Terminated,
}

#[derive(Default)]
pub(super) struct StageCell(AtomicU8);

impl StageCell {
    pub(super) fn get(&self) -> Stage {
        Self::stage(self.0.load(Ordering::Acquire))
    }

    /// Goes on to this stage, unless it is past it; returns the stage before.
    pub(super) fn advance(&self, stage: Stage) -> Stage {
        Self::stage(self.0.fetch_max(stage as u8, Ordering::AcqRel))
    }

    fn stage(number: u8) -> Stage {
        [Stage::Open, Stage::Closed, Stage::Terminated][usize::from(number)]
    }
}
