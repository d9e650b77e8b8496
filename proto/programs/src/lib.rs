//! Programs: the executables that workers run. A program is named by its digest, travels in pieces, and is kept on disk
//! by the coordinator and the agents.
//!
//! Functions that read or write files block; those that are not `async` belong on a thread that may
//! (`tokio::task::spawn_blocking`).

mod digest;
mod directories;
mod pieces;
mod receive;
mod store;

#[cfg(test)]
mod scratch;

pub use digest::{Digest, DigestError, digest_of};
pub use directories::ProgramDirectories;
pub use pieces::{PIECE_BYTES, PieceReplies, Pieces, pieces};
pub use receive::receive;
pub use store::{InUse, ProgramStore, StoreError, StoreErrorKind, Writer};
