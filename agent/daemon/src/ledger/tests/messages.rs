//! The ledger message by message: its inputs and outputs.

mod adoption;
mod kept;

use std::collections::BTreeSet;

use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::*;

use super::super::{Ledger, Step};

fn ada() -> Principal {
    Principal { tenant: "maths".to_owned(), name: "ada".to_owned() }
}

fn start_pool(pool: u64) -> Command {
    let (id, owner) = (vec![7; 16].into(), Some(ada()));
    Command::StartPool(Box::new(StartPool { pool, processes: 2, id, owner, ..StartPool::default() }))
}

fn start_job(pool: u64, job: u64) -> Command {
    Command::StartJob(StartJob { pool, job, function: vec![1].into(), number: job + 1000, ..StartJob::default() })
}

fn segment(items: u32) -> Segment {
    let ends = (1..=items).flat_map(u32::to_le_bytes).collect::<Vec<_>>();
    Segment { data: vec![0; items as usize].into(), start: 0, ends: ends.into() }
}

/// Assigns chunks of a job: name, first item, and number of items.
fn assign(job: u64, chunks: &[(u64, u64, u32)]) -> Command {
    let chunk = |&(chunk, first, _): &(u64, u64, u32)| Chunk { chunk, job, first, attempt: 1, segments: 1 };
    let segments = chunks.iter().map(|(_, _, items)| segment(*items)).collect();
    Command::Assign(Assign { chunks: chunks.iter().map(chunk).collect(), segments })
}

fn done(chunk: u64, first: u64, items: u32) -> Event {
    let Segment { data, ends, .. } = segment(items);
    Event::RunDone(RunDone { chunk, attempt: 1, first, data, ends, busy_ns: 0, failed: false })
}

fn fault(chunk: u64, item: u64) -> Event {
    Event::ItemFault(Box::new(ItemFault { chunk, attempt: 1, item, failure: Some(Failure::default()) }))
}

/// A ledger, and the commands that the agent got.
struct TestLedger {
    ledger: Ledger,
    agent: Vec<Command>,
}

impl TestLedger {
    /// Creates a ledger with pool 1, which has started, and its job 10.
    fn new() -> TestLedger {
        let mut test = TestLedger { ledger: Ledger::default(), agent: Vec::new() };
        test.command(start_pool(1));
        test.command(start_job(1, 10));
        let pool = test.pool();
        test.ledger.event(Event::PoolStarted(PoolStarted { pool }));
        test
    }

    /// Handles a command. Returns the events that the coordinator gets.
    fn command(&mut self, command: Command) -> Vec<Event> {
        self.ledger.command(command).expect("the command was refused");
        self.steps()
    }

    fn steps(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for step in self.ledger.steps() {
            match step {
                Step::Send(event) => events.push(event),
                Step::Command(command) => self.agent.push(command),
                Step::Hold { .. } | Step::CancelStop(_) => {}
            }
        }
        events
    }

    /// Returns the agent's number of the pool that was started last.
    fn pool(&self) -> u64 {
        let starts = self.agent.iter().rev().find_map(|command| match command {
            Command::StartPool(start) => Some(start.pool),
            _ => None,
        });
        starts.expect("no pool was started")
    }

    /// Returns the agent's numbers of the assigned chunks, in order.
    fn chunks(&self) -> Vec<u64> {
        let assigned = self.agent.iter().filter_map(|command| match command {
            Command::Assign(assign) => Some(assign.chunks.iter().map(|chunk| chunk.chunk)),
            _ => None,
        });
        assigned.flatten().collect()
    }

    fn last(&self) -> &Command {
        self.agent.last().expect("the agent got no command")
    }
}

fn adopt(held: &HeldPool, pool: u64, chunks: &[(u64, u64, u32)]) -> Command {
    let numbers: BTreeSet<u64> = held.chunks.iter().map(|chunk| chunk.job).collect();
    let jobs = numbers.into_iter().map(|number| AdoptedJob { number, job: number + 1_000_000 }).collect();
    let chunks = chunks.iter().map(|&(held, chunk, attempt)| AdoptedChunk { held, chunk, attempt }).collect();
    Command::AdoptPool(Box::new(AdoptPool {
        held: held.pool,
        pool,
        processes: held.processes,
        weight: 1,
        jobs,
        chunks,
    }))
}

