//! The link between an agent and one of its workers: shared memory for everything that is said, a socket only to
//! wake the other side (one byte, when it sleeps) and to notice its end.
//!
//! Why not simply the socket: outcomes that a worker wrote into the ring survive its death, a busy pair makes
//! no system call at all, and large payloads move through pages that are there already.
//!
//! The crate also has what else both ends must know: how fork servers are asked for workers ([`message`]), how workers end
//! ([`exit_code`]), processes by their pidfds ([`process`]), and that a process has forked ([`fork`]).

pub mod clock;
pub mod exit_code;
pub mod fork;
pub mod item_token;
pub mod message;
pub mod process;
pub mod record;

mod descriptors;
mod memory;
mod ring;
mod status;

pub use memory::{Direction, Memory, RING_BYTES, check_file_limit};
pub use ring::{Corrupt, Reader, Writer};
pub use status::{MAX_POSITION, MAX_THREADS, NOTE_BYTES, RunningItem, Status};
