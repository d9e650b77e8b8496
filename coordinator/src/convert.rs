//! What peers send, checked: the only place where message types become the coordinator's own.
//!
//! Everything that can be seen from a message alone is checked here. Whether it fits the session is checked where the
//! session is.

use std::num::{NonZeroU32, NonZeroU64};

use bytes::Bytes;
use farpool_core::{ChunkId, Fault, JobPolicy, PoolId};
use farpool_proto::v1::{
    AgentEvent, AgentHello, AgentOutput, ClientMessage, Failure, FailureKind, ItemFault, Items, Label, OpenJob,
    OpenPool, OutputStream, Program, RunDone, Version, WorkerSettings, agent_event, client_message,
};

use crate::refused::{Refused, RefusedKind};

/// What a client says.
#[derive(Debug)]
pub(crate) enum FromClient {
    OpenPool(PoolAsked),
    OpenJob { job: u64, asked: JobAsked },
    Items { job: u64, batch: Batch },
    EndItems { job: u64 },
    CancelJob { job: u64 },
    ClosePool { now: bool },
    PoolReopened,
}

/// What a client wants of its pool.
#[derive(Debug, Default)]
pub(crate) struct PoolAsked {
    /// Workers at once; none: as many as there are slots.
    pub(crate) processes: Option<NonZeroU32>,
    pub(crate) settings: WorkerSettings,
    pub(crate) program: Option<Program>,
    pub(crate) require: Vec<Label>,
    pub(crate) weight: u32,
}

/// What a client wants of a job.
#[derive(Debug)]
pub(crate) struct JobAsked {
    pub(crate) function: Bytes,
    pub(crate) timeout_ns: u64,
    pub(crate) policy: JobPolicy,
    pub(crate) label: String,
    pub(crate) require: Vec<Label>,
}

/// Consecutive payloads, items or results; at least one. Known to be in order: item `i` ends at the `i`th of `ends`.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) first: u64,
    pub(crate) count: u64,
    pub(crate) data: Bytes,
    pub(crate) ends: Bytes,
}

impl Batch {
    /// The bytes that it takes up, which are what counts for a window.
    pub(crate) fn bytes(&self) -> u64 {
        (self.data.len() + self.ends.len()) as u64
    }

    /// The part of it that has these items.
    pub(crate) fn part(&self, first: u64, count: u64) -> Self {
        let from = first - self.first;
        let start = if from == 0 { 0 } else { end_at(&self.ends, from - 1) };
        let end = end_at(&self.ends, from + count - 1);
        let ends = (from..from + count).flat_map(|at| (end_at(&self.ends, at) - start).to_le_bytes()).collect();
        Self { first, count, data: self.data.slice(start as usize..end as usize), ends }
    }

    /// The first payload above the limit: its index, and how long it is.
    #[inline]
    pub(crate) fn longer_than(&self, limit: u64) -> Option<(u64, u64)> {
        if self.data.len() as u64 <= limit {
            return None;
        }
        let ends = (0..self.count).map(|at| u64::from(end_at(&self.ends, at)));
        let lengths = ends.scan(0, |start, end| Some(end - std::mem::replace(start, end)));
        (self.first..).zip(lengths).find(|&(_, length)| length > limit)
    }
}

/// What an agent says.
#[derive(Debug)]
pub(crate) enum FromAgent {
    Hello(Hello),
    Credit { chunks: u32, bytes: u64 },
    RunDone { chunk: ChunkId, attempt: u32, results: Batch, busy_ns: u64 },
    ItemFault { chunk: ChunkId, attempt: u32, item: u64, fault: Fault, failure: Failure },
    Returned { chunk: ChunkId, attempt: u32, first: u64, count: u64 },
    PoolFault { pool: PoolId, failure: Failure },
    PoolStarted { pool: PoolId },
    PoolStopped { pool: PoolId },
    Output { pool: PoolId, pid: u32, stream: i32, data: Bytes },
    Draining,
    Ailing { reason: String },
}

/// How an agent introduces itself.
#[derive(Debug)]
pub(crate) struct Hello {
    pub(crate) host: String,
    pub(crate) slots: u32,
    /// None in local mode.
    pub(crate) id: Option<[u8; 16]>,
    pub(crate) labels: Vec<Label>,
    pub(crate) version: Option<Version>,
}

/// How many labels an agent may have, or a pool or job require.
const MAX_LABELS: usize = 64;
/// Bytes of a label's key, and of its value.
const MAX_LABEL_BYTES: usize = 256;

pub(crate) fn from_client(message: ClientMessage) -> Result<FromClient, Refused> {
    use client_message::Body;
    Ok(match message.body.ok_or(RefusedKind::Empty)? {
        Body::OpenPool(open) => open_pool(*open)?,
        Body::OpenJob(open) => open_job(*open)?,
        Body::Items(Items { job, first, data, ends }) => FromClient::Items { job, batch: batch(first, data, ends)? },
        Body::EndItems(end) => FromClient::EndItems { job: end.job },
        Body::CancelJob(cancel) => FromClient::CancelJob { job: cancel.job },
        Body::ClosePool(close) => FromClient::ClosePool { now: close.now },
        Body::PoolReopened(_) => FromClient::PoolReopened,
    })
}

