//! Finds the job that a client detaches in the store, or opens a new one.

use std::collections::BTreeMap;

use farpool_proto::v1::{Detach, OpenJob};
use farpool_store::{Job, JobStore, JobStoreErrorKind};
use tonic::Status;

use super::super::round::Round;
use super::checks::{check_opening, dropped, known, status};
use super::detaching::Detaching;
use super::receiving::{PoolFacts, Receiving};
use super::tracked_store::TrackedStore;

/// How much the store has of the job that a client detaches.
pub(super) enum FoundJob {
    /// All of it; its number of items.
    Complete(u64),
    /// Nothing, or a part: the job's number.
    Incomplete(u64),
}

/// Finds the job of a session in the store, even if the session has not opened it yet.
pub(super) fn find<'k>(tracked: &'k TrackedStore, session: &Detaching) -> Option<&'k Job> {
    if let Some(number) = session.job {
        return tracked.job(number);
    }
    let existing = tracked.store().find(session.owner.tenant(), session.parked_name()?)?;
    (existing.known.id == session.id && existing.known.owner == session.owner).then_some(existing)
}

/// Finds the job of a session in the store, or opens it. `facts` are its pool's, and `cannot_keep` is why no new job is accepted.
pub(super) fn find_or_open(
    tracked: &mut TrackedStore,
    round: &Round,
    session: &Detaching,
    (detach, open): (Detach, &OpenJob),
    facts: PoolFacts,
    cannot_keep: Option<&Status>,
    received: &BTreeMap<u64, Receiving>,
) -> Result<FoundJob, Status> {
    let Detaching { owner, id, pool, .. } = session;
    let is_withdrawn = |job| received.get(&job).is_some_and(|receiving| receiving.withdrawn);
    let has_other_pool =
        |job| received.get(&job).and_then(|receiving| receiving.pool).is_some_and(|pool| pool != facts);
    match tracked.store().find(owner.tenant(), &detach.name) {
        Some(existing)
            if existing.known.id != *id || existing.known.owner != *owner || is_withdrawn(existing.number) =>
        {
            Err(Status::already_exists(format!("there already is a job {:?}", detach.name)))
        }
        Some(existing) if !tracked.is_received(existing) => Ok(FoundJob::Complete(existing.end)),
        Some(existing) if has_other_pool(existing.number) => Err(Status::invalid_argument(format!(
            "the job {:?} was begun with another program or payload limit: continue it with the same, or detach it under another name",
            detach.name
        ))),
        Some(existing) if existing.end >= detach.durable => Ok(FoundJob::Incomplete(existing.number)),
        None if detach.durable == 0 => {
            cannot_keep.map_or(Ok(()), |why| Err(why.clone()))?;
            let known = known(owner.clone(), id.clone(), detach, open)?;
            check_opening(pool, open)?;
            let now_ms = tracked.now_ms(round.now);
            let opened = tracked.store_mut().open(known, pool, open, now_ms);
            opened.map(FoundJob::Incomplete).map_err(|error| status(&error))
        }
        _ => Err(dropped()),
    }
}

/// Returns whether a new job of this many bytes can be answered now: the store has room, or waiting will not make any. `given_up`: writing
/// has failed for too long.
pub(super) fn has_room(store: &dyn JobStore, bytes: u64, given_up: bool) -> bool {
    match store.takes(2 * bytes).map_err(|error| error.kind()) {
        Err(JobStoreErrorKind::Busy) => false,
        Err(JobStoreErrorKind::Io) => given_up,
        _ => true,
    }
}
