//! Sessions with clients.

use bytes::Bytes;
use farpool_core::Event;
use farpool_proto::v1::{Welcome, client_event};

use super::job;
use crate::convert::{FromClient, PoolRequest};
use crate::parts::Parts;
use crate::parts::former::{Awaiting, PoolRecovery};
use crate::parts::pools::{Pool, PoolSpec};
use crate::refused::{Refused, RefusedKind};
use crate::round::Round;
use crate::steps::adoption::{adopt_starting, start_where_acknowledged};
use crate::steps::follow::feed;
use crate::steps::{ending, recovery, settling};
use crate::{ClientId, Principal};

/// Handles a message from a client.
pub(crate) fn receive(
    parts: &mut Parts,
    round: &mut Round<'_>,
    from: ClientId,
    message: FromClient,
) -> Result<(), Refused> {
    let client = parts.clients.get(from).filter(|client| !client.is_over()).ok_or(RefusedKind::NoSession)?;
    let pool = match client.pool() {
        Some(pool) => pool,
        None => {
            let FromClient::OpenPool(request) = message else { return Err(RefusedKind::NotFirst("OpenPool").into()) };
            let owner = client.owner().clone();
            open_pool(parts, round, from, owner, *request);
            return Ok(());
        }
    };
    match message {
        FromClient::OpenPool(_) => return Err(RefusedKind::Repeated("OpenPool").into()),
        FromClient::OpenJob { job, request } => job::open(parts, round, (from, pool), job, request)?,
        FromClient::Items { job, batch } => job::items(parts, round, (from, pool), job, batch)?,
        FromClient::EndItems { job } => job::end_items(parts, round, (from, pool), job)?,
        FromClient::StopRetries { job } => job::stop_retries(parts, round, (from, pool), job)?,
        FromClient::CancelJob { job } => job::cancel(parts, round, (from, pool), job)?,
        FromClient::PoolReopened if recovery::complete(parts, round, pool) => {}
        FromClient::PoolReopened => return Err(RefusedKind::NotReopening.into()),
        FromClient::AwaitingItems { waits } => parts.lends.note_waiting(from, waits),
        FromClient::ClosePool { now } => ending::close(parts, round, pool, now),
    }
    Ok(())
}

/// A client's session has ended: its jobs are dropped and its workers stopped.
pub(crate) fn gone(parts: &mut Parts, round: &mut Round<'_>, id: ClientId) {
    let Some(client) = parts.clients.remove(id) else { return };
    parts.lends.close(id);
    let pool = client.pool();
    if let Some(closed) = client.into_closed_pool() {
        settling::settle_gone(parts, round, closed);
    }
    if let Some(pool) = pool {
        settling::settle_all(parts, pool);
        ending::close(parts, round, pool, true);
    }
}

/// Messages for the client were taken from the outbox; the last of all so far has this number.
pub(crate) fn numbered(parts: &mut Parts, client: ClientId, last: u64) {
    let pool = parts.clients.pool_of(client).and_then(|pool| parts.pools.get_mut(pool));
    if let Some(pool) = pool {
        pool.unsettled.number(last);
        pool.places.number(last);
    }
}

/// The client has acknowledged its messages up to this one.
pub(crate) fn acknowledged(parts: &mut Parts, round: &mut Round<'_>, client: ClientId, last: u64) {
    settling::settle_up_to(parts, client, last);
    start_where_acknowledged(parts, round, client, last);
}

/// The client has stopped reading its messages, or has resumed.
pub(crate) fn pause(parts: &mut Parts, round: &mut Round<'_>, client: ClientId, paused: bool) {
    let Some(id) = parts.clients.pool_of(client) else { return };
    let Some(pool) = parts.pools.get_mut(id) else { return };
    if pool.pause(paused) && !pool.is_reopening() {
        feed(parts, round, Event::PoolPaused { pool: id, paused });
    }
}

fn open_pool(parts: &mut Parts, round: &mut Round<'_>, client: ClientId, owner: Principal, mut request: PoolRequest) {
    if let Some(ticket) = request.ticket {
        parts.lends.open(client, ticket);
    }
    let limit = &mut request.settings.payload_limit;
    *limit = (*limit).min(round.config.payload_limit);
    let (slots, weight, require) = (request.processes, request.weight, parts.labels.take(&request.require));
    let reopening = request.ran_at.take().map(|agents| PoolRecovery::new(agents, require.clone()));
    let reopens = reopening.is_some();
    let spec = PoolSpec { client, owner, name: parts.names.next(), request, opened_at: round.now };
    let id = parts.pools.insert(Pool::new(spec, reopening));
    parts.clients.get_mut(client).expect("the client was just found").set_pool(id);
    let coordinator = round.config.id.map_or_else(Bytes::new, |id| Bytes::copy_from_slice(&id));
    let welcome = Welcome {
        version: Some(farpool_proto::version()),
        window: round.config.window,
        coordinator,
        payload_limit: round.config.payload_limit,
    };
    round.out.client(client, client_event::Body::Welcome(welcome));
    if reopens {
        parts.deadlines.wait(Awaiting::Agents(id), round.now, round.config.recovery);
    } else {
        feed(parts, round, Event::PoolOpened { pool: id, slots, weight, require, held: Vec::new() });
        // If the client tells the truth, no agent can hold a pool that was never open.
        adopt_starting(parts, round);
        round.note_to_review(id);
    }
}
