//! What is said on stderr.

use std::fmt::Display;
use std::io::Write;

/// Says something. Nobody may be listening.
pub(super) fn log(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "farpool-agent: {text}");
}

/// Says when the coordinator is there and when it is not, but not at every try.
#[derive(Debug)]
pub(super) struct Changes {
    coordinator: String,
    /// What was said since it was there last.
    said: Vec<String>,
}

impl Changes {
    pub(super) fn new(coordinator: &str) -> Changes {
        Changes { coordinator: coordinator.to_owned(), said: Vec::new() }
    }

    pub(super) fn connected(&mut self, release: &str) {
        self.said.clear();
        log(format_args!("connected to the coordinator at {} (farpool {release})", self.coordinator));
    }

    pub(super) fn lost(&mut self, reason: String) {
        if !self.said.contains(&reason) {
            log(format_args!("no session with the coordinator at {}: {reason}; trying again", self.coordinator));
            self.said.push(reason);
        }
    }
}
