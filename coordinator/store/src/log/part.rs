/// The parts of jobs and pools for which records are kept: the index has the location of each part. A part stays the same
/// when compaction moves its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Pool(u64),
    Opened(u64),
    Items(u64, u64),
    Outcomes(u64, u64),
}

impl Part {
    pub(super) fn job(self) -> Option<u64> {
        match self {
            Part::Pool(_) => None,
            Part::Opened(job) | Part::Items(job, _) | Part::Outcomes(job, _) => Some(job),
        }
    }
}
