//! What is said, word by word: what goes in, and what comes out.

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

/// Chunks of a job: name, first item, and how many.
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

/// A ledger that keeps what the agent was told.
struct Book {
    ledger: Ledger,
    agent: Vec<Command>,
}

impl Book {
    /// One pool, 1, with one job, 10, that has started.
    fn new() -> Book {
        let mut book = Book { ledger: Ledger::default(), agent: Vec::new() };
        book.say(start_pool(1));
        book.say(start_job(1, 10));
        let pool = book.pool();
        book.ledger.event(Event::PoolStarted(PoolStarted { pool }));
        book
    }

    /// Says something; returns what the coordinator is told because of it.
    fn say(&mut self, command: Command) -> Vec<Event> {
        self.ledger.command(command).expect("it makes sense");
        self.steps()
    }

    fn steps(&mut self) -> Vec<Event> {
        let mut told = Vec::new();
        for step in self.ledger.steps() {
            match step {
                Step::Send(event) => told.push(event),
                Step::Command(command) => self.agent.push(command),
                Step::Hold { .. } | Step::CancelStop(_) => {}
            }
        }
        told
    }

    /// The agent's number of the pool that was started last.
    fn pool(&self) -> u64 {
        let starts = self.agent.iter().rev().find_map(|command| match command {
            Command::StartPool(start) => Some(start.pool),
            _ => None,
        });
        starts.expect("a pool was started")
    }

    /// The agent's numbers of the chunks that were assigned, in order.
    fn chunks(&self) -> Vec<u64> {
        let assigned = self.agent.iter().filter_map(|command| match command {
            Command::Assign(assign) => Some(assign.chunks.iter().map(|chunk| chunk.chunk)),
            _ => None,
        });
        assigned.flatten().collect()
    }

    fn last(&self) -> &Command {
        self.agent.last().expect("the agent was told something")
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
    let mut book = Book::new();
    book.say(assign(10, &[(u64::MAX, 5, 3)]));
    let [chunk] = book.chunks()[..] else { panic!("one chunk") };
    let Command::Assign(assigned) = book.last() else { panic!("{:?}", book.agent) };
    let Command::StartJob(job) = &book.agent[1] else { panic!("{:?}", book.agent) };
    assert_eq!((assigned.chunks[0].job, job.pool), (job.job, book.pool()));
    assert_eq!(book.ledger.event(done(chunk, 5, 2)), Some(done(u64::MAX, 5, 2)));
    assert_eq!(book.ledger.event(fault(chunk, 7)), Some(fault(u64::MAX, 7)));
    let pool = book.pool();
    let output = |pool| Event::Output(AgentOutput { pool, data: vec![1].into(), ..AgentOutput::default() });
    assert_eq!(book.ledger.event(output(pool)), Some(output(1)));
    book.say(Command::ResizePool(ResizePool { pool: 1, processes: 9 }));
    assert_eq!(book.last(), &Command::ResizePool(ResizePool { pool, processes: 9 }));
    book.say(Command::EndJob(EndJob { job: 10, kill: false }));
    assert!(matches!(book.last(), Command::EndJob(end) if !end.kill));
    book.say(Command::StopPool(StopPool { pool: 1, now: false }));
    assert_eq!(book.last(), &Command::StopPool(StopPool { pool, now: false }));
    let stopped = |pool| Event::PoolStopped(PoolStopped { pool });
    assert_eq!(book.ledger.event(stopped(pool)), Some(stopped(1)));
    assert!(!book.ledger.is_empty(), "its outcomes are not settled");
    book.say(Command::Settled(Settled { pool: 1, report: 2 }));
    assert!(book.ledger.is_empty());
}

#[test]
fn chunks_are_found_by_name_to_be_retracted_and_cancelled() {
    let mut book = Book::new();
    book.say(assign(10, &[(3, 0, 1), (1, 1, 1), (2, 2, 1)]));
    let chunks = book.chunks();
    book.say(Command::Retract(Retract { chunks: vec![2, 3, 77] }));
    assert_eq!(book.last(), &Command::Retract(Retract { chunks: vec![chunks[0], chunks[2]] }));
    let back = |chunk, count| Event::Returned(Returned { chunk, attempt: 1, first: 0, count });
    assert_eq!(book.ledger.event(back(chunks[0], 1)), Some(back(3, 1)));
    assert_eq!(book.ledger.event(back(chunks[0], 1)), None, "it is not here any more");
    book.say(Command::CancelChunks(CancelChunks { chunks: vec![1, 3] }));
    assert_eq!(book.last(), &Command::CancelChunks(CancelChunks { chunks: vec![chunks[1]] }));
    assert_eq!(book.ledger.event(done(chunks[1], 1, 1)), None);
    // Nor is it another one that has taken its place.
    book.say(assign(10, &[(4, 9, 1)]));
    assert_eq!(book.ledger.event(back(chunks[0], 1)), None);
    assert_eq!(book.ledger.event(done(chunks[1], 1, 1)), None);
    let before = book.agent.len();
    book.say(Command::Retract(Retract { chunks: vec![1, 3] }));
    book.say(Command::CancelChunks(CancelChunks { chunks: vec![1, 3] }));
    assert_eq!(book.agent.len(), before, "of chunks that are not here the agent hears nothing");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let check = |commands: Vec<Command>, words: &str| {
        let mut book = Book::new();
        let told: Result<(), _> = commands.into_iter().try_for_each(|command| book.ledger.command(command));
        let error = told.expect_err("it makes no sense").to_string();
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
