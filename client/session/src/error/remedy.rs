/// Advice for an error whose kind alone does not tell what to do. A front words it in terms of its own API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Remedy {
    /// Check that a coordinator runs at the address, which comes from the pool or from `FARPOOL_ADDRESS`.
    CheckAddress,
    /// Allow the pool more time to reconnect.
    ReconnectLonger,
    /// Give a required label a key and a value.
    NameLabel,
    /// Make the call again in this process, which is a fork of the one that made it.
    CallAgain,
    /// Make the item smaller, or give the coordinator more memory.
    MoreMemory,
}

impl Remedy {
    /// Returns the advice without names of an API, for fronts that have no wording of their own.
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Self::CheckAddress => {
                "start one there with `farpool-coordinator`, or give the address of another, as in \
                 FARPOOL_ADDRESS=http://node1:7070"
            }
            Self::ReconnectLonger => "raise the pool's reconnect timeout, or set FARPOOL_RECONNECT_TIMEOUT",
            Self::NameLabel => "a label is a key and a value, such as gpu and a100",
            Self::CallAgain => "make the call again in this process, or attach to the job here",
            Self::MoreMemory => "split it, or start the coordinator with a larger --memory",
        }
    }
}
