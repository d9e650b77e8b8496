//! Why one attempt to write or read a value has ended: serde's error type on both sides.

use std::fmt;

/// Levels that a value may be nested; each `Some`, sequence, map, struct, tuple and variant is one.
pub(super) const MAX_DEPTH: u32 = 4096;

/// It is small, since every call of a serializer returns one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The value needs more room than there is.
    Full,
    /// It is not known yet what Deserialize asks for where this value has something.
    Unknown,
    /// Serialize writes something else than Deserialize asks for.
    Differs,
    /// It is nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// The bytes end too early.
    CutShort,
    /// The bytes are no value of this format.
    Damaged,
    /// What serde, or the type's own implementation, says.
    Said(Box<str>),
}

impl Fault {
    /// The same, with the field that it is about.
    #[cold]
    pub(super) fn in_field(self, field: &str) -> Self {
        match self {
            Self::Said(message) => Self::Said(format!("field `{field}`: {message}").into()),
            other => other,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("there is not enough space"),
            Self::Unknown | Self::Differs => f.write_str("its Serialize and its Deserialize differ"),
            Self::TooDeep => write!(
                f,
                "it is nested more than {} levels deep: flatten it, for example into a Vec with indices",
                MAX_DEPTH
            ),
            Self::CutShort => f.write_str("it is truncated"),
            Self::Damaged => f.write_str("its bytes are damaged"),
            Self::Said(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Fault {}

impl serde::ser::Error for Fault {
    #[cold]
    fn custom<M: fmt::Display>(message: M) -> Self {
        Self::Said(message.to_string().into())
    }
}

impl serde::de::Error for Fault {
    #[cold]
    fn custom<M: fmt::Display>(message: M) -> Self {
        Self::Said(message.to_string().into())
    }
}
