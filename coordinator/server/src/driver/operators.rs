//! Answers to operators and to owners of detached jobs, with limited frequency.

use std::collections::BTreeMap;

use farpool_proto::v1::{ListDetachedReply, StatusReply};
use tonic::Status;

use super::super::clock::Clock;
use super::super::published::{Asker, Waiting, encode};

/// The requests that wait for an answer shared by all callers.
#[derive(Default)]
pub(super) struct PendingRequests {
    status: Waiting,
    /// By tenant.
    detached: BTreeMap<String, Waiting>,
}

impl PendingRequests {
    pub(super) fn ask_status(&mut self, asker: Asker) {
        self.status.add(asker);
    }

    pub(super) fn ask_detached(&mut self, tenant: &str, asker: Asker) {
        self.detached.entry(tenant.to_owned()).or_default().add(asker);
    }

    pub(super) fn next_check(&self) -> Option<u64> {
        self.detached.values().chain([&self.status]).filter_map(Waiting::next_check).min()
    }

    /// Answers requests for the status, if it is time. `kept` is how many bytes an answer may keep.
    pub(super) fn answer_status(&mut self, clock: Clock, now: u64, kept: u64, status: impl FnOnce() -> StatusReply) {
        if self.status.is_due(now) {
            let begun = clock.now();
            let status = Ok(encode(&status()));
            let now = clock.now();
            self.status.answer(&status, now - begun, now, kept);
        }
    }

    /// Answers requests for the list of a tenant's jobs, if it is time. `kept` is how many bytes an answer may keep.
    pub(super) fn answer_detached(
        &mut self,
        clock: Clock,
        now: u64,
        kept: u64,
        list: impl Fn(&str) -> Result<ListDetachedReply, Status>,
    ) {
        for (tenant, waiting) in self.detached.iter_mut().filter(|(_, waiting)| waiting.is_due(now)) {
            let begun = clock.now();
            let list = list(tenant).map(|list| encode(&list));
            let now = clock.now();
            waiting.answer(&list, now - begun, now, kept);
        }
        // Tenants that may not get another answer yet are kept.
        self.detached.retain(|_, waiting| !waiting.is_idle(now));
    }
}
