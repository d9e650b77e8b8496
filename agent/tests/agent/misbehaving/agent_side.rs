//! Drives a real agent over the misbehaving program until every item has an outcome, or the pool has failed.

use std::ffi::OsString;

use farpool_agent::Settings;
use farpool_agent::fork_server::Program;
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::{Assign, Chunk, EndJob, Segment, StartJob, StartPool, StopPool};

use super::PROGRAM;
use crate::pools::host::{Event, Host, start};

/// Items that every case runs, each in a chunk of its own.
pub(crate) const ITEMS: usize = 6;
const POOL: u64 = 1;
const JOB: u64 = 5;

/// What the agent reported.
#[derive(Debug)]
pub(crate) enum Outcome {
    Items { results: usize, victims: Vec<String> },
    PoolFault(String),
}

pub(crate) fn run_items(misbehaviour: &str) -> Outcome {
    let arguments = [PROGRAM, misbehaviour].map(OsString::from).to_vec();
    let mut host = Host::with(Settings::local(2, Program::current(arguments)));
    let start = StartPool { pool: POOL, processes: 1, ..start() };
    let job = StartJob {
        pool: POOL,
        job: JOB,
        function: vec![1].into(),
        whole_chunks: true,
        number: JOB,
        ..StartJob::default()
    };
    for body in [Command::StartPool(Box::new(start)), Command::StartJob(job), Command::Assign(chunks())] {
        host.send(body);
    }
    let outcome = host.wait(outcome_in);
    for body in
        [Command::EndJob(EndJob { job: JOB, kill: true }), Command::StopPool(StopPool { pool: POOL, now: true })]
    {
        host.send(body);
    }
    host.wait_for_event(|event| matches!(event, Event::PoolStopped(_)));
    outcome
}

/// Returns the outcome, once the pool has failed or every item has a result or a failure.
fn outcome_in(events: &[Event]) -> Option<Outcome> {
    let (mut results, mut victims) = (0, Vec::new());
    for event in events {
        match event {
            Event::RunDone(done) => results += done.ends.len() / 4,
            Event::ItemFault(fault) => victims.push(fault.failure.clone().unwrap_or_default().message),
            Event::PoolFault(fault) => {
                return Some(Outcome::PoolFault(fault.failure.clone().unwrap_or_default().message));
            }
            _ => {}
        }
    }
    (results + victims.len() >= ITEMS).then_some(Outcome::Items { results, victims })
}

/// Chunks of one item each: item n is n + 1 bytes long.
fn chunks() -> Assign {
    let mut assign = Assign::default();
    for item in 0..ITEMS {
        let bytes = vec![u8::try_from(item).expect("few items"); item + 1];
        let end = u32::try_from(bytes.len()).expect("a few bytes").to_le_bytes();
        assign.segments.push(Segment { data: bytes.into(), start: 0, ends: end.to_vec().into() });
        assign.chunks.push(Chunk { chunk: 100 + item as u64, job: JOB, first: item as u64, attempt: 1, segments: 1 });
    }
    assign
}
