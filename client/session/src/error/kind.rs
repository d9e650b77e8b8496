use farpool_proto::v1::FailureKind;

/// The kinds of failure; more may be added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The function panicked for this item, or the job's input iterator panicked.
    Panicked,
    /// The worker died while it ran this item, and the retries are used up.
    WorkerDied,
    /// The item ran longer than the timeout of its job allows.
    TimedOut,
    /// The agent that ran this item was lost, and the item's retries do not allow another run.
    AgentLost,
    /// The job was cancelled, or its pool was terminated.
    Cancelled,
    /// The encoded item or result is larger than the pool's payload limit.
    PayloadTooLarge,
    /// An item or a result could not be encoded or decoded.
    Codec,
    /// The pool was closed or terminated before the call.
    Closed,
    /// The outcome was not ready in time; the job keeps running.
    WaitTimedOut,
    /// Something that the call needs, such as the coordinator, cannot be reached or started.
    #[default]
    Unavailable,
    /// The cluster does not recognise this client.
    Unauthenticated,
    /// An argument or an option is invalid; nothing was run.
    InvalidArgument,
    /// The initializer failed in a worker, so the pool cannot run anything.
    InitializerFailed,
    /// A host cannot run the pool's program, or has another program than this client.
    ProgramRejected,
}

impl ErrorKind {
    pub(super) fn from_wire(kind: FailureKind) -> Self {
        match kind {
            FailureKind::Panicked => Self::Panicked,
            FailureKind::WorkerDied => Self::WorkerDied,
            FailureKind::TimedOut => Self::TimedOut,
            FailureKind::AgentLost => Self::AgentLost,
            FailureKind::Cancelled => Self::Cancelled,
            FailureKind::PayloadTooLarge => Self::PayloadTooLarge,
            FailureKind::Codec => Self::Codec,
            FailureKind::InvalidArgument => Self::InvalidArgument,
            FailureKind::InitializerFailed => Self::InitializerFailed,
            FailureKind::ProgramRejected => Self::ProgramRejected,
            // A later version's kind has no name here; its message explains it.
            FailureKind::Unavailable | FailureKind::Unspecified => Self::Unavailable,
        }
    }
}
