//! Which reports are kept for the next coordinator, and for how long.

use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::*;

use super::{TestLedger, ada, adopt, assign, done, fault, start_job, start_pool};
use crate::ledger::Step;
use crate::ledger::pool::HOLD_BYTES;
use crate::ledger::pools::{MAX_STOPPED_BYTES, MAX_STOPPED_POOLS};

#[test]
fn outcomes_of_a_cancelled_chunk_are_resent() {
    let mut test = TestLedger::new();
    test.command(assign(10, &[(1, 0, 3)]));
    let chunk = test.chunks()[0];
    assert!(test.ledger.event(done(chunk, 0, 2)).is_some());
    test.command(Command::CancelChunks(CancelChunks { chunks: vec![1] }));
    assert_eq!(test.last(), &Command::CancelChunks(CancelChunks { chunks: vec![chunk] }));
    assert_eq!(test.ledger.event(done(chunk, 2, 1)), None, "the outcome comes too late");
    assert_eq!(test.ledger.take_wasted(), Some(WastedOutcomes { items: 1 }));
    test.ledger.session_lost();
    let (held, _) = test.ledger.hello();
    assert_eq!(held[0].chunks[0].runs, [0, 2]);
}

#[test]
fn outcomes_are_kept_until_they_are_settled() {
    let mut test = TestLedger::new();
    test.command(assign(10, &[(1, 0, 4)]));
    let [chunk] = test.chunks()[..] else { panic!("not exactly one chunk") };
    for event in [done(chunk, 0, 1), done(chunk, 2, 1), fault(chunk, 3)] {
        test.ledger.event(event);
    }
    test.command(Command::Settled(Settled { pool: 1, report: 1 }));
    // Of a pool that is gone, and a second time.
    test.command(Command::Settled(Settled { pool: 2, report: 1 }));
    test.command(Command::Settled(Settled { pool: 1, report: 1 }));
    test.ledger.session_lost();
    let (held, _) = test.ledger.hello();
    let [pool] = &held[..] else { panic!("{held:?}") };
    assert_eq!((pool.pool >> 63, &pool.id[..], pool.processes), (1, &[7; 16][..], 2));
    assert_eq!(pool.owner, Some(ada()), "the next coordinator is told who owns it");
    let [held_chunk] = &pool.chunks[..] else { panic!("{pool:?}") };
    assert_eq!((held_chunk.job, held_chunk.attempt, held_chunk.first), (1010, 1, 0));
    assert_eq!(held_chunk.runs, [1, 1, 2, 1, 3, 1]);
    // They are resent under new names, in the same order, before newer ones.
    let events = test.command(adopt(pool, 5, &[(held_chunk.chunk, 50, 3)]));
    let again = |event| match event {
        Event::RunDone(done) => Event::RunDone(RunDone { chunk: 50, attempt: 3, ..done }),
        Event::ItemFault(fault) => Event::ItemFault(Box::new(ItemFault { chunk: 50, attempt: 3, ..*fault })),
        other => other,
    };
    let started = Event::PoolStarted(PoolStarted { pool: 5 });
    assert_eq!(events, [started, again(done(50, 2, 1)), again(fault(50, 3))]);
    assert_eq!(test.ledger.event(done(chunk, 1, 1)), Some(again(done(50, 1, 1))));
    test.command(assign(1_001_010, &[(51, 100, 1)]));
    let next = test.chunks()[1];
    assert_eq!(test.ledger.event(done(next, 100, 1)), Some(done(51, 100, 1)));
    test.command(Command::Settled(Settled { pool: 5, report: 4 }));
    test.ledger.session_lost();
    assert_eq!(test.ledger.hello().0[0].chunks, []);
}

