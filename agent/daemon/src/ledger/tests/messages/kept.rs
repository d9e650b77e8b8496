//! Which reports are kept for a next coordinator, and for how long.

use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::*;

use super::{Book, ada, adopt, assign, done, fault, start_job, start_pool};
use crate::ledger::Step;
use crate::ledger::pool::HOLD_BYTES;
use crate::ledger::pools::{MAX_STOPPED_BYTES, MAX_STOPPED_POOLS};

#[test]
fn what_a_cancelled_chunk_has_made_is_told_again() {
    let mut book = Book::new();
    book.say(assign(10, &[(1, 0, 3)]));
    let chunk = book.chunks()[0];
    assert!(book.ledger.event(done(chunk, 0, 2)).is_some());
    book.say(Command::CancelChunks(CancelChunks { chunks: vec![1] }));
    assert_eq!(book.last(), &Command::CancelChunks(CancelChunks { chunks: vec![chunk] }));
    assert_eq!(book.ledger.event(done(chunk, 2, 1)), None, "it comes too late");
    assert_eq!(book.ledger.take_wasted(), Some(WastedOutcomes { items: 1 }));
    book.ledger.session_lost();
    let (held, _) = book.ledger.hello();
    assert_eq!(held[0].chunks[0].runs, [0, 2]);
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

/// No coordinator could adopt it.
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
    assert_eq!(book.ledger.work.chunks().count(), 1);
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
    assert_eq!(book.ledger.pools.iter().count(), MAX_STOPPED_POOLS + 1);
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
    assert_eq!(book.ledger.pools.iter().count(), 1 + 2);
}
