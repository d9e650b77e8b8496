use farpool_proto::v1::client_message::Body;

/// How far a message has come, as others may know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cluster) enum Way {
    /// It is only here.
    Unsaid,
    /// It was put into the session's queue, as the message of this number, from 1.
    Queued(u64),
    /// It has been in a frame, and may have arrived.
    Left,
}

impl Way {
    /// The session is over, and so many of its messages have left.
    pub(super) fn end_session(&mut self, left: u64) {
        *self = match *self {
            Way::Queued(number) if number > left => Way::Unsaid,
            Way::Queued(_) => Way::Left,
            way => way,
        };
    }
}

/// What is said at the beginning of a session, behind what was said of it before.
pub(super) struct Saying {
    messages: Vec<Body>,
    before: u64,
}

impl Saying {
    pub(super) fn new(before: u64) -> Self {
        Self { messages: Vec::new(), before }
    }

    pub(super) fn say(&mut self, body: Body) -> Way {
        self.messages.push(body);
        Way::Queued(self.before + self.messages.len() as u64)
    }

    pub(super) fn into_messages(self) -> Vec<Body> {
        self.messages
    }
}
