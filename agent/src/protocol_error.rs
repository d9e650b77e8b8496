//! The error for invalid messages of a coordinator.

/// The coordinator has sent an invalid message, which ends its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolError {
    message: String,
}

impl ProtocolError {
    /// Creates the error; the message says what is wrong.
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
