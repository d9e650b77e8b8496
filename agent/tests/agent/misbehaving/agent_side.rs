//! Drives a real agent over the misbehaving program until every item has an outcome, or the pool has failed.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use farpool_agent::fork_server::Program;
use farpool_agent::{Agent, Armed};
use farpool_link::clock;
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{
    AgentCommand, AgentEvent, Assign, Chunk, EndJob, Segment, StartJob, StartPool, StopPool, WorkerSettings,
};
use nix::sys::epoll::{EpollEvent, EpollTimeout};

use super::PROGRAM;

/// Items that every case runs, each in a chunk of its own.
pub(crate) const ITEMS: usize = 6;
/// Far longer than any case takes.
const PATIENCE: Duration = Duration::from_secs(30);
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
    let mut agent = Agent::new(2, Program::current(arguments)).expect("an agent can be made");
    let settings = WorkerSettings { payload_limit: 1 << 20, ..WorkerSettings::default() };
    let start = StartPool { pool: POOL, processes: 1, settings: Some(settings), ..StartPool::default() };
    let job =
        StartJob { pool: POOL, job: JOB, function: vec![1].into(), timeout_ns: 0, whole_chunks: true, number: JOB };
    for body in [Command::StartPool(Box::new(start)), Command::StartJob(job), Command::Assign(chunks())] {
        agent.command(AgentCommand { body: Some(body) }).expect("the commands are valid");
    }
    let mut stopped = false;
    let outcome = wait_for(&mut agent, |events, so_far: &mut (usize, Vec<String>)| {
        stopped |= events.iter().any(|event| matches!(event, Event::PoolStopped(_)));
        for event in events {
            match event {
                Event::RunDone(done) => so_far.0 += done.ends.len() / 4,
                Event::ItemFault(fault) => so_far.1.push(fault.failure.unwrap_or_default().message),
                Event::PoolFault(fault) => return Some(Outcome::PoolFault(fault.failure.unwrap_or_default().message)),
                _ => {}
            }
        }
        let all = so_far.0 + so_far.1.len() >= ITEMS;
        all.then(|| Outcome::Items { results: so_far.0, victims: std::mem::take(&mut so_far.1) })
    });
    let end = EndJob { job: JOB, kill: true };
    for body in [Command::EndJob(end), Command::StopPool(StopPool { pool: POOL, now: true })] {
        agent.command(AgentCommand { body: Some(body) }).expect("the commands are valid");
    }
    wait_for(&mut agent, |events, (): &mut ()| {
        stopped |= events.iter().any(|event| matches!(event, Event::PoolStopped(_)));
        stopped.then_some(())
    });
    outcome
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

fn wait_for<S: Default, T>(agent: &mut Agent, mut look: impl FnMut(Vec<Event>, &mut S) -> Option<T>) -> T {
    let (began, mut so_far, mut events) = (Instant::now(), S::default(), Vec::<AgentEvent>::new());
    loop {
        agent.pump(&mut events);
        if let Some(found) = look(events.drain(..).filter_map(|event| event.body).collect(), &mut so_far) {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "the agent is still waiting for something");
        let timeout = match agent.arm() {
            Armed::Busy => continue,
            Armed::Until(None) => EpollTimeout::from(1000_u16),
            Armed::Until(Some(time)) => {
                let milliseconds = time.saturating_sub(clock::now()).div_ceil(1_000_000).min(1000);
                EpollTimeout::from(u16::try_from(milliseconds).expect("at most 1000"))
            }
        };
        let mut ready = [EpollEvent::empty(); 8];
        let count = agent.epoll().wait(&mut ready, timeout).unwrap_or(0);
        ready[..count].iter().for_each(|event| agent.ready(event.data()));
    }
}
