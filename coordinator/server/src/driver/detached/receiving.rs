//! A job that is being detached.

use farpool_coordinator::ClientId;
use farpool_programs::Digest;
use farpool_proto::v1::OpenPool;

use super::checks::{digest_of, payload_limit_of};

/// What a job's pool was opened with. A client that continues the job opens its pool with the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PoolFacts {
    pub(super) program: Digest,
    pub(super) payload_limit: u64,
}

/// A job that is not complete, or not known to be complete.
#[derive(Default)]
pub(super) struct Receiving {
    /// The session in which its client detaches it. `None`: its client may open another one.
    pub(super) client: Option<ClientId>,
    /// Since when there is no session.
    pub(super) since: u64,
    /// What its pool was opened with; `None`: that cannot be read.
    pub(super) pool: Option<PoolFacts>,
    /// The program, while it is missing.
    pub(super) wants: Option<Digest>,
    /// The input has ended. The record that completes the job was appended to the store.
    pub(super) input_ended: bool,
    pub(super) completion_appended: bool,
    /// Its client has withdrawn it, and the withdrawal is not in the store.
    pub(super) withdrawn: bool,
}

impl PoolFacts {
    /// Returns the facts of a pool; `None` if its program is missing or malformed.
    pub(super) fn of(pool: &OpenPool) -> Option<Self> {
        Some(Self { program: digest_of(pool)?, payload_limit: payload_limit_of(pool) })
    }
}

impl Receiving {
    /// Notes that its client has left.
    pub(super) fn lose_client(&mut self, now: u64) {
        (self.client, self.since, self.input_ended) = (None, now, self.completion_appended);
    }

    /// Returns since when no client has been detaching it; `None` if one is, or if it completes.
    pub(super) fn away_since(&self) -> Option<u64> {
        (self.client.is_none() && !self.completion_appended).then_some(self.since)
    }
}
