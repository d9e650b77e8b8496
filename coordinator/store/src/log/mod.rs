//! The embedded store: a journal, which is a log in segments on this host's disk.
//!
//! Its owner appends to the log and keeps an index of it in memory ([`Journal`]); a thread writes (`writer.rs`), step by step as
//! `group.rs` has it, and tasks read (`reads.rs`). Where records lie nobody else knows: segments are emptied while others are written
//! (`compaction.rs`).

mod append;
mod batch;
mod compaction;
mod damage;
mod group;
mod handed;
mod hands;
mod in_time;
mod index;
mod left_out;
mod located;
mod outcomes;
mod owner;
mod part;
mod place;
mod reader;
mod reads;
mod record;
mod repair;
mod replay;
mod resync;
mod segment;
mod segments;
mod settings;
mod simulated;
mod source;
mod storage;
mod store;
mod tail;
mod writer;

#[cfg(test)]
mod tests;

#[doc(hidden)]
pub use in_time::open_simulated;
pub use owner::Journal;
pub use settings::Settings;
#[doc(hidden)]
pub use simulated::{Done, Fault, Files, Lag, Simulated};
