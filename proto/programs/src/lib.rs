//! Programs: the executables that workers run. A program is identified by its digest, travels compressed and in pieces,
//! and is kept on disk by the coordinator and the agents.
//!
//! Functions that read or write files block. Call those that are not `async` on a thread that may block
//! (`tokio::task::spawn_blocking`).

mod compression;
mod digest;
mod directories;
mod pieces;
mod receive;
mod store;

#[cfg(test)]
mod scratch;

pub use digest::{Digest, DigestError, digest_of};
pub use directories::ProgramDirectories;
pub use pieces::{PIECE_BYTES, PieceReplies, Pieces};
pub use receive::receive;
pub use store::{Form, InUse, ProgramStore, StoreError, StoreErrorKind, Writer};
