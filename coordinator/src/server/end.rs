//! How the stream of a session has ended, which says whether the session has.
//!
//! | what happens | what is seen here | so it is |
//! |---|---|---|
//! | the peer ends its stream | its end | meant |
//! | the peer drops the call | RST_STREAM with CANCEL, which only a living peer sends | meant |
//! | the peer is killed, its host's network is cut off with a word | an error of the connection, or its end | broken |
//! | a proxy, or the peer's HTTP/2, gives the stream or the connection up | any other RST_STREAM, GOAWAY | broken |
//! | the peer does not answer pings | our own GOAWAY | final: it has had its time |
//! | what comes is no frame | an error of what decodes | final |

use std::error::Error;

use h2::Reason;
use tonic::{Code, Status};

/// How a stream has ended.
#[derive(Debug)]
pub(super) enum End {
    /// As the peer wanted.
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
            Some(error) if error.is_reset() && error.is_remote() && error.reason() == Some(Reason::CANCEL) => Self::Meant,
            Some(error) if error.is_go_away() && !error.is_remote() => {
                Self::Final(Status::unavailable("it was silent for too long"))
            }
            Some(_) => Self::Broken(status),
            // A stream that is not gRPC's says it so.
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
