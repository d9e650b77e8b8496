//! How farpool's sessions travel between machines: code that coordinator, agents and clients share for sessions over
//! gRPC. Local mode does not use it.
//!
//! A session is one bidirectional stream. Each side pushes messages to an [`Outgoing`] queue, from which gRPC takes
//! [frames](SessionMessage) with all waiting messages. Messages above 1 MiB travel in pieces; a client's messages
//! already above 1/32 of the coordinator's window ([`Outgoing::set_frame_budget`]). The receiver extracts them with
//! [`Incoming`]. While it does not ask for more, HTTP/2's flow control holds the sender back.
//!
//! # Sessions outlive connections
//!
//! Both sides count the messages of a session and acknowledge them in their frames. A frame that only acknowledges is
//! sent when much is unacknowledged. A queue keeps each frame until the peer has acknowledged it. It shares the
//! messages with the frame that gRPC encodes, so keeping them costs nothing. When a connection is lost, the side that
//! connects opens another one with [`Outgoing::resume`]. The other side recognises the session by [`Opening::read`] and
//! answers with [`Outgoing::reconnect`], and [`Outgoing::resumed`] reads the answer. Each side has told the other what
//! it has received, and the rest is resent. So each message arrives once and in order, as long as both sides live.
//!
//! A connection that was replaced by another one receives nothing more, however late its frames arrive. This crate has
//! no clock and does not decide when a session is given up. It checks what the peer sends, and refuses what is
//! impossible.
//!
//! The sender bounds what is kept: [`Outgoing::bytes`] counts it. An honest peer leaves little more unacknowledged than
//! HTTP/2 has in flight, but acknowledgements are processed only while [`Incoming`] is read.

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
