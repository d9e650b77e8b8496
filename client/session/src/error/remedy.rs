/// What may help whoever gets an error, where its kind does not say that. A front names the call to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Remedy {
    /// Look whether a coordinator runs at the address, which the pool or `FARPOOL_ADDRESS` has.
    CheckAddress,
    /// Give the pool more time to reconnect.
    ReconnectLonger,
    /// Give a required label a key and a value.
    NameLabel,
    /// Make the call once more in this process, which is a fork of the one that made it.
    CallAgain,
}

impl Remedy {
    /// The same in words that hold in any language.
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Self::CheckAddress => {
                "is farpool-coordinator running there? the address is the pool's, or comes from FARPOOL_ADDRESS"
            }
            Self::ReconnectLonger => "give the pool more time to reconnect, or set FARPOOL_RECONNECT_TIMEOUT",
            Self::NameLabel => "a label has a key and a value, such as gpu and a100",
            Self::CallAgain => "make the call again here, or attach to the job here",
        }
    }
}
