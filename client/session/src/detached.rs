//! Jobs that a cluster keeps: detached by one process, picked up by another.

mod outcomes;

pub use outcomes::Outcomes;

pub use crate::cluster::detached::{
    DetachSettings, JobLocation, JobReader, JobRef, JobSender, ReadEnd, Step, about, cancel, discard,
};
