//! The embedded store: a journal, which is a log in segments on this host's disk.
//!
//! Its owner appends to the log and keeps an index of it in memory ([`Journal`]). A thread writes (`writer.rs`), step by step as
//! `group.rs` has it, and tasks read (`reads.rs`). No other code knows where records lie, or that compaction moves them
//! (`compaction.rs`).
//!
//! # Files
//! A segment (`segment.rs`) is a header, records (`record.rs`), and a seal when it is full. The file `synced` has the number of the last
//! segment and the position up to which it is durable. Files that were set aside stay until somebody removes them. They do not count
//! towards the journal's size, but their number and size are logged when the journal is opened, and `farpool status` lists them.
//!
//! # Writing
//! All batches that wait are written and synced together: as many as came while the disk was busy. A record counts as
//! acknowledged when it is durable. Until then agents keep the outcomes in it.
//!
//! **A job is all or nothing.** One record makes it complete, and nothing of it runs before that record, all items and the program
//! are durable. If its items must not run twice, it is also durable where its pool runs and how far its items were given
//! out, before they are given out.
//!
//! **If the disk is full**, and nothing was written for half a second, jobs that are being detached are refused
//! (`coordinator/server/src/driver/detached/refuse.rs`). Nothing of such a job may ever run, so the record that makes it complete must not
//! be on disk. If the writer already has that record, it cuts off everything that is not durable and writes a filler instead
//! (`group.rs`). Only then is the client told. If it cannot be cut off, the client waits.
//!
//! What was refused may be what fills the disk. So its items are not written any more: in their place are holes with the heads
//! of fillers, and no other record moves (`left_out.rs`). Those at the log's end are cut off, after `synced` was lowered. Complete jobs
//! wait for space.
//!
//! # Damage
//! **A damaged journal loses only the damaged part.** What lies behind the position in `synced` is an interrupted write, and is cut
//! off. It is copied first, unless it is only a partial record. What cannot be read before that position is damage (`replay.rs`), and
//! so is a segment that `synced` names and that is missing: each start says so until the log continues behind it.
//!
//! After damage the next whole record is searched for (`resync.rs`). Checksums include a record's position, so bytes in items
//! that look like records are not mistaken for any. A damaged segment is emptied like one with too little live data, and renamed
//! instead of removed. What becomes of jobs with missing parts is in `repair.rs`. `farpool status` also shows what was damaged or missing
//! when the journal was opened.

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
