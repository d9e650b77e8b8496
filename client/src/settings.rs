use farpool_proto::v1::WorkerSettings;

/// What a pool is opened with: every option checked and every default filled in.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Workers that run at once, at least 1.
    pub(crate) processes: u32,
    /// What all workers have in common.
    pub(crate) settings: WorkerSettings,
}
