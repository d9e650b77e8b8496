//! Detached jobs: calls of the coordinator's `DetachedJobs`.
//!
//! Each of them has a thread of its own for as long as it takes, so that it can be waited for in any program, async or not.
//! When a connection is lost the call is made again, from where it was.

mod ask;
mod attempts;
#[cfg(feature = "simulation")]
mod by_hand;
mod inbox;
mod keeper;
mod outbox;
mod read;
mod refusal;
mod send;
#[cfg(test)]
mod tests;
mod thread;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farpool_proto::v1::OpenPool;

use super::Address;
use super::connect::Grpc;
use super::new_id;
pub(crate) use ask::{about, cancel, discard};
use attempts::Attempts;
#[cfg(feature = "simulation")]
pub use by_hand::{Caller, DetachedOutcomes, Handing, Next};
pub(crate) use inbox::End;
#[cfg(feature = "simulation")]
pub use keeper::Keeper;
pub(crate) use read::{Reading, Step};
pub(crate) use send::Sending;

/// Where detached jobs are kept, and how long it is tried to get there when the connection is lost.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) address: Address,
    pub(crate) patience: Duration,
}

/// A detached job as it is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) name: Arc<str>,
    /// Which of all that have the name one after another; empty: whichever has it now.
    pub(crate) id: Bytes,
}

impl Named {
    /// Whichever job has the name.
    pub(crate) fn whichever(name: &str) -> Self {
        Self { name: name.into(), id: Bytes::new() }
    }

    /// As messages have it.
    fn parts(&self) -> (String, Bytes) {
        (self.name.to_string(), self.id.clone())
    }
}

/// What a pool on a cluster gives to the jobs that it detaches.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    pub(crate) place: Place,
    /// What their own pools are opened with.
    pub(crate) pool: OpenPool,
}

impl Place {
    /// The way there.
    fn way(&self) -> Grpc {
        Grpc::new(&self.address)
    }

    fn attempts(&self) -> Attempts {
        // Its end is random.
        Attempts::new(self.patience, new_id().as_u64_pair().1)
    }
}
