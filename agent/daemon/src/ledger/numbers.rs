//! The agent's numbers of pools and jobs.

/// The latest number of a pool or job; none is used twice.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbers {
    latest: u64,
}

impl Numbers {
    pub(super) fn next(&mut self) -> u64 {
        self.latest += 1;
        self.latest
    }
}