pub(crate) fn from_agent(event: AgentEvent) -> Result<FromAgent, Refused> {
    use agent_event::Body;
    Ok(match event.body.ok_or(RefusedKind::Empty)? {
        Body::RunDone(RunDone { chunk, attempt, first, data, ends, busy_ns }) => {
            let chunk = ChunkId::from_bits(chunk);
            FromAgent::RunDone { chunk, attempt, results: batch(first, data, ends)?, busy_ns }
        }
        Body::ItemFault(fault) => item_fault(*fault)?,
        Body::Returned(back) => {
            back.first.checked_add(back.count).ok_or(RefusedKind::IndexTooHigh(back.first))?;
            let chunk = ChunkId::from_bits(back.chunk);
            FromAgent::Returned { chunk, attempt: back.attempt, first: back.first, count: back.count }
        }
        Body::Credit(credit) => FromAgent::Credit { chunks: credit.chunks, bytes: credit.bytes },
        Body::Hello(hello) => FromAgent::Hello(introduction(*hello)?),
        Body::PoolFault(fault) => {
            let failure = fault.failure.ok_or(RefusedKind::Missing("failure"))?;
            known_kind(&failure)?;
            FromAgent::PoolFault { pool: PoolId::from_bits(fault.pool), failure }
        }
        Body::PoolStarted(started) => FromAgent::PoolStarted { pool: PoolId::from_bits(started.pool) },
        Body::Output(output) => from_output(output)?,
        Body::Draining(_) => FromAgent::Draining,
        Body::Ailing(ailing) => FromAgent::Ailing { reason: ailing.reason },
        Body::PoolStopped(stopped) => FromAgent::PoolStopped { pool: PoolId::from_bits(stopped.pool) },
    })
}

fn open_pool(open: OpenPool) -> Result<FromClient, Refused> {
    Ok(FromClient::OpenPool(PoolAsked {
        processes: NonZeroU32::new(open.processes),
        settings: open.settings.unwrap_or_default(),
        program: open.program,
        require: labels(open.require)?,
        weight: open.weight.max(1),
    }))
}

fn introduction(hello: AgentHello) -> Result<Hello, Refused> {
    if hello.slots == 0 {
        return Err(RefusedKind::NoSlots.into());
    }
    let id = match &hello.id[..] {
        [] => None,
        id => Some(id.try_into().map_err(|_| RefusedKind::AgentIdLength(id.len()))?),
    };
    let AgentHello { host, slots, labels: named, version, .. } = hello;
    Ok(Hello { host, slots, id, labels: labels(named)?, version })
}

fn from_output(output: AgentOutput) -> Result<FromAgent, Refused> {
    match OutputStream::try_from(output.stream) {
        Ok(OutputStream::Unspecified) | Err(_) => return Err(RefusedKind::OutputStream(output.stream).into()),
        Ok(_) => {}
    }
    let AgentOutput { pool, pid, stream, data } = output;
    Ok(FromAgent::Output { pool: PoolId::from_bits(pool), pid, stream, data })
}

fn labels(labels: Vec<Label>) -> Result<Vec<Label>, Refused> {
    if labels.len() > MAX_LABELS {
        return Err(RefusedKind::TooManyLabels { labels: labels.len(), limit: MAX_LABELS }.into());
    }
    for part in labels.iter().flat_map(|label| [&label.key, &label.value]) {
        if part.is_empty() {
            return Err(RefusedKind::LabelEmpty.into());
        }
        if part.len() > MAX_LABEL_BYTES {
            return Err(RefusedKind::LabelTooLong { bytes: part.len(), limit: MAX_LABEL_BYTES }.into());
        }
    }
    Ok(labels)
}

fn open_job(open: OpenJob) -> Result<FromClient, Refused> {
    // The highest number is left out so that there is always one behind.
    if open.job == u64::MAX {
        return Err(RefusedKind::IndexTooHigh(open.job).into());
    }
    let policy = JobPolicy {
        chunksize: NonZeroU64::new(open.chunksize),
        retries: open.retries,
        retry_panics: open.retry_panics,
        priority: open.priority,
        speculate: open.speculate,
    };
    let OpenJob { job, function, timeout_ns, label, require, .. } = open;
    let require = labels(require)?;
    Ok(FromClient::OpenJob { job, asked: JobAsked { function, timeout_ns, policy, label, require } })
}

fn batch(first: u64, data: Bytes, ends: Bytes) -> Result<Batch, Refused> {
    if !ends.len().is_multiple_of(4) {
        return Err(RefusedKind::EndsCut(ends.len()).into());
    }
    if ends.is_empty() {
        return Err(RefusedKind::NoItems.into());
    }
    let count = (ends.len() / 4) as u64;
    first.checked_add(count).ok_or(RefusedKind::IndexTooHigh(first))?;
    let mut last = 0;
    for at in 0..count {
        let end = end_at(&ends, at);
        if end < last {
            return Err(RefusedKind::EndsFall(at).into());
        }
        last = end;
    }
    if last as usize != data.len() {
        return Err(RefusedKind::EndsMissData { last: last.into(), len: data.len() as u64 }.into());
    }
    Ok(Batch { first, count, data, ends })
}

