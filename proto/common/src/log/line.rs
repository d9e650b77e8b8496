//! An event on its way to the log.

use tracing::Level;

/// A line of the log, before it is formatted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) level: Level,
    pub(super) message: String,
    pub(super) fields: Vec<(&'static str, Value)>,
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Any text, possibly from peers.
    Text(String),
    /// A number, or true or false.
    Bare(String),
}

impl Line {
    pub(super) fn new(level: Level, message: String) -> Self {
        Self { level, message, fields: Vec::new() }
    }

    /// Returns the line with one more field.
    pub(super) fn with(mut self, key: &'static str, value: Value) -> Self {
        self.fields.push((key, value));
        self
    }
}