#[test]
fn a_pool_that_was_stopped_and_is_started_again() {
    let mut test = TestLedger::new();
    test.command(assign(10, &[(1, 0, 1)]));
    let (chunk, pool) = (test.chunks()[0], test.pool());
    test.ledger.event(done(chunk, 0, 1));
    test.command(Command::StopPool(StopPool { pool: 1, now: false }));
    test.ledger.event(Event::PoolStopped(PoolStopped { pool }));
    test.command(start_pool(1));
    assert_ne!(test.pool(), pool);
    test.command(start_job(1, 10));
    test.command(assign(10, &[(2, 1, 1)]));
    let next = test.chunks()[1];
    assert_eq!(test.ledger.event(done(next, 1, 1)), Some(done(2, 1, 1)));
    // Earlier unsettled outcomes are kept with new ones.
    test.ledger.event(Event::PoolStarted(PoolStarted { pool: test.pool() }));
    test.ledger.session_lost();
    assert_eq!(test.ledger.hello().0[0].chunks.len(), 2);
}

#[test]
fn a_pool_that_keeps_too_much_is_held() {
    let mut test = TestLedger::new();
    test.command(assign(10, &[(1, 0, 4)]));
    let (chunk, pool) = (test.chunks()[0], test.pool());
    let large = |first| {
        let data = vec![0; HOLD_BYTES / 2].into();
        Event::RunDone(RunDone { chunk, attempt: 1, first, data, ends: vec![0; 4].into(), busy_ns: 0, failed: false })
    };
    test.ledger.event(large(0));
    assert!(!test.ledger.has_steps());
    test.ledger.event(large(1));
    assert_eq!(test.ledger.steps(), [Step::Hold { pool, hold: true }]);
    test.ledger.event(large(2));
    assert!(!test.ledger.has_steps(), "the hold is sent once");
    let settle = |test: &mut TestLedger, report| {
        test.ledger.command(Command::Settled(Settled { pool: 1, report })).expect("the report is unknown");
        test.ledger.steps()
    };
    assert_eq!(settle(&mut test, 1), []);
    assert_eq!(settle(&mut test, 3), [Step::Hold { pool, hold: false }]);
}

/// No coordinator can adopt it.
#[test]
fn nothing_of_a_pool_without_an_id_is_kept() {
    let mut test = TestLedger::new();
    let Command::StartPool(mut start) = start_pool(2) else { return };
    start.id.clear();
    test.command(Command::StartPool(start));
    let pool = test.pool();
    test.ledger.event(Event::PoolStarted(PoolStarted { pool }));
    test.command(start_job(2, 20));
    test.command(assign(20, &[(1, 0, 2), (2, 2, 1)]));
    let chunks = test.chunks();
    assert_eq!(test.ledger.event(done(chunks[0], 0, 1)), Some(done(1, 0, 1)));
    assert_eq!(test.ledger.event(fault(chunks[0], 1)), Some(fault(1, 1)));
    // Its reports are counted anyway.
    test.command(Command::Settled(Settled { pool: 2, report: 2 }));
    assert_eq!(test.ledger.work.chunks().count(), 1);
    test.ledger.session_lost();
    test.steps();
    assert_eq!(test.last(), &Command::StopPool(StopPool { pool, now: true }));
    assert_eq!(test.ledger.hello().0.len(), 1);
}

#[test]
fn stopped_pools_are_forgotten_at_last() {
    let mut test = TestLedger::new();
    for pool in 2..2 * MAX_STOPPED_POOLS as u64 {
        test.command(start_pool(pool));
        test.ledger.event(Event::PoolStopped(PoolStopped { pool: test.pool() }));
    }
    assert_eq!(test.ledger.pools.iter().count(), MAX_STOPPED_POOLS + 1);
    // Nor are all of their outcomes kept.
    let mut test = TestLedger::new();
    for pool in 2..10 {
        test.command(start_pool(pool));
        test.command(start_job(pool, 10 * pool));
        test.command(assign(10 * pool, &[(pool, 0, 1)]));
        let (chunk, data) = (*test.chunks().last().expect("no chunk"), vec![0; MAX_STOPPED_BYTES / 3].into());
        test.ledger.event(Event::RunDone(RunDone { chunk, data, ends: vec![0; 4].into(), ..RunDone::default() }));
        test.ledger.event(Event::PoolStopped(PoolStopped { pool: test.pool() }));
    }
    assert_eq!(test.ledger.pools.iter().count(), 1 + 2);
}
