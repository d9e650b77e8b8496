//! Jobs that a cluster keeps: detached by one process, picked up by another.

mod outcomes;

pub use outcomes::Outcomes;

pub use crate::cluster::detached::{End, Ground, Named, Place, Reading, Sending, Step, about, cancel, discard};
