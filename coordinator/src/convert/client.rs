//! Messages from clients.

use std::num::{NonZeroU32, NonZeroU64};

use bytes::Bytes;
use farpool_core::JobPolicy;
use farpool_proto::limits;
use farpool_proto::v1::{
    self, ClientMessage, Items, Label, OpenJob, OpenPool, Program, WorkerSettings, client_message,
};

use super::{Batch, batch, identity, labels};
use crate::ids::Identity;
use crate::refused::{Refused, RefusedKind};

/// A checked message from a client.
#[derive(Debug)]
pub(crate) enum FromClient {
    OpenPool(Box<PoolRequest>),
    OpenJob { job: u64, request: JobRequest },
    Items { job: u64, batch: Batch },
    EndItems { job: u64 },
    StopRetries { job: u64 },
    CancelJob { job: u64 },
    ClosePool { now: bool },
    PoolReopened,
    AwaitingItems { waits: bool },
}

/// A ticket: the running item whose slot an agent lends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    pub(crate) agent: Identity,
    pub(crate) id: [u8; 16],
}

/// The settings of a pool, from its client.
#[derive(Debug, Default)]
pub(crate) struct PoolRequest {
    /// Workers at once; `None`: as many as there are slots.
    pub(crate) processes: Option<NonZeroU32>,
    pub(crate) settings: WorkerSettings,
    /// The program of the workers; none in local mode.
    pub(crate) program: Option<ProgramRequest>,
    pub(crate) require: Vec<Label>,
    pub(crate) weight: u32,
    /// Identifies the pool when it is opened again; none in local mode.
    pub(crate) id: Option<Identity>,
    /// The agents that it ran at; `None`: it was not open before.
    pub(crate) ran_at: Option<Vec<Identity>>,
    /// The item whose slot is lent to the client, if a task started the client.
    pub(crate) ticket: Option<Ticket>,
}

/// A program as agents receive it, and its digest.
#[derive(Debug)]
pub(crate) struct ProgramRequest {
    pub(crate) digest: Bytes,
    pub(crate) packed: Bytes,
}

/// The settings of a job, from its client.
#[derive(Debug)]
pub(crate) struct JobRequest {
    pub(crate) function: Bytes,
    pub(crate) shared: bool,
    pub(crate) timeout_ns: u64,
    pub(crate) policy: JobPolicy,
    pub(crate) label: String,
    pub(crate) require: Vec<Label>,
}

pub(crate) fn from_client(message: ClientMessage) -> Result<FromClient, Refused> {
    use client_message::Body;
    Ok(match message.body.ok_or(RefusedKind::Empty)? {
        Body::OpenPool(open) => open_pool(*open)?,
        Body::OpenJob(open) => open_job(*open)?,
        Body::Items(Items { job, first, data, ends }) => FromClient::Items { job, batch: batch(first, data, ends)? },
        Body::EndItems(end) => FromClient::EndItems { job: end.job },
        Body::StopRetries(stop) => FromClient::StopRetries { job: stop.job },
        Body::CancelJob(cancel) => FromClient::CancelJob { job: cancel.job },
        Body::ClosePool(close) => FromClient::ClosePool { now: close.now },
        Body::PoolReopened(_) => FromClient::PoolReopened,
        Body::AwaitingItems(awaiting) => FromClient::AwaitingItems { waits: awaiting.waits },
        Body::Attach(_) => return Err(RefusedKind::Elsewhere("Attach").into()),
    })
}

/// A client's message about a job, other than opening it.
#[derive(Debug)]
pub enum OfOneJob {
    /// Items of the job with this number.
    Items(u64, Batch),
    /// The job with this number gets no more items.
    End(u64),
    /// Some other valid message.
    Other,
}

/// Checks a message from a client that has one job.
///
/// # Errors
/// If the message is invalid in every session.
pub fn check_job_message(message: ClientMessage) -> Result<OfOneJob, Refused> {
    Ok(match from_client(message)? {
        FromClient::Items { job, batch } => OfOneJob::Items(job, batch),
        FromClient::EndItems { job } => OfOneJob::End(job),
        _ => OfOneJob::Other,
    })
}

fn open_pool(open: OpenPool) -> Result<FromClient, Refused> {
    if open.detached {
        return Err(RefusedKind::Elsewhere("a detached job's OpenPool").into());
    }
    limits::pool(open.processes, open.weight)?;
    open.settings.as_ref().map_or(Ok(()), limits::settings)?;
    let id = identity(&open.id, RefusedKind::PoolIdLength)?;
    let ran_at = if open.again {
        id.ok_or(RefusedKind::Missing("id"))?;
        let agents = open.agents.iter().map(|agent| identity(agent, RefusedKind::AgentIdLength));
        Some(agents.filter_map(Result::transpose).collect::<Result<_, _>>()?)
    } else {
        None
    };
    Ok(FromClient::OpenPool(Box::new(PoolRequest {
        processes: NonZeroU32::new(open.processes),
        settings: open.settings.unwrap_or_default(),
        program: program(open.program)?,
        require: labels(open.require)?,
        weight: open.weight.max(1),
        id,
        ran_at,
        ticket: open.ticket.map(Ticket::try_from).transpose()?,
    })))
}

fn program(packed: Bytes) -> Result<Option<ProgramRequest>, Refused> {
    let program = Program::unpacked(&packed).map_err(|error| RefusedKind::Program(error.to_string()))?;
    let Some(program) = program else { return Ok(None) };
    limits::program(&program)?;
    Ok(Some(ProgramRequest { digest: program.digest, packed }))
}

impl TryFrom<v1::Ticket> for Ticket {
    type Error = Refused;

    fn try_from(ticket: v1::Ticket) -> Result<Self, Refused> {
        let agent = identity(&ticket.agent, RefusedKind::AgentIdLength)?.ok_or(RefusedKind::Missing("ticket.agent"))?;
        let id = ticket.id[..].try_into().map_err(|_| RefusedKind::TicketIdLength(ticket.id.len()))?;
        Ok(Self { agent, id })
    }
}

fn open_job(open: OpenJob) -> Result<FromClient, Refused> {
    if open.detach.is_some() {
        return Err(RefusedKind::Elsewhere("Detach").into());
    }
    limits::job(&open)?;
    // The highest number is excluded, so that there is always a next one.
    if open.job == u64::MAX {
        return Err(RefusedKind::IndexTooHigh(open.job).into());
    }
    let policy = JobPolicy {
        chunksize: NonZeroU64::new(open.chunksize),
        retries: open.retries,
        retry_panics: open.retry_panics,
        retry_failed: open.retry_failed,
        priority: open.priority,
        speculate: open.speculate,
    };
    let OpenJob { job, function, shared, timeout_ns, label, require, .. } = open;
    let require = labels(require)?;
    Ok(FromClient::OpenJob { job, request: JobRequest { function, shared, timeout_ns, policy, label, require } })
}
