//! Carries out the core's actions.

use farpool_core::{Action, Event, JobId, PoolId};
use farpool_proto::v1::{Chunk, EndJob, Failure, ItemsDone, ItemsFailed, JobEnded, agent_command, client_event};

use super::{sharing, start};
use crate::AgentId;
use crate::convert::Batch;
use crate::parts::Parts;
use crate::parts::jobs::Released;
use crate::round::{Report, ReportId, Round};

/// Sends the core an event and carries out its actions.
pub(crate) fn feed(parts: &mut Parts, round: &mut Round<'_>, event: Event) {
    round.send_to_core(event);
    follow(parts, round, Report::none());
}

/// Carries out the core's actions. `report`: details of the last event. Returns the report's id if it had no
/// consequence.
pub(crate) fn follow(parts: &mut Parts, round: &mut Round<'_>, mut report: Report) -> Option<ReportId> {
    carry_out(parts, round, &mut report);
    while let Some((pool, agent)) = round.next_withdrawn() {
        round.send_to_core(Event::PlaceStopped { pool, agent });
        carry_out(parts, round, &mut Report::none());
    }
    report.take_id()
}

fn carry_out(parts: &mut Parts, round: &mut Round<'_>, report: &mut Report) {
    let mut actions = round.take_actions();
    for action in actions.drain(..) {
        match action {
            Action::Assign { agent, chunk, job, first, count, attempt } => {
                let chunk = Chunk { chunk: chunk.to_bits(), job: job.to_bits(), first, attempt, segments: 0 };
                assign(parts, agent, job, chunk, count);
            }
            Action::Accept { job, first, count, attempts } => {
                deliver(parts, round, job, (first, count), attempts, report);
            }
            Action::Fail { job, first, count, attempts, cause } => {
                fail(parts, round, job, (first, count), report.failure(attempts, cause), report);
            }
            Action::Retract { agent, chunk } => {
                parts.agents.mail_for(agent).into_iter().for_each(|mail| mail.retract(chunk));
            }
            Action::StartPool { agent, pool, workers } => start::start_pool(parts, round, agent, pool, workers),
            Action::ResizePool { agent, pool, workers } => start::resize_pool(parts, round, agent, pool, workers),
            Action::StopPool { agent, pool } => start::give_up_place(parts, round, agent, pool),
            Action::StartJob { agent, job } => start_job(parts, round, agent, job),
            Action::EndJob { agent, job, kill } => {
                parts.agents.send_cancelled(agent, round.out);
                round.out.agent(agent, agent_command::Body::EndJob(EndJob { job: job.to_bits(), kill }));
            }
            Action::JobFinished { job, cancelled } => finish_job(parts, round, job, cancelled),
            Action::Retrying { job, .. } => note_no_message(parts, job, report.take_id()),
            Action::CancelChunk { agent, chunk } => {
                parts.agents.mail_for(agent).into_iter().for_each(|mail| mail.cancel(chunk));
            }
        }
    }
    round.reuse(actions);
}

fn assign(parts: &mut Parts, agent: AgentId, job: JobId, chunk: Chunk, count: u64) {
    let Some(job) = parts.jobs.get(job) else { return };
    let Some(mail) = parts.agents.mail_for(agent) else { return };
    let first = chunk.first;
    mail.assign(chunk, |segments| job.cut(first, count, segments));
}

fn start_job(parts: &Parts, round: &mut Round<'_>, agent: AgentId, id: JobId) {
    let Some(job) = parts.jobs.get(id) else { return };
    round.out.agent(agent, agent_command::Body::StartJob(job.start_message(id)));
}

/// Delivers results as the items' outcomes.
fn deliver(
    parts: &mut Parts,
    round: &mut Round<'_>,
    id: JobId,
    (first, count): (u64, u64),
    attempts: u32,
    report: &mut Report,
) {
    let Batch { data, ends, failed, .. } = report.take_results(first, count);
    let Some(job) = parts.jobs.get_mut(id) else { return };
    let released = job.release(first, count, failed, round.now);
    let (pool, number) = (job.spec().pool, job.spec().number);
    // Nearly always there was one attempt: 0 stands for that, and takes no byte.
    let attempts = if attempts > 1 { attempts } else { 0 };
    let done = ItemsDone { job: number, first, data, ends, failed, attempts };
    send_outcomes(parts, round, pool, client_event::Body::ItemsDone(done), released, report);
}

/// Delivers the failure of items.
fn fail(
    parts: &mut Parts,
    round: &mut Round<'_>,
    id: JobId,
    (first, count): (u64, u64),
    failure: Failure,
    report: &mut Report,
) {
    let Some(job) = parts.jobs.get_mut(id) else { return };
    let released = job.release(first, count, true, round.now);
    let (pool, number) = (job.spec().pool, job.spec().number);
    let failed = ItemsFailed { job: number, first, failure: Some(failure), count };
    send_outcomes(parts, round, pool, client_event::Body::ItemsFailed(Box::new(failed)), released, report);
}

/// Sends the client outcomes, and a new limit if it may send more.
#[inline]
fn send_outcomes(
    parts: &mut Parts,
    round: &mut Round<'_>,
    pool: PoolId,
    outcomes: client_event::Body,
    released: Released,
    report: &mut Report,
) {
    let Some(pool) = parts.pools.get_mut(pool) else { return };
    let client = pool.client();
    if released.bytes > 0 {
        parts.clients.forget_item_bytes(client, released.bytes);
    }
    round.out.client(client, outcomes);
    released.window.into_iter().for_each(|window| round.out.client(client, window));
    if let Some(report) = report.take_id() {
        pool.unsettled.caused_message(report);
    }
}

/// The report was of this job, and the client gets no message for it.
fn note_no_message(parts: &mut Parts, job: JobId, report: Option<ReportId>) {
    let Some(ReportId { agent, .. }) = report else { return };
    let Some(id) = parts.jobs.get(job).map(|job| job.spec().pool) else { return };
    if let Some(pool) = parts.pools.get_mut(id) {
        pool.unsettled.caused_no_message(agent, id, &mut parts.settlement);
    }
}

/// Cancels a job, whether the core knows it already or not.
pub(crate) fn cancel(parts: &mut Parts, round: &mut Round<'_>, id: JobId) {
    let pool = parts.jobs.get(id).and_then(|job| parts.pools.get(job.spec().pool));
    match pool.map(|pool| pool.is_reopening()) {
        Some(false) => feed(parts, round, Event::JobCancelled { job: id }),
        // The core does not know it.
        Some(true) => finish_job(parts, round, id, true),
        None => {}
    }
}

/// A job has ended.
pub(crate) fn finish_job(parts: &mut Parts, round: &mut Round<'_>, id: JobId, cancelled: bool) {
    let Some(job) = parts.jobs.remove(id) else { return };
    let spec = job.spec();
    parts.labels.give_back(&spec.require);
    let pool = parts.pools.get_mut(spec.pool).expect("a pool outlives its jobs");
    let client = pool.client();
    parts.clients.forget_item_bytes(client, job.payloads().cost());
    // The client was told of the pool's failure, which ended its jobs.
    if parts.clients.end_job(client, spec.number, job.own_cost()) && !pool.has_failed() {
        round.out.client(client, client_event::Body::JobEnded(JobEnded { job: spec.number, cancelled }));
    }
    if !spec.require.is_empty() {
        round.note_to_review(spec.pool);
    }
    pool.job_ended();
    if pool.is_done() {
        round.note_to_end(spec.pool);
    }
    sharing::job_ended(parts, round, spec.pool, spec.name);
}
