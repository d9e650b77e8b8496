//! The link between an agent and one of its workers: shared memory for everything that is said, a socket only to
//! wake the other side (one byte, when it sleeps) and to notice its end.
//!
//! Why not simply the socket: outcomes that a worker wrote into the ring survive its death, a busy pair makes
//! no system call at all, and large payloads move through pages that are there already.

pub mod item_token;
pub mod record;

mod memory;
mod ring;
mod status;

pub(crate) use memory::check_file_limit;
pub use memory::{Direction, Memory, RING_BYTES};
pub use ring::{Corrupt, Reader, Writer};
pub use status::{MAX_POSITION, MAX_THREADS, NOTE_BYTES, RunningItem, Status};
