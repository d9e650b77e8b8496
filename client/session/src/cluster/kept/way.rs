use farpool_proto::v1::client_message::Body;

/// How far a message has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cluster) enum Way {
    /// It was never sent.
    Unsaid,
    /// It is in the session's queue, as the message with this number, from 1.
    Queued(u64),
    /// It was in a frame, and may have arrived.
    Left,
}

impl Way {
    /// Notes that the session has ended, and that `left` of its messages may have arrived.
    pub(super) fn end_session(&mut self, left: u64) {
        *self = match *self {
            Way::Queued(number) if number > left => Way::Unsaid,
            Way::Queued(_) => Way::Left,
            way => way,
        };
    }
}

/// Collects messages for the beginning of a session, after `before` messages.
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
