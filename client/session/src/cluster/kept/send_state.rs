use farpool_proto::v1::client_message::Body;

/// Whether a message was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cluster) enum SendState {
    /// It was never sent.
    Unsent,
    /// It is in the session's queue, as the message with this number, from 1.
    Queued(u64),
    /// It was in a frame, and may have arrived.
    Sent,
}

impl SendState {
    /// Notes that the session has ended, and that `sent` of its messages may have arrived.
    pub(super) fn end_session(&mut self, sent: u64) {
        *self = match *self {
            SendState::Queued(number) if number > sent => SendState::Unsent,
            SendState::Queued(_) => SendState::Sent,
            send_state => send_state,
        };
    }
}

/// Collects messages for the beginning of a session, after `before` messages.
pub(super) struct StartMessages {
    messages: Vec<Body>,
    before: u64,
}

impl StartMessages {
    pub(super) fn new(before: u64) -> Self {
        Self { messages: Vec::new(), before }
    }

    pub(super) fn push(&mut self, body: Body) -> SendState {
        self.messages.push(body);
        SendState::Queued(self.before + self.messages.len() as u64)
    }

    pub(super) fn into_messages(self) -> Vec<Body> {
        self.messages
    }
}
