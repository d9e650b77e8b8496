//! Messages from clients about jobs.

use farpool_core::{Event, JobId, PoolId, Window};

use crate::ClientId;
use crate::convert::{Batch, JobRequest};
use crate::parts::Parts;
use crate::parts::clients::{Clients, Named};
use crate::parts::former::{NewJob, PoolRecovery};
use crate::parts::jobs::{Job, JobSpec, Jobs};
use crate::parts::pools::Pool;
use crate::payloads::Payloads;
use crate::refused::{Refused, RefusedKind};
use crate::round::Round;
use crate::steps::follow::{self, feed};
use crate::steps::sharing;

/// A client and its pool.
type Session = (ClientId, PoolId);

pub(crate) fn open(
    parts: &mut Parts,
    round: &mut Round<'_>,
    (from, pool): Session,
    number: u64,
    request: JobRequest,
) -> Result<(), Refused> {
    let client = parts.clients.get_mut(from).ok_or(RefusedKind::NoSession)?;
    if client.has_used(number) {
        return Err(RefusedKind::JobNumberUsed(number).into());
    }
    let state = parts.pools.get_mut(pool).ok_or(RefusedKind::NoSession)?;
    if !state.takes_jobs() {
        if !state.has_failed() {
            return Err(RefusedKind::PoolClosed.into());
        }
        // The client could not know of the failure yet. What it sends for this job is late too.
        round.count_late();
        client.job_arrived_late(number);
        return Ok(());
    }
    let JobRequest { function, shared, timeout_ns, policy, label, require } = request;
    let (labels, requires) = (parts.labels.take(&require), !require.is_empty());
    let name = parts.names.next();
    let spec = JobSpec {
        pool,
        number,
        name,
        function,
        shared,
        timeout_ns,
        whole_chunks: policy.chunksize.is_some(),
        payload_limit: state.payload_limit(),
        label,
        priority: policy.priority,
        require,
        opened_at: round.now,
    };
    let job = Job::new(spec, Payloads::new(Window::new(round.config.window, policy.chunksize)));
    let cost = job.own_cost();
    let job = parts.jobs.insert(job);
    parts.clients.open_job(from, number, job, cost);
    if shared {
        sharing::share(parts, round, pool, number, job);
        return Ok(());
    }
    state.job_opened();
    state.shared.job_opened(name);
    match state.reopening_mut() {
        Some(reopening) => reopening.add(NewJob::new(job, policy, labels)),
        None => feed(parts, round, Event::JobOpened { job, pool, policy, require: labels }),
    }
    if requires {
        round.note_to_review(pool);
    }
    Ok(())
}

pub(crate) fn items(
    parts: &mut Parts,
    round: &mut Round<'_>,
    (from, pool): Session,
    number: u64,
    batch: Batch,
) -> Result<(), Refused> {
    let reopening = parts.pools.get(pool).and_then(Pool::reopening).map(PoolRecovery::is_complete);
    let Some((id, job)) = with_input(&parts.clients, &mut parts.jobs, round, from, number)? else { return Ok(()) };
    let (first, count, bytes, next) = (batch.first, batch.count, batch.bytes(), job.payloads().next());
    if first < next {
        return Err(RefusedKind::IndexTooLow { first, next }.into());
    }
    let limit = job.spec().payload_limit;
    if let Some((item, bytes)) = batch.longer_than(limit) {
        return Err(RefusedKind::ItemTooLarge { item, bytes, limit }.into());
    }
    // A client resends all that a previous coordinator admitted: no limit applies until it has resent everything.
    if let Some(limit) = job.payloads().overrun().filter(|_| reopening != Some(false)) {
        return Err(RefusedKind::WindowOverrun { job: number, limit }.into());
    }
    let more = job.keep(batch);
    parts.clients.add_item_bytes(from, more);
    if reopening.is_none() {
        feed(parts, round, Event::ItemsArrived { job: id, first, count, bytes });
    }
    Ok(())
}

pub(crate) fn end_items(
    parts: &mut Parts,
    round: &mut Round<'_>,
    (from, pool): Session,
    number: u64,
) -> Result<(), Refused> {
    let Some((id, job)) = with_input(&parts.clients, &mut parts.jobs, round, from, number)? else { return Ok(()) };
    job.end_input();
    if !parts.pools.get(pool).is_some_and(Pool::is_reopening) {
        feed(parts, round, Event::InputEnded { job: id });
    }
    Ok(())
}

pub(crate) fn stop_retries(
    parts: &mut Parts,
    round: &mut Round<'_>,
    (from, pool): Session,
    number: u64,
) -> Result<(), Refused> {
    let Some(job) = open_job(&parts.clients, round, from, number)? else { return Ok(()) };
    if parts.jobs.get(job).is_some_and(|job| job.spec().shared) {
        return Ok(());
    }
    match parts.pools.get_mut(pool).and_then(Pool::reopening_mut) {
        Some(reopening) => reopening.stop_retries(job),
        None => feed(parts, round, Event::RetriesStopped { job }),
    }
    Ok(())
}

pub(crate) fn cancel(
    parts: &mut Parts,
    round: &mut Round<'_>,
    (from, pool): Session,
    number: u64,
) -> Result<(), Refused> {
    let Some(job) = open_job(&parts.clients, round, from, number)? else { return Ok(()) };
    if parts.jobs.get(job).is_some_and(|job| job.spec().shared) {
        sharing::drop_value(parts, round, pool, number);
    } else {
        follow::cancel(parts, round, job);
    }
    Ok(())
}

/// Returns the job for which the client sends input; `None`: it has ended meanwhile.
fn with_input<'a>(
    clients: &Clients,
    jobs: &'a mut Jobs,
    round: &mut Round<'_>,
    from: ClientId,
    number: u64,
) -> Result<Option<(JobId, &'a mut Job)>, Refused> {
    let Some(id) = open_job(clients, round, from, number)? else { return Ok(None) };
    let job = jobs.get_mut(id).expect("a client's job is kept until it has ended");
    if job.input_ended() { Err(RefusedKind::InputEnded(number).into()) } else { Ok(Some((id, job))) }
}

/// Returns the job with the client's number; `None`: it has ended, which the client may not have known.
fn open_job(clients: &Clients, round: &mut Round<'_>, from: ClientId, number: u64) -> Result<Option<JobId>, Refused> {
    match clients.get(from).ok_or(RefusedKind::NoSession)?.named(number)? {
        Named::Open(job) => Ok(Some(job)),
        Named::Ended => {
            round.count_late();
            Ok(None)
        }
    }
}
