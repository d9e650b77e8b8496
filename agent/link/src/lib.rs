//! The link between an agent and one of its workers: shared memory for all messages, and a socket. The socket
//! wakes the other side (one byte, if it sleeps), carries [sealed] files, and shows when that side has ended.
//!
//! Why not only a socket: outcomes that a worker wrote into the ring survive its death, a busy pair makes no system calls, and
//! large payloads move through existing pages.
//!
//! The crate also has everything else that both ends share: the messages of fork servers ([`message`]), exit codes of
//! workers ([`exit_code`]), processes by pidfd ([`process`]), and detection of forks ([`fork`]).

pub mod clock;
pub mod exit_code;
pub mod fork;
pub mod item_token;
pub mod message;
pub mod process;
pub mod record;
pub mod sealed;

mod descriptors;
mod memory;
mod ring;
mod status;

pub use memory::{Direction, Memory, RING_BYTES, check_file_limit};
pub use ring::{Corrupt, Reader, Writer};
pub use status::{MAX_POSITION, MAX_THREADS, NOTE_BYTES, RunningItem, Status};
