//! `Debug` for messages that contain a secret: it does not show the secret.

use std::fmt::{Debug, Formatter, Result};

use crate::v1::{AgentHello, Attach, OpenPool, Resume};

/// Shown in place of a secret.
const HIDDEN: &str = "..";

impl Debug for OpenPool {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self {
            processes,
            settings,
            version,
            program,
            require,
            weight,
            id,
            again,
            agents,
            ticket,
            secret: _,
            detached,
        } = self;
        let mut shown = f.debug_struct("OpenPool");
        shown.field("processes", processes).field("settings", settings).field("version", version);
        shown.field("program", program).field("require", require).field("weight", weight).field("id", id);
        shown.field("again", again).field("agents", agents).field("ticket", ticket).field("secret", &HIDDEN);
        shown.field("detached", detached).finish()
    }
}

impl Debug for Attach {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { name, first, wait, id, ticket, version, secret: _, session, job } = self;
        let mut shown = f.debug_struct("Attach");
        shown.field("name", name).field("first", first).field("wait", wait).field("id", id).field("ticket", ticket);
        shown.field("version", version).field("secret", &HIDDEN).field("session", session).field("job", job).finish()
    }
}

impl Debug for AgentHello {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { host, slots, version, id, labels, held, wasted, secret: _ } = self;
        let mut shown = f.debug_struct("AgentHello");
        shown.field("host", host).field("slots", slots).field("version", version).field("id", id);
        shown.field("labels", labels).field("held", held).field("wasted", wasted).field("secret", &HIDDEN).finish()
    }
}

impl Debug for Resume {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { secret: _, version, received } = self;
        let mut shown = f.debug_struct("Resume");
        shown.field("secret", &HIDDEN).field("version", version).field("received", received).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let secret = || vec![123_u8; 32].into();
        let pool = OpenPool { secret: secret(), weight: 7, ..OpenPool::default() };
        let attach = Attach { secret: secret(), ..Attach::default() };
        let hello = AgentHello { secret: secret(), host: "here".to_owned(), ..AgentHello::default() };
        let resume = Resume { secret: secret(), received: 9, ..Resume::default() };
        let shown = format!("{pool:?} {attach:?} {hello:?} {resume:?}");
        assert!(shown.contains("weight: 7") && shown.contains("here") && shown.contains("received: 9"), "{shown}");
        // Bytes are shown as characters.
        assert!(!shown.contains("{{{"), "{shown}");
    }
}
