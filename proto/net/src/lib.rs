//! How farpool's sessions travel between machines: what the coordinator, the agents and the clients have in common
//! when they talk over gRPC. Local mode uses none of it.
//!
//! A session is one bidirectional stream. Each side pushes messages to an [`Outgoing`] queue, from which gRPC takes
//! [frames](SessionMessage) with as many messages as are there; messages above 1 MiB, or 512 KiB from clients, travel in pieces. The receiver
//! takes them out again with [`Incoming`]; as long as it does not ask for more, HTTP/2's flow control holds the sender
//! back.
//!
//! # Sessions outlive connections
//!
//! Both sides count the messages of a session and say in their frames how many they have taken in; a frame only for that is
//! sent when it would be many. A queue keeps each frame until the peer has said so: it shares the messages with the frame
//! that gRPC encodes, so that to keep them costs nothing. When a connection is lost, the side that connects opens another
//! one with [`Outgoing::resume`], the other side recognises it by [`Opening::read`] and answers with
//! [`Outgoing::reconnect`], and [`Outgoing::resumed`] reads the answer. Each has told the other what it has taken in, and
//! sends again from there on: so each message arrives once and in order, for as long as both sides live.
//!
//! A connection that another one has taken the place of takes nothing in any more, however late its frames come. Nothing here
//! knows of time or decides when a session is given up; what the peer says is checked, and what cannot be is refused.
//!
//! What is kept is bounded by what pushes: [`Outgoing::bytes`] counts it. An honest peer leaves little more unsaid than
//! HTTP/2 has on its way, but what it says is heard only by those who read [`Incoming`].

mod frame;
mod frames;
mod incoming;
mod kept;
mod opening;
mod outgoing;
mod replies;
mod secret;
mod session;
mod stream;

pub mod dial;
pub mod http2;
pub mod version;

pub use frame::{Parts, SessionMessage};
pub use frames::Frames;
pub use incoming::Incoming;
pub use opening::{Opening, Openings, Rest};
pub use outgoing::{Outgoing, outgoing};
pub use replies::{Replies, Reply, replies};
pub use secret::{Secret, session_id};
