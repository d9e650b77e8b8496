//! How the stream of a session has ended, which says whether the session has.
//!
//! | what happens | what is seen of it | so it is |
//! |---|---|---|
//! | the peer ends its stream | the stream's end | meant |
//! | the peer drops the call: RST_STREAM with CANCEL | the same; only who is alive can do that | meant |
//! | the peer does not answer pings, so that we end the connection | the same; it has had its time | meant |
//! | the peer is killed, or its host; the network fails with a word | an error of the connection | broken |
//! | something on the way gives it up: GOAWAY, any other RST_STREAM | an error of HTTP/2, not ours | broken |
//! | the peer does not keep to HTTP/2 | an error of HTTP/2, ours | final |
//! | what comes is no frame, or no message | an error of what decodes | final |

use std::error::Error;

use tonic::{Code, Status};

/// How a stream has ended.
#[derive(Debug)]
pub(super) enum End {
    /// As the peer wanted, or must have known.
    Meant,
    /// The connection is lost: the peer may come back on another one.
    Broken(Status),
    /// The session cannot go on.
    Final(Status),
}

impl End {
    /// What an error of the stream means. `garbled`: it is about what the peer has sent.
    pub(super) fn of(status: Status, garbled: bool) -> Self {
        if garbled {
            return Self::Final(blamed(status));
        }
        match of_http2(&status) {
            Some(error) if error.is_library() => Self::Final(blamed(status)),
            Some(_) => Self::Broken(status),
            // Streams that are not gRPC's say it so.
            None if status.code() == Code::Unavailable => Self::Broken(status),
            None => Self::Final(blamed(status)),
        }
    }
}

/// What cannot be decoded is the peer's fault, which gRPC's library does not say.
pub(super) fn blamed(status: Status) -> Status {
    match status.code() {
        Code::Internal => Status::invalid_argument(status.message().to_owned()),
        _ => status,
    }
}

/// The error of HTTP/2 that is behind it, if there is one.
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
