//! What is said, word by word: what goes in, and what comes out.

mod adoption;
mod kept;

use std::collections::BTreeSet;

use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::*;

use super::super::{HOLD_BYTES, Ledger, MAX_STOPPED_BYTES, MAX_STOPPED_POOLS, Step};

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
fn what_a_cancelled_chunk_has_made_is_told_again() {
    let mut book = Book::new();
    book.say(assign(10, &[(1, 0, 3)]));
    let chunk = book.chunks()[0];
    assert!(book.ledger.event(done(chunk, 0, 2)).is_some());
    book.say(Command::CancelChunks(CancelChunks { chunks: vec![1] }));
    assert_eq!(book.last(), &Command::CancelChunks(CancelChunks { chunks: vec![chunk] }));
    assert_eq!(book.ledger.event(done(chunk, 2, 1)), None, "it comes too late");
    assert_eq!(book.ledger.take_in_vain(), Some(InVain { items: 1 }));
    book.ledger.session_lost();
    let (held, _) = book.ledger.hello();
    assert_eq!(held[0].chunks[0].runs, [0, 2]);
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

#[test]
fn adoptions_that_make_no_sense_are_refused() {
    let check = |change: fn(&mut AdoptPool), words: &str| {
        let mut book = Book::new();
        book.say(start_pool(2));
        book.ledger.event(Event::PoolStarted(PoolStarted { pool: book.pool() }));
        book.say(start_job(2, 20));
        book.say(assign(10, &[(1, 0, 1)]));
        book.say(assign(20, &[(2, 0, 1)]));
        book.ledger.session_lost();
        let (held, _) = book.ledger.hello();
        let Command::AdoptPool(mut told) = adopt(&held[0], 5, &[(held[0].chunks[0].chunk, 1, 1)]) else { return };
        book.say(Command::AdoptPool(told.clone()));
        told.held = held[1].pool;
        (told.pool, told.jobs, told.chunks) = (6, Vec::new(), Vec::new());
        change(&mut told);
        let error = book.ledger.command(Command::AdoptPool(told)).expect_err("it makes no sense").to_string();
        assert!(error.contains(words), "{error}");
    };
    check(|told| told.held -= 1, "is not held");
    check(|told| told.pool = 5, "that name is in use");
    check(|told| told.pool = 1 << 63 | 6, "that name is in use");
    check(|told| told.jobs.push(AdoptedJob { number: 77, job: 78 }), "job 77 was adopted, but is not held");
    check(|told| told.jobs.push(AdoptedJob { number: 1020, job: 1_001_010 }), "that name is in use");
    let of_the_other = |told: &mut AdoptPool| told.chunks.push(AdoptedChunk { held: 1 << 32, chunk: 9, attempt: 1 });
    check(of_the_other, "with the wrong pool");
}

#[test]
fn outcomes_are_kept_until_they_are_settled() {
    let mut book = Book::new();
    book.say(assign(10, &[(1, 0, 4)]));
    let [chunk] = book.chunks()[..] else { panic!("one chunk") };
    for event in [done(chunk, 0, 1), done(chunk, 2, 1), fault(chunk, 3)] {
        book.ledger.event(event);
    }
    book.say(Command::Settled(Settled { pool: 1, report: 1 }));
    // Of a pool that is not here any more, and a second time.
    book.say(Command::Settled(Settled { pool: 2, report: 1 }));
    book.say(Command::Settled(Settled { pool: 1, report: 1 }));
    book.ledger.session_lost();
    let (held, _) = book.ledger.hello();
    let [pool] = &held[..] else { panic!("{held:?}") };
    assert_eq!((pool.pool >> 63, &pool.id[..], pool.processes), (1, &[7; 16][..], 2));
    assert_eq!(pool.owner, Some(ada()), "the next coordinator is told who owns it");
    let [held_chunk] = &pool.chunks[..] else { panic!("{pool:?}") };
    assert_eq!((held_chunk.job, held_chunk.attempt, held_chunk.first), (1010, 1, 0));
    assert_eq!(held_chunk.runs, [1, 1, 2, 1, 3, 1]);
    // Under new names it comes in the same order, before what is newer.
    let told = book.say(adopt(pool, 5, &[(held_chunk.chunk, 50, 3)]));
    let again = |event| match event {
        Event::RunDone(done) => Event::RunDone(RunDone { chunk: 50, attempt: 3, ..done }),
        Event::ItemFault(fault) => Event::ItemFault(Box::new(ItemFault { chunk: 50, attempt: 3, ..*fault })),
        other => other,
    };
    let started = Event::PoolStarted(PoolStarted { pool: 5 });
    assert_eq!(told, [started, again(done(50, 2, 1)), again(fault(50, 3))]);
    assert_eq!(book.ledger.event(done(chunk, 1, 1)), Some(again(done(50, 1, 1))));
    book.say(assign(1_001_010, &[(51, 100, 1)]));
    let next = book.chunks()[1];
    assert_eq!(book.ledger.event(done(next, 100, 1)), Some(done(51, 100, 1)));
    book.say(Command::Settled(Settled { pool: 5, report: 4 }));
    book.ledger.session_lost();
    assert_eq!(book.ledger.hello().0[0].chunks, []);
}

#[test]
fn what_nobody_adopts_is_dropped() {
    let mut book = Book::new();
    book.say(start_job(1, 11));
    book.say(assign(10, &[(1, 0, 2), (2, 2, 2)]));
    book.say(assign(11, &[(3, 0, 1)]));
    let chunks = book.chunks();
    for chunk in &chunks[..2] {
        book.ledger.event(done(*chunk, if *chunk == chunks[0] { 0 } else { 2 }, 1));
    }
    book.ledger.session_lost();
    book.ledger.event(done(chunks[2], 0, 1));
    let (held, in_vain) = book.ledger.hello();
    assert_eq!((held[0].chunks.len(), in_vain), (3, 0));
    let Command::AdoptPool(mut told) = adopt(&held[0], 5, &[(chunks[1], 50, 1)]) else { return };
    told.jobs.retain(|job| job.number == 1010);
    let told = book.say(Command::AdoptPool(told));
    assert_eq!(told[1..], [done(50, 2, 1)]);
    assert!(book.agent.contains(&Command::CancelChunks(CancelChunks { chunks: vec![chunks[0]] })), "{:?}", book.agent);
    assert!(matches!(book.last(), Command::EndJob(end) if end.kill), "{:?}", book.agent);
    assert_eq!(book.ledger.event(done(chunks[0], 1, 1)), None);
    // Two that were kept, and one that came late: the next hello counts them if they were not told before.
    assert_eq!(book.ledger.hello().1, 3);
    assert_eq!(book.ledger.take_in_vain(), Some(InVain { items: 3 }));
    assert_eq!((book.ledger.take_in_vain(), book.ledger.hello().1), (None, 0));
    assert_eq!(book.ledger.event(done(chunks[0], 1, 1)), None);
    book.ledger.session_lost();
    assert_eq!(book.ledger.hello().1, 1);
    book.ledger.welcomed();
    assert_eq!(book.ledger.hello().1, 0);
}

#[test]
fn a_held_pool_that_nobody_wants_is_stopped() {
    let mut book = Book::new();
    book.say(assign(10, &[(1, 0, 2)]));
    let chunk = book.chunks()[0];
    book.ledger.session_lost();
    let held = book.ledger.hello().0[0].pool;
    book.say(Command::StopPool(StopPool { pool: held, now: false }));
    let pool = book.pool();
    assert_eq!(book.last(), &Command::StopPool(StopPool { pool, now: true }));
    assert!(book.ledger.is_empty());
    assert_eq!(book.ledger.event(done(chunk, 0, 1)), None);
    assert_eq!(book.ledger.event(Event::PoolStopped(PoolStopped { pool })), None);
    // It may be said twice.
    book.say(Command::StopPool(StopPool { pool: held, now: true }));
}

#[test]
fn pools_that_had_not_started_are_not_held() {
    let mut book = Book::new();
    book.say(start_pool(2));
    let pool = book.pool();
    book.ledger.session_lost();
    book.steps();
    assert_eq!(book.last(), &Command::StopPool(StopPool { pool, now: true }));
    assert_eq!(book.ledger.hello().0.len(), 1);
}

#[test]
fn what_is_given_back_while_nobody_asks_is_told_to_whom_it_concerns() {
    let mut book = Book::new();
    book.say(assign(10, &[(1, 0, 4)]));
    let chunk = book.chunks()[0];
    let back = |chunk, first, count| Event::Returned(Returned { chunk, attempt: 1, first, count });
    book.ledger.session_lost();
    assert_eq!(book.ledger.event(back(chunk, 3, 1)), None);
    let (held, _) = book.ledger.hello();
    assert_eq!(held[0].chunks[0].runs, [0, 3]);
    // The coordinator has heard by now that these are here.
    assert_eq!(book.ledger.event(back(chunk, 0, 3)), None);
    let told = book.say(adopt(&held[0], 5, &[(chunk, 50, 1)]));
    assert_eq!(told[1..], [back(50, 0, 3)]);
    book.ledger.session_lost();
    assert_eq!(book.ledger.hello().0[0].chunks, []);
}

#[test]
fn credit_and_ailing_are_told_again() {
    let mut book = Book::new();
    let credit = Event::Credit(Credit { chunks: 3, bytes: 4 });
    let ailing = |reason: &str| Event::Ailing(Ailing { reason: reason.to_owned(), pool: 0 });
    for event in [credit.clone(), ailing("why")] {
        assert_eq!(book.ledger.event(event.clone()), Some(event));
    }
    book.ledger.session_lost();
    book.ledger.hello();
    book.ledger.welcomed();
    assert_eq!(book.steps(), [ailing("why"), credit.clone()]);
    book.ledger.event(ailing(""));
    book.ledger.welcomed();
    assert_eq!(book.steps(), [credit]);
}

/// The next coordinator learns which of the pools that it adopts cannot serve, until they can.
#[test]
fn who_adopts_an_ailing_pool_is_told() {
    let mut book = Book::new();
    let pool = book.pool();
    let ailing = |pool| Event::Ailing(Ailing { reason: "why".to_owned(), pool });
    assert_eq!(book.ledger.event(ailing(pool)), Some(ailing(1)));
    assert_eq!(book.ledger.event(ailing(77)), None);
    book.ledger.session_lost();
    let (held, _) = book.ledger.hello();
    book.ledger.welcomed();
    let started = |pool| Event::PoolStarted(PoolStarted { pool });
    assert_eq!(book.say(adopt(&held[0], 5, &[])), [started(5), ailing(5)]);
    // It serves again.
    assert_eq!(book.ledger.event(started(pool)), Some(started(5)));
    book.ledger.session_lost();
    let (held, _) = book.ledger.hello();
    assert_eq!(book.say(adopt(&held[0], 6, &[])), [started(6)]);
}

/// The agent's coordinator is lost while a pool's workers leave, or after they have.
#[test]
fn a_pool_that_was_to_stop_goes_on_if_it_is_adopted() {
    for (out, gone) in [(true, false), (false, false), (false, true)] {
        let mut book = Book::new();
        book.say(assign(10, &[(1, 0, 2)]));
        let (chunk, pool) = (book.chunks()[0], book.pool());
        book.ledger.event(done(chunk, 0, if out { 1 } else { 2 }));
        book.say(Command::EndJob(EndJob { job: 10, kill: false }));
        book.say(Command::StopPool(StopPool { pool: 1, now: false }));
        if gone {
            book.ledger.event(Event::PoolStopped(PoolStopped { pool }));
        }
        book.ledger.session_lost();
        let (held, _) = book.ledger.hello();
        book.ledger.command(adopt(&held[0], 5, &[(chunk, 50, 1)])).expect("it makes sense");
        let steps = book.ledger.steps();
        assert_eq!(steps.contains(&Step::CancelStop(pool)), out, "{steps:?}");
        let starts = |step: &Step| matches!(step, Step::Command(Command::StartPool(start)) if start.pool != pool);
        assert_eq!(steps.iter().any(starts), !out, "{steps:?}");
        // The job is known again.
        let starts = |step: &Step| matches!(step, Step::Command(Command::StartJob(_)));
        assert!(steps.iter().any(starts), "{steps:?}");
        book.say(assign(1_001_010, &[(51, 2, 1)]));
        // Its former processes say nothing to anybody.
        if !out {
            assert_eq!(book.ledger.event(Event::PoolStopped(PoolStopped { pool })), None);
        }
    }
}

#[test]
fn a_place_that_was_given_up_and_is_wanted_again() {
    let mut book = Book::new();
    book.say(assign(10, &[(1, 0, 1)]));
    let (chunk, pool) = (book.chunks()[0], book.pool());
    book.ledger.event(done(chunk, 0, 1));
    book.say(Command::StopPool(StopPool { pool: 1, now: false }));
    book.ledger.event(Event::PoolStopped(PoolStopped { pool }));
    book.say(start_pool(1));
    assert_ne!(book.pool(), pool);
    book.say(start_job(1, 10));
    book.say(assign(10, &[(2, 1, 1)]));
    let next = book.chunks()[1];
    assert_eq!(book.ledger.event(done(next, 1, 1)), Some(done(2, 1, 1)));
    // What was not settled before is kept with what is new.
    book.ledger.event(Event::PoolStarted(PoolStarted { pool: book.pool() }));
    book.ledger.session_lost();
    assert_eq!(book.ledger.hello().0[0].chunks.len(), 2);
}

#[test]
fn a_pool_that_has_failed_says_so_again() {
    let mut book = Book::new();
    book.say(assign(10, &[(1, 0, 2), (2, 2, 1)]));
    let (chunk, pool) = (book.chunks()[0], book.pool());
    book.ledger.event(done(chunk, 0, 1));
    let fault = |pool| Event::PoolFault(Box::new(PoolFault { pool, failure: Some(Failure::default()) }));
    let stopped = |pool| Event::PoolStopped(PoolStopped { pool });
    assert_eq!(book.ledger.event(fault(pool)), Some(fault(1)));
    assert_eq!(book.ledger.event(stopped(pool)), Some(stopped(1)));
    // The coordinator could not know yet.
    let before = book.agent.len();
    book.say(start_job(1, 11));
    book.say(assign(10, &[(3, 5, 1)]));
    book.say(assign(11, &[(4, 5, 1)]));
    assert_eq!(book.agent.len(), before, "{:?}", book.agent);
    book.ledger.session_lost();
    let (held, _) = book.ledger.hello();
    assert_eq!(held[0].chunks.len(), 1);
    assert_eq!(held[0].chunks[0].runs, [0, 1]);
    let told = book.say(adopt(&held[0], 5, &[(chunk, 50, 1)]));
    assert_eq!(told, [Event::PoolStarted(PoolStarted { pool: 5 }), done(50, 0, 1), fault(5), stopped(5)]);
    book.say(assign(1_001_010, &[(51, 2, 1)]));
    assert_eq!(book.agent.len(), before, "{:?}", book.agent);
}

#[test]
fn a_pool_that_keeps_too_much_is_held() {
    let mut book = Book::new();
    book.say(assign(10, &[(1, 0, 4)]));
    let (chunk, pool) = (book.chunks()[0], book.pool());
    let large = |first| {
        let data = vec![0; HOLD_BYTES / 2].into();
        Event::RunDone(RunDone { chunk, attempt: 1, first, data, ends: vec![0; 4].into(), busy_ns: 0, failed: false })
    };
    book.ledger.event(large(0));
    assert!(!book.ledger.has_steps());
    book.ledger.event(large(1));
    assert_eq!(book.ledger.steps(), [Step::Hold { pool, hold: true }]);
    book.ledger.event(large(2));
    assert!(!book.ledger.has_steps(), "it is said once");
    let settle = |book: &mut Book, report| {
        book.ledger.command(Command::Settled(Settled { pool: 1, report })).expect("it makes sense");
        book.ledger.steps()
    };
    assert_eq!(settle(&mut book, 1), []);
    assert_eq!(settle(&mut book, 3), [Step::Hold { pool, hold: false }]);
}

/// Nobody could adopt it.
#[test]
fn of_a_pool_without_an_id_nothing_is_kept() {
    let mut book = Book::new();
    let Command::StartPool(mut start) = start_pool(2) else { return };
    start.id.clear();
    book.say(Command::StartPool(start));
    let pool = book.pool();
    book.ledger.event(Event::PoolStarted(PoolStarted { pool }));
    book.say(start_job(2, 20));
    book.say(assign(20, &[(1, 0, 2), (2, 2, 1)]));
    let chunks = book.chunks();
    assert_eq!(book.ledger.event(done(chunks[0], 0, 1)), Some(done(1, 0, 1)));
    assert_eq!(book.ledger.event(fault(chunks[0], 1)), Some(fault(1, 1)));
    // Its reports are counted all the same.
    book.say(Command::Settled(Settled { pool: 2, report: 2 }));
    assert_eq!(book.ledger.chunks.iter().count(), 1);
    book.ledger.session_lost();
    book.steps();
    assert_eq!(book.last(), &Command::StopPool(StopPool { pool, now: true }));
    assert_eq!(book.ledger.hello().0.len(), 1);
}

#[test]
fn pools_that_are_gone_are_not_remembered_for_ever() {
    let mut book = Book::new();
    for pool in 2..2 * MAX_STOPPED_POOLS as u64 {
        book.say(start_pool(pool));
        book.ledger.event(Event::PoolStopped(PoolStopped { pool: book.pool() }));
    }
    assert_eq!(book.ledger.pools.len(), MAX_STOPPED_POOLS + 1);
    // Nor is all that they have done.
    let mut book = Book::new();
    for pool in 2..10 {
        book.say(start_pool(pool));
        book.say(start_job(pool, 10 * pool));
        book.say(assign(10 * pool, &[(pool, 0, 1)]));
        let (chunk, data) = (*book.chunks().last().expect("one"), vec![0; MAX_STOPPED_BYTES / 3].into());
        book.ledger.event(Event::RunDone(RunDone { chunk, data, ends: vec![0; 4].into(), ..RunDone::default() }));
        book.ledger.event(Event::PoolStopped(PoolStopped { pool: book.pool() }));
    }
    assert_eq!(book.ledger.pools.len(), 1 + 2);
}
