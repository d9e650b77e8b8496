//! Classifies the end of a session's stream: whether the session has ended with it.
//!
//! | cause | observed | classified as |
//! |---|---|---|
//! | the peer ends its stream | the stream's end | intended |
//! | the peer drops the call: RST_STREAM with CANCEL | the same; only a live peer can do that | intended |
//! | the peer does not answer pings, so we end the connection | the same; it was silent for too long | intended |
//! | the peer or its host is killed; the network reports a failure | an error of the connection | broken |
//! | a proxy drops it: GOAWAY, any other RST_STREAM | an error of HTTP/2, not ours | broken |
//! | the peer violates HTTP/2 | an error of HTTP/2, ours | final |
//! | the peer sends an invalid frame or message | an error of the decoder | final |

use std::error::Error;

use tonic::{Code, Status};

/// How a stream has ended.
#[derive(Debug)]
pub(super) enum End {
    /// The peer ended it on purpose, or was silent for so long that it must expect this.
    Intended,
    /// The connection is lost: the peer may reconnect.
    Broken(Status),
    /// The session cannot continue.
    Final(Status),
}

impl End {
    /// Classifies an error of the stream. `garbled`: the peer has sent something invalid.
    pub(super) fn of(status: Status, garbled: bool) -> Self {
        if garbled {
            return Self::Final(blamed(status));
        }
        match of_http2(&status) {
            Some(error) if error.is_library() => Self::Final(blamed(status)),
            Some(_) => Self::Broken(status),
            // Streams other than gRPC's report it like this.
            None if status.code() == Code::Unavailable => Self::Broken(status),
            None => Self::Final(blamed(status)),
        }
    }
}

/// Blames the peer for what cannot be decoded, which gRPC's library does not do.
pub(super) fn blamed(status: Status) -> Status {
    match status.code() {
        Code::Internal => Status::invalid_argument(status.message().to_owned()),
        _ => status,
    }
}

/// Returns the underlying HTTP/2 error, if there is one.
fn of_http2(status: &Status) -> Option<&h2::Error> {
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(http2) = error.downcast_ref() {
            return Some(http2);
        }
        cause = error.source();
    }
    None
}
