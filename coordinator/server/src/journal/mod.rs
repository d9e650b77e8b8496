//! The journal of detached jobs.

mod append;
mod batch;
mod compaction;
mod damage;
mod error;
mod group;
mod handed;
mod hands;
mod in_time;
mod index;
mod job;
mod left_out;
mod log;
mod outcomes;
mod owner;
mod place;
mod reader;
mod record;
mod repair;
mod replay;
mod resync;
mod runs;
mod segment;
mod segments;
mod settings;
mod simulated;
mod source;
mod storage;
mod writer;

#[cfg(test)]
mod tests;

pub use error::{JournalError, JournalErrorKind};
pub use job::{Counts, Ended, Job, Known, Phase, Piece};
pub use owner::{Journal, Progress, Wakeup};
pub use place::Place;
pub use reader::{Kept, ReadError, Reader};
pub use runs::Runs;
pub use settings::Settings;
#[doc(hidden)]
pub use simulated::{Done, Fault, Files, Lag, Simulated};
pub use storage::Aside;
