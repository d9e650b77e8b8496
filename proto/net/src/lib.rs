//! How farpool's sessions travel between machines: what the coordinator, the agents and the clients have in common
//! when they talk over gRPC. Local mode uses none of it.
//!
//! A session is one bidirectional stream. Each side pushes messages to an [`Outgoing`] queue, from which gRPC takes
//! [frames](SessionMessage) with as many messages as are there; messages above 2 MiB travel in pieces. The receiver
//! takes them out again with [`Incoming`]; as long as it does not ask for more, HTTP/2's flow control holds the sender
//! back.

mod frame;
mod frames;
mod incoming;
mod kept;
mod opening;
mod outgoing;
mod replies;
mod session;

pub mod http2;
pub mod program;
#[cfg(feature = "settings")]
pub mod settings;
pub mod version;

pub use frame::{Parts, SessionMessage};
pub use frames::Frames;
pub use incoming::Incoming;
pub use opening::{Opening, Rest};
pub use outgoing::{Outgoing, outgoing};
pub use replies::{Replies, Reply, replies};
