//! The embedded store: a journal, which is a log in segments on this host's disk.
//!
//! Its owner appends to the log and keeps an index of it in memory ([`Journal`]). A thread writes (`writer.rs`), in the
//! steps of `group.rs`, and tasks read (`reads.rs`). No other code knows the locations of records, or that compaction
//! moves them (`compaction.rs`).
//!
//! # Files
//! A segment (`segment.rs`) is a header, records (`record.rs`), and a seal when it is full. The file `synced` has the
//! number of the last segment and the position up to which it is durable. Files that were set aside stay until an
//! operator removes them. They do not count towards the journal's size, but their number and size are logged when the
//! journal is opened, and `farpool status` lists them.
//!
//! # Writing
//! All batches that wait are written and synced together: as many as arrived while the disk was busy. A record counts
//! as acknowledged when it is durable. Until then agents keep the outcomes in it.
//!
//! **A job is all or nothing.** One record makes it complete, and nothing of it runs before that record, all items and
//! the program are durable. If its items must not run twice, the agents of its pool and how far its items are handed
//! out are made durable first.
//!
//! **If the disk is full**, and nothing was written for half a second, jobs that are being detached are refused
//! (`coordinator/server/src/driver/detached/refuse.rs`). Nothing of such a job may ever run, so the record that makes
//! it complete must not be on disk. If the writer already has that record, it cuts off everything that is not durable
//! and writes a filler instead (`group.rs`). Only then is the client told. If it cannot be cut off, the client waits.
//!
//! The items of refused jobs may be what fills the disk. So they are no longer written: in their place are holes with
//! the heads of fillers, and no other record moves (`left_out.rs`). Those at the log's end are cut off, after `synced`
//! was lowered. Complete jobs wait for space.
//!
//! # Damage
//! **A damaged journal loses only the damaged part.** Bytes after the position in `synced` are an interrupted write,
//! and are cut off. They are copied first, unless they are only a partial record. What cannot be read before that
//! position is damage (`replay.rs`), and so is a missing segment that `synced` names: each start reports it until the
//! log continues after it.
//!
//! After damage, the next whole record is searched for (`resync.rs`). Checksums include a record's position, so bytes
//! in items that look like records are not mistaken for any. A damaged segment is emptied like one with too little live
//! data, and renamed instead of removed. `repair.rs` handles jobs with missing parts. `farpool status` also shows what
//! was damaged or missing when the journal was opened.

mod append;
mod batch;
mod compaction;
mod damage;
mod group;
mod in_time;
mod index;
mod left_out;
mod located;
mod location;
mod outcomes;
mod owner;
mod part;
mod queued;
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
mod writer_handle;

#[cfg(test)]
mod tests;

#[doc(hidden)]
pub use in_time::open_simulated;
pub use owner::Journal;
pub use settings::Settings;
#[doc(hidden)]
pub use simulated::{Done, Fault, Files, Lag, Simulated};
