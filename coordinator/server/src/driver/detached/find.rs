//! What the store has of a job that a client detaches, and new jobs.

use farpool_proto::v1::{Detach, OpenJob};
use farpool_store::{Job, JobStore, JobStoreErrorKind};
use tonic::Status;

use super::super::round::Round;
use super::checks::{check_opening, dropped, known, status};
use super::detaching::Detaching;
use super::keeper::Keeper;

/// What the store has of the job that a client detaches.
pub(super) enum Found {
    /// All of it, of so many items.
    Complete(u64),
    /// Nothing, or a part: the job's number.
    Incomplete(u64),
}

/// Finds the job of a session in the store, whether or not the session has come to open it.
pub(super) fn find<'k>(keeper: &'k Keeper, session: &Detaching) -> Option<&'k Job> {
    if let Some(number) = session.job {
        return keeper.job(number);
    }
    let there = keeper.store().find(session.owner.tenant(), session.parked_name()?)?;
    (there.known.id == session.id && there.known.owner == session.owner).then_some(there)
}

/// Finds what is there of the job of a session, or opens it. `cannot_keep`: why no new job is accepted.
pub(super) fn find_or_open(
    keeper: &mut Keeper,
    round: &Round,
    session: &Detaching,
    detach: Detach,
    open: &OpenJob,
    cannot_keep: Option<&Status>,
    is_unwanted: impl Fn(u64) -> bool,
) -> Result<Found, Status> {
    let Detaching { owner, id, pool, .. } = session;
    match keeper.store().find(owner.tenant(), &detach.name) {
        Some(there) if there.known.id != *id || there.known.owner != *owner || is_unwanted(there.number) => {
            Err(Status::already_exists(format!("there already is a job {:?}", detach.name)))
        }
        Some(there) if !keeper.is_received(there) => Ok(Found::Complete(there.end)),
        Some(there) if there.end >= detach.durable => Ok(Found::Incomplete(there.number)),
        None if detach.durable == 0 => {
            cannot_keep.map_or(Ok(()), |why| Err(why.clone()))?;
            let known = known(owner.clone(), id.clone(), detach, open)?;
            check_opening(pool, open)?;
            let now_ms = keeper.now_ms(round.now);
            let opened = keeper.store_mut().open(known, pool, open, now_ms);
            opened.map(Found::Incomplete).map_err(|error| status(&error))
        }
        _ => Err(dropped()),
    }
}

/// Returns whether a new job of so many bytes can be answered now: the store has room, or will not get any by waiting. `given_up`:
/// writing has failed for too long.
pub(super) fn has_room(store: &dyn JobStore, bytes: u64, given_up: bool) -> bool {
    match store.takes(2 * bytes).map_err(|error| error.kind()) {
        Err(JobStoreErrorKind::Busy) => false,
        Err(JobStoreErrorKind::Io) => given_up,
        _ => true,
    }
}