#[test]
fn names_are_translated_both_ways() {
    let mut test = TestLedger::new();
    test.command(assign(10, &[(u64::MAX, 5, 3)]));
    let [chunk] = test.chunks()[..] else { panic!("not exactly one chunk") };
    let Command::Assign(assigned) = test.last() else { panic!("{:?}", test.agent) };
    let Command::StartJob(job) = &test.agent[1] else { panic!("{:?}", test.agent) };
    assert_eq!((assigned.chunks[0].job, job.pool), (job.job, test.pool()));
    assert_eq!(test.ledger.event(done(chunk, 5, 2)), Some(done(u64::MAX, 5, 2)));
    assert_eq!(test.ledger.event(fault(chunk, 7)), Some(fault(u64::MAX, 7)));
    let pool = test.pool();
    let output = |pool| Event::Output(AgentOutput { pool, data: vec![1].into(), ..AgentOutput::default() });
    assert_eq!(test.ledger.event(output(pool)), Some(output(1)));
    test.command(Command::ResizePool(ResizePool { pool: 1, processes: 9 }));
    assert_eq!(test.last(), &Command::ResizePool(ResizePool { pool, processes: 9 }));
    test.command(Command::EndJob(EndJob { job: 10, kill: false }));
    assert!(matches!(test.last(), Command::EndJob(end) if !end.kill));
    test.command(Command::StopPool(StopPool { pool: 1, now: false }));
    assert_eq!(test.last(), &Command::StopPool(StopPool { pool, now: false }));
    let stopped = |pool| Event::PoolStopped(PoolStopped { pool });
    assert_eq!(test.ledger.event(stopped(pool)), Some(stopped(1)));
    assert!(!test.ledger.is_empty(), "the pool's outcomes are not settled");
    test.command(Command::Settled(Settled { pool: 1, report: 2 }));
    assert!(test.ledger.is_empty());
}

#[test]
fn chunks_are_found_by_name_to_be_retracted_and_cancelled() {
    let mut test = TestLedger::new();
    test.command(assign(10, &[(3, 0, 1), (1, 1, 1), (2, 2, 1)]));
    let chunks = test.chunks();
    test.command(Command::Retract(Retract { chunks: vec![2, 3, 77] }));
    assert_eq!(test.last(), &Command::Retract(Retract { chunks: vec![chunks[0], chunks[2]] }));
    let back = |chunk, count| Event::Returned(Returned { chunk, attempt: 1, first: 0, count });
    assert_eq!(test.ledger.event(back(chunks[0], 1)), Some(back(3, 1)));
    assert_eq!(test.ledger.event(back(chunks[0], 1)), None, "the chunk no longer exists");
    test.command(Command::CancelChunks(CancelChunks { chunks: vec![1, 3] }));
    assert_eq!(test.last(), &Command::CancelChunks(CancelChunks { chunks: vec![chunks[1]] }));
    assert_eq!(test.ledger.event(done(chunks[1], 1, 1)), None);
    // Nor does it match another chunk that has taken its place.
    test.command(assign(10, &[(4, 9, 1)]));
    assert_eq!(test.ledger.event(back(chunks[0], 1)), None);
    assert_eq!(test.ledger.event(done(chunks[1], 1, 1)), None);
    let before = test.agent.len();
    test.command(Command::Retract(Retract { chunks: vec![1, 3] }));
    test.command(Command::CancelChunks(CancelChunks { chunks: vec![1, 3] }));
    assert_eq!(test.agent.len(), before, "the agent gets no command for unknown chunks");
}

#[test]
fn invalid_commands_are_refused() {
    let check = |commands: Vec<Command>, words: &str| {
        let mut test = TestLedger::new();
        let result: Result<(), _> = commands.into_iter().try_for_each(|command| test.ledger.command(command));
        let error = result.expect_err("the invalid command was accepted").to_string();
        assert!(error.contains(words), "{error}");
    };
    let malformed = |first, segments: Vec<Segment>| {
        let chunk = Chunk { chunk: 1, job: 10, first, attempt: 1, segments: 1 };
        Command::Assign(Assign { chunks: vec![chunk], segments })
    };
    check(vec![start_pool(1)], "pool 1 was started twice");
    check(vec![start_pool(1 << 63)], "reserved for agents");
    check(vec![start_job(1, 10)], "job 10 was started twice");
    check(vec![start_job(2, 11)], "pool 2, which does not exist here");
    check(vec![assign(11, &[(1, 0, 1)])], "job 11, which was not started");
    check(vec![malformed(0, vec![])], "the items of chunk 1 are missing");
    check(vec![malformed(0, vec![segment(1), segment(1)])], "1 segments belong to no chunk");
    check(vec![malformed(0, vec![segment(0)])], "malformed");
    check(vec![malformed(u64::MAX, vec![segment(1)])], "malformed");
    check(vec![Command::Settled(Settled { pool: 1, report: 1 })], "report 1 was settled, but only 0 were sent");
    let adopt = |held| Command::AdoptPool(Box::new(AdoptPool { held, pool: 5, ..AdoptPool::default() }));
    check(vec![adopt(1)], "is not held");
    check(vec![adopt(1 << 63 | 1)], "is not held");
}
