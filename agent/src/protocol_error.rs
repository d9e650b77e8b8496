//! What a coordinator says that makes no sense.

/// A message of the coordinator's makes no sense; its session is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolError {
    message: String,
}

impl ProtocolError {
    /// What is wrong with what was said.
    pub fn new(message: String) -> ProtocolError {
        ProtocolError { message }
    }
}

impl std::fmt::Display for ProtocolError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for ProtocolError {}
