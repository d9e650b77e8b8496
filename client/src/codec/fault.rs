//! Why writing or reading a value failed: the error type for serde on both sides.

use std::fmt;

/// Most levels of nesting in a value; each `Some`, sequence, map, struct, tuple and variant is one.
pub(super) const MAX_DEPTH: u32 = 4096;

/// Why it failed. Small, since every call of a serializer returns one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The value needs more room than there is.
    Full,
    /// The shape is not known yet in some place.
    Unknown,
    /// Serialize writes something other than Deserialize asks for.
    Differs,
    /// The value is nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// The bytes end too early.
    Truncated,
    /// The bytes are no value of this format.
    Damaged,
    /// The message of serde, or of the type's own implementation.
    Custom(Box<str>),
}

impl Fault {
    /// Adds the name of the field to the message.
    #[cold]
    pub(super) fn in_field(self, field: &str) -> Self {
        match self {
            Self::Custom(message) => Self::Custom(format!("field `{field}`: {message}").into()),
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
            Self::Truncated => f.write_str("it is truncated"),
            Self::Damaged => f.write_str("its bytes are damaged"),
            Self::Custom(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Fault {}

impl serde::ser::Error for Fault {
    #[cold]
    fn custom<M: fmt::Display>(message: M) -> Self {
        Self::Custom(message.to_string().into())
    }
}

impl serde::de::Error for Fault {
    #[cold]
    fn custom<M: fmt::Display>(message: M) -> Self {
        Self::Custom(message.to_string().into())
    }
}
