//! How a pool stops: first its workers, then its fork server.

/// Time for the fork server to exit once its connection was closed.
pub(super) const CLOSE_GRACE_NS: u64 = 1_000_000_000;

/// The stop of a pool.
#[derive(Debug)]
pub(super) struct Stop {
    stage: Stopping,
    /// The coordinator requested it.
    requested: bool,
}

/// How far a pool has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopping {
    No,
    /// Workers exit when they are idle.
    WhenIdle,
    /// Workers are being killed.
    Now,
    /// All workers have ended; the fork server was told to exit at this time.
    Closing {
        since: u64,
    },
    /// All processes have ended.
    Done,
}

impl Stop {
    pub(super) fn new() -> Stop {
        Stop { stage: Stopping::No, requested: false }
    }

    pub(super) fn stage(&self) -> Stopping {
        self.stage
    }

    pub(super) fn has_begun(&self) -> bool {
        self.stage != Stopping::No
    }

    pub(super) fn is_done(&self) -> bool {
        self.stage == Stopping::Done
    }

    /// Begins the stop: now, or when the workers are idle. Returns whether the workers are to be killed from now on.
    pub(super) fn begin(&mut self, now: bool) -> bool {
        match self.stage {
            Stopping::No | Stopping::WhenIdle if now => {
                self.stage = Stopping::Now;
                return true;
            }
            Stopping::No => self.stage = Stopping::WhenIdle,
            _ => {}
        }
        false
    }

    /// Records that the coordinator requested it.
    pub(super) fn request(&mut self) {
        self.requested = true;
    }

    pub(super) fn was_requested(&self) -> bool {
        self.requested
    }

    /// Cancels the stop, unless the workers are being killed.
    pub(super) fn cancel(&mut self) {
        if self.stage == Stopping::WhenIdle {
            *self = Stop::new();
        }
    }

    /// Records that the fork server was told to exit.
    pub(super) fn close(&mut self, now: u64) {
        self.stage = Stopping::Closing { since: now };
    }

    /// Records that all processes have ended.
    pub(super) fn end(&mut self) {
        self.stage = Stopping::Done;
    }
}
