use std::sync::atomic::{AtomicU8, Ordering};

/// The stage of a pool's life; it only ever advances.
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

    /// Advances to this stage, unless the pool is past it; returns the previous stage.
    pub(super) fn advance(&self, stage: Stage) -> Stage {
        Self::stage(self.0.fetch_max(stage as u8, Ordering::AcqRel))
    }

    fn stage(number: u8) -> Stage {
        [Stage::Open, Stage::Closed, Stage::Terminated][usize::from(number)]
    }
}
