/// Items of a chunk that were run, as reported.
#[derive(Clone, Copy)]
pub(crate) struct RunReport {
    pub(crate) first: u64,
    pub(crate) count: u64,
    pub(crate) busy_ns: u64,
    pub(crate) failed: bool,
}