/// Where the payload at position `at` ends.
#[inline]
pub(crate) fn end_at(ends: &[u8], at: u64) -> u32 {
    let at = at as usize * 4;
    u32::from_le_bytes(ends[at..at + 4].try_into().expect("four bytes"))
}

fn item_fault(fault: ItemFault) -> Result<FromAgent, Refused> {
    let failure = fault.failure.ok_or(RefusedKind::Missing("failure"))?;
    let kind = match known_kind(&failure)? {
        FailureKind::WorkerDied => Fault::Died,
        FailureKind::Panicked => Fault::Panicked,
        // What is left ends the same way when it is tried again, or was asked for.
        _ => Fault::Final,
    };
    let chunk = ChunkId::from_bits(fault.chunk);
    Ok(FromAgent::ItemFault { chunk, attempt: fault.attempt, item: fault.item, fault: kind, failure })
}

fn known_kind(failure: &Failure) -> Result<FailureKind, Refused> {
    match FailureKind::try_from(failure.kind) {
        Ok(FailureKind::Unspecified) | Err(_) => Err(RefusedKind::FailureKind(failure.kind).into()),
        Ok(kind) => Ok(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(ends: &[u32]) -> Bytes {
        ends.iter().flat_map(|end| end.to_le_bytes()).collect()
    }

    #[test]
    fn batches() {
        let check = |first, data: &'static [u8], ends: Bytes, expected: Result<u64, RefusedKind>| {
            let found = batch(first, Bytes::from_static(data), ends).map(|batch| batch.count);
            assert_eq!(found.map_err(|refused| refused.kind().clone()), expected);
        };
        check(0, b"abc", bytes_of(&[1, 3]), Ok(2));
        check(7, b"", bytes_of(&[0]), Ok(1));
        check(7, b"ab", bytes_of(&[0, 0, 2, 2]), Ok(4));
        check(u64::MAX - 1, b"a", bytes_of(&[1]), Ok(1));
        check(0, b"", Bytes::new(), Err(RefusedKind::NoItems));
        check(0, b"abc", Bytes::from_static(b"abc"), Err(RefusedKind::EndsCut(3)));
        check(0, b"abc", Bytes::from_static(b"abcde"), Err(RefusedKind::EndsCut(5)));
        check(0, b"abc", bytes_of(&[2, 1, 3]), Err(RefusedKind::EndsFall(1)));
        check(0, b"abc", bytes_of(&[1, 2]), Err(RefusedKind::EndsMissData { last: 2, len: 3 }));
        check(0, b"abc", bytes_of(&[u32::MAX]), Err(RefusedKind::EndsMissData { last: u32::MAX.into(), len: 3 }));
        check(u64::MAX, b"a", bytes_of(&[1]), Err(RefusedKind::IndexTooHigh(u64::MAX)));
        check(u64::MAX - 1, b"a", bytes_of(&[1, 1]), Err(RefusedKind::IndexTooHigh(u64::MAX - 1)));
    }

    #[test]
    fn parts_of_batches() {
        let whole = batch(7, Bytes::from_static(b"abbddd"), bytes_of(&[1, 3, 3, 6])).expect("it is right");
        let check = |first, count, data: &'static [u8], ends: &[u32]| {
            let part = whole.part(first, count);
            assert_eq!((part.first, part.count), (first, count));
            assert_eq!((&part.data[..], part.ends), (data, bytes_of(ends)));
        };
        check(7, 4, b"abbddd", &[1, 3, 3, 6]);
        check(7, 1, b"a", &[1]);
        check(8, 2, b"bb", &[2, 2]);
        check(9, 2, b"ddd", &[0, 3]);
        check(9, 1, b"", &[0]);
    }

    #[test]
    fn faults() {
        let check = |kind: i32, expected: Option<Fault>| {
            let failure = Some(Failure { kind, ..Failure::default() });
            let body = agent_event::Body::ItemFault(Box::new(ItemFault { failure, ..ItemFault::default() }));
            let found = from_agent(AgentEvent { body: Some(body) });
            match found {
                Ok(FromAgent::ItemFault { fault, .. }) => assert_eq!(Some(fault), expected, "{kind}"),
                other => assert!(other.is_err() && expected.is_none(), "{kind}"),
            }
        };
        check(FailureKind::WorkerDied.into(), Some(Fault::Died));
        check(FailureKind::Panicked.into(), Some(Fault::Panicked));
        check(FailureKind::TimedOut.into(), Some(Fault::Final));
        check(FailureKind::Codec.into(), Some(Fault::Final));
        check(FailureKind::Unspecified.into(), None);
        check(99, None);
        check(-1, None);
    }
}
