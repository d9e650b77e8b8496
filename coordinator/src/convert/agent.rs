//! Messages from agents.

use bytes::Bytes;
use farpool_core::{ChunkId, Fault, PoolId};
use farpool_proto::limits;
use farpool_proto::v1::{
    AgentEvent, AgentHello, AgentOutput, Failure, FailureKind, ItemFault, Label, OutputStream, RunDone, Version,
    agent_event,
};

use super::held::{HeldPool, held_pool};
use super::{Batch, batch, identity, labels};
use crate::ids::Identity;
use crate::refused::{Refused, RefusedKind};

/// A checked message from an agent.
#[derive(Debug)]
pub(crate) enum FromAgent {
    Hello(Hello),
    Credit {
        chunks: u32,
        bytes: u64,
    },
    RunDone {
        chunk: ChunkId,
        attempt: u32,
        results: Batch,
        busy_ns: u64,
    },
    ItemFault {
        chunk: ChunkId,
        attempt: u32,
        item: u64,
        fault: Fault,
        failure: Failure,
    },
    Returned {
        chunk: ChunkId,
        attempt: u32,
        first: u64,
        count: u64,
    },
    PoolFault {
        pool: PoolId,
        failure: Failure,
    },
    PoolStarted {
        pool: PoolId,
    },
    PoolStopped {
        pool: PoolId,
    },
    Output {
        pool: PoolId,
        pid: u32,
        stream: i32,
        data: Bytes,
    },
    Draining,
    /// `pool` is none if the report is about all pools. With an empty `reason`, the agent is healthy again.
    HealthReport {
        reason: String,
        pool: Option<PoolId>,
    },
    WastedOutcomes {
        items: u64,
    },
}

/// How an agent introduces itself.
#[derive(Debug)]
pub(crate) struct Hello {
    pub(crate) host: String,
    pub(crate) slots: u32,
    /// None in local mode.
    pub(crate) id: Option<Identity>,
    pub(crate) labels: Vec<Label>,
    pub(crate) version: Option<Version>,
    /// What it still runs for sessions that have ended.
    pub(crate) held: Vec<HeldPool>,
    pub(crate) wasted: u64,
}

pub(crate) fn from_agent(event: AgentEvent) -> Result<FromAgent, Refused> {
    use agent_event::Body;
    Ok(match event.body.ok_or(RefusedKind::Empty)? {
        Body::RunDone(RunDone { chunk, attempt, first, data, ends, busy_ns, failed }) => {
            let chunk = ChunkId::from_bits(chunk);
            let results = Batch { failed, ..batch(first, data, ends)? };
            FromAgent::RunDone { chunk, attempt, results, busy_ns }
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
            let failure = clipped(failure);
            FromAgent::PoolFault { pool: PoolId::from_bits(fault.pool), failure }
        }
        Body::PoolStarted(started) => FromAgent::PoolStarted { pool: PoolId::from_bits(started.pool) },
        Body::Output(output) => from_output(output)?,
        Body::Draining(_) => FromAgent::Draining,
        Body::WastedOutcomes(wasted) => FromAgent::WastedOutcomes { items: wasted.items },
        Body::HealthReport(unhealthy) => {
            let pool = (unhealthy.pool != 0).then(|| PoolId::from_bits(unhealthy.pool));
            // Without a reason, the report would mean that the pool is healthy, and an agent reports that only for all
            // pools.
            let reason =
                if unhealthy.reason.is_empty() && pool.is_some() { "it gives no reason" } else { &unhealthy.reason };
            FromAgent::HealthReport { reason: limits::clipped(reason, REASON_BYTES), pool }
        }
        Body::PoolStopped(stopped) => FromAgent::PoolStopped { pool: PoolId::from_bits(stopped.pool) },
    })
}

/// Bytes of a reason that are kept for operators.
const REASON_BYTES: usize = 4096;
/// Bytes of each text of a pool's failure that are kept. They are kept as long as the pool, for each agent.
const FAILURE_BYTES: usize = 4 << 10;

/// Cuts the texts of a failure that is kept.
fn clipped(failure: Failure) -> Failure {
    let clip = |text: &str| limits::clipped(text, FAILURE_BYTES);
    Failure {
        message: clip(&failure.message),
        backtrace: clip(&failure.backtrace),
        stderr: clip(&failure.stderr),
        host: limits::clipped(&failure.host, limits::HOST_BYTES),
        ..failure
    }
}

fn introduction(hello: AgentHello) -> Result<Hello, Refused> {
    if hello.slots == 0 {
        return Err(RefusedKind::NoSlots.into());
    }
    limits::at_most("slots", hello.slots, limits::SLOTS)?;
    limits::at_most("bytes in the name of a host", hello.host.len(), limits::HOST_BYTES)?;
    let release = hello.version.as_ref().map_or(0, |version| version.release.len());
    limits::at_most("bytes in the name of a release", release, limits::RELEASE_BYTES)?;
    let AgentHello { host, slots, version, id, labels: named, held, wasted, secret: _ } = hello;
    let id = identity(&id, RefusedKind::AgentIdLength)?;
    let held = held.into_iter().map(held_pool).collect::<Result<_, _>>()?;
    Ok(Hello { host, slots, id, labels: labels(named)?, version, held, wasted })
}

fn from_output(output: AgentOutput) -> Result<FromAgent, Refused> {
    match OutputStream::try_from(output.stream) {
        Ok(OutputStream::Unspecified) | Err(_) => return Err(RefusedKind::OutputStream(output.stream).into()),
        Ok(_) => {}
    }
    let AgentOutput { pool, pid, stream, data } = output;
    Ok(FromAgent::Output { pool: PoolId::from_bits(pool), pid, stream, data })
}

fn item_fault(fault: ItemFault) -> Result<FromAgent, Refused> {
    let failure = fault.failure.ok_or(RefusedKind::Missing("failure"))?;
    let kind = match known_kind(&failure)? {
        FailureKind::WorkerDied => Fault::Died,
        FailureKind::Panicked => Fault::Panicked,
        // After any other failure, a retry would fail in the same way, or the client did not ask for one.
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
