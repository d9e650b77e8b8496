//! What the agent offers the next coordinator, and what becomes of adopted and other chunks.

use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::*;

use super::{TestLedger, adopt, assign, done, start_job, start_pool};
use crate::ledger::Step;

#[test]
fn invalid_adoptions_are_refused() {
    let check = |change: fn(&mut AdoptPool), words: &str| {
        let mut test = TestLedger::new();
        test.command(start_pool(2));
        test.ledger.event(Event::PoolStarted(PoolStarted { pool: test.pool() }));
        test.command(start_job(2, 20));
        test.command(assign(10, &[(1, 0, 1)]));
        test.command(assign(20, &[(2, 0, 1)]));
        test.ledger.session_lost();
        let (held, _) = test.ledger.hello();
        let Command::AdoptPool(mut adoption) = adopt(&held[0], 5, &[(held[0].chunks[0].chunk, 1, 1)]) else { return };
        test.command(Command::AdoptPool(adoption.clone()));
        adoption.held = held[1].pool;
        (adoption.pool, adoption.jobs, adoption.chunks) = (6, Vec::new(), Vec::new());
        change(&mut adoption);
        let error = test
            .ledger
            .command(Command::AdoptPool(adoption))
            .expect_err("the invalid adoption was accepted")
            .to_string();
        assert!(error.contains(words), "{error}");
    };
    check(|adoption| adoption.held -= 1, "is not held");
    check(|adoption| adoption.pool = 5, "that name is in use");
    check(|adoption| adoption.pool = 1 << 63 | 6, "that name is in use");
    check(|adoption| adoption.jobs.push(AdoptedJob { number: 77, job: 78 }), "job 77 was adopted, but is not held");
    check(|adoption| adoption.jobs.push(AdoptedJob { number: 1020, job: 1_001_010 }), "that name is in use");
    let of_the_other =
        |adoption: &mut AdoptPool| adoption.chunks.push(AdoptedChunk { held: 1 << 32, chunk: 9, attempt: 1 });
    check(of_the_other, "with the wrong pool");
}

#[test]
fn chunks_that_are_not_adopted_are_dropped() {
    let mut test = TestLedger::new();
    test.command(start_job(1, 11));
    test.command(assign(10, &[(1, 0, 2), (2, 2, 2)]));
    test.command(assign(11, &[(3, 0, 1)]));
    let chunks = test.chunks();
    for chunk in &chunks[..2] {
        test.ledger.event(done(*chunk, if *chunk == chunks[0] { 0 } else { 2 }, 1));
    }
    test.ledger.session_lost();
    test.ledger.event(done(chunks[2], 0, 1));
    let (held, wasted) = test.ledger.hello();
    assert_eq!((held[0].chunks.len(), wasted), (3, 0));
    let Command::AdoptPool(mut adoption) = adopt(&held[0], 5, &[(chunks[1], 50, 1)]) else { return };
    adoption.jobs.retain(|job| job.number == 1010);
    let events = test.command(Command::AdoptPool(adoption));
    assert_eq!(events[1..], [done(50, 2, 1)]);
    assert!(test.agent.contains(&Command::CancelChunks(CancelChunks { chunks: vec![chunks[0]] })), "{:?}", test.agent);
    assert!(matches!(test.last(), Command::EndJob(end) if end.kill), "{:?}", test.agent);
    assert_eq!(test.ledger.event(done(chunks[0], 1, 1)), None);
    // Two kept outcomes, and a late one: the next hello counts them unless they were reported before.
    assert_eq!(test.ledger.hello().1, 3);
    assert_eq!(test.ledger.take_wasted(), Some(WastedOutcomes { items: 3 }));
    assert_eq!((test.ledger.take_wasted(), test.ledger.hello().1), (None, 0));
    assert_eq!(test.ledger.event(done(chunks[0], 1, 1)), None);
    test.ledger.session_lost();
    assert_eq!(test.ledger.hello().1, 1);
    test.ledger.welcomed();
    assert_eq!(test.ledger.hello().1, 0);
}

#[test]
fn a_held_pool_that_is_not_adopted_is_stopped() {
    let mut test = TestLedger::new();
    test.command(assign(10, &[(1, 0, 2)]));
    let chunk = test.chunks()[0];
    test.ledger.session_lost();
    let held = test.ledger.hello().0[0].pool;
    test.command(Command::StopPool(StopPool { pool: held, now: false }));
    let pool = test.pool();
    assert_eq!(test.last(), &Command::StopPool(StopPool { pool, now: true }));
    assert!(test.ledger.is_empty());
    assert_eq!(test.ledger.event(done(chunk, 0, 1)), None);
    assert_eq!(test.ledger.event(Event::PoolStopped(PoolStopped { pool })), None);
    // The command may arrive twice.
    test.command(Command::StopPool(StopPool { pool: held, now: true }));
}

#[test]
fn pools_that_had_not_started_are_not_held() {
    let mut test = TestLedger::new();
    test.command(start_pool(2));
    let pool = test.pool();
    test.ledger.session_lost();
    test.steps();
    assert_eq!(test.last(), &Command::StopPool(StopPool { pool, now: true }));
    assert_eq!(test.ledger.hello().0.len(), 1);
}

#[test]
fn items_returned_without_a_session_are_reported_after_adoption() {
    let mut test = TestLedger::new();
    test.command(assign(10, &[(1, 0, 4)]));
    let chunk = test.chunks()[0];
    let back = |chunk, first, count| Event::Returned(Returned { chunk, attempt: 1, first, count });
    test.ledger.session_lost();
    assert_eq!(test.ledger.event(back(chunk, 3, 1)), None);
    let (held, _) = test.ledger.hello();
    assert_eq!(held[0].chunks[0].runs, [0, 3]);
    // The hello has told the coordinator that these are here.
    assert_eq!(test.ledger.event(back(chunk, 0, 3)), None);
    let events = test.command(adopt(&held[0], 5, &[(chunk, 50, 1)]));
    assert_eq!(events[1..], [back(50, 0, 3)]);
    test.ledger.session_lost();
    assert_eq!(test.ledger.hello().0[0].chunks, []);
}

#[test]
fn credit_and_health_are_resent() {
    let mut test = TestLedger::new();
    let credit = Event::Credit(Credit { chunks: 3, bytes: 4 });
    let unhealthy = |reason: &str| Event::HealthReport(HealthReport { reason: reason.to_owned(), pool: 0 });
    for event in [credit.clone(), unhealthy("why")] {
        assert_eq!(test.ledger.event(event.clone()), Some(event));
    }
    test.ledger.session_lost();
    test.ledger.hello();
    test.ledger.welcomed();
    assert_eq!(test.steps(), [unhealthy("why"), credit.clone()]);
    test.ledger.event(unhealthy(""));
    test.ledger.welcomed();
    assert_eq!(test.steps(), [credit]);
}

/// The next coordinator learns which of the pools that it adopts cannot serve, until they can.
#[test]
fn the_health_of_an_adopted_pool_is_reported() {
    let mut test = TestLedger::new();
    let pool = test.pool();
    let unhealthy = |pool| Event::HealthReport(HealthReport { reason: "why".to_owned(), pool });
    assert_eq!(test.ledger.event(unhealthy(pool)), Some(unhealthy(1)));
    assert_eq!(test.ledger.event(unhealthy(77)), None);
    test.ledger.session_lost();
    let (held, _) = test.ledger.hello();
    test.ledger.welcomed();
    let started = |pool| Event::PoolStarted(PoolStarted { pool });
    assert_eq!(test.command(adopt(&held[0], 5, &[])), [started(5), unhealthy(5)]);
    // It can serve again.
    assert_eq!(test.ledger.event(started(pool)), Some(started(5)));
    test.ledger.session_lost();
    let (held, _) = test.ledger.hello();
    assert_eq!(test.command(adopt(&held[0], 6, &[])), [started(6)]);
}

/// The agent's coordinator is lost while a pool's workers leave, or after they have.
#[test]
fn a_stopping_pool_keeps_running_if_adopted() {
    for (out, gone) in [(true, false), (false, false), (false, true)] {
        let mut test = TestLedger::new();
        test.command(assign(10, &[(1, 0, 2)]));
        let (chunk, pool) = (test.chunks()[0], test.pool());
        test.ledger.event(done(chunk, 0, if out { 1 } else { 2 }));
        test.command(Command::EndJob(EndJob { job: 10, kill: false }));
        test.command(Command::StopPool(StopPool { pool: 1, now: false }));
        if gone {
            test.ledger.event(Event::PoolStopped(PoolStopped { pool }));
        }
        test.ledger.session_lost();
        let (held, _) = test.ledger.hello();
        test.ledger.command(adopt(&held[0], 5, &[(chunk, 50, 1)])).expect("the adoption was refused");
        let steps = test.ledger.steps();
        assert_eq!(steps.contains(&Step::CancelStop(pool)), out, "{steps:?}");
        let starts = |step: &Step| matches!(step, Step::Command(Command::StartPool(start)) if start.pool != pool);
        assert_eq!(steps.iter().any(starts), !out, "{steps:?}");
        // The job is known again.
        let starts = |step: &Step| matches!(step, Step::Command(Command::StartJob(_)));
        assert!(steps.iter().any(starts), "{steps:?}");
        test.command(assign(1_001_010, &[(51, 2, 1)]));
        // Its previous processes report nothing.
        if !out {
            assert_eq!(test.ledger.event(Event::PoolStopped(PoolStopped { pool })), None);
        }
    }
}

#[test]
fn the_failure_of_a_pool_is_resent() {
    let mut test = TestLedger::new();
    test.command(assign(10, &[(1, 0, 2), (2, 2, 1)]));
    let (chunk, pool) = (test.chunks()[0], test.pool());
    test.ledger.event(done(chunk, 0, 1));
    let fault = |pool| Event::PoolFault(Box::new(PoolFault { pool, failure: Some(Failure::default()) }));
    let stopped = |pool| Event::PoolStopped(PoolStopped { pool });
    assert_eq!(test.ledger.event(fault(pool)), Some(fault(1)));
    assert_eq!(test.ledger.event(stopped(pool)), Some(stopped(1)));
    // The coordinator could not know that yet.
    let before = test.agent.len();
    test.command(start_job(1, 11));
    test.command(assign(10, &[(3, 5, 1)]));
    test.command(assign(11, &[(4, 5, 1)]));
    assert_eq!(test.agent.len(), before, "{:?}", test.agent);
    test.ledger.session_lost();
    let (held, _) = test.ledger.hello();
    assert_eq!(held[0].chunks.len(), 1);
    assert_eq!(held[0].chunks[0].runs, [0, 1]);
    let events = test.command(adopt(&held[0], 5, &[(chunk, 50, 1)]));
    assert_eq!(events, [Event::PoolStarted(PoolStarted { pool: 5 }), done(50, 0, 1), fault(5), stopped(5)]);
    test.command(assign(1_001_010, &[(51, 2, 1)]));
    assert_eq!(test.agent.len(), before, "{:?}", test.agent);
}

/// A held pool whose workers have exited starts again with its shared values, but not with those that were dropped.
#[test]
fn shared_values_outlive_the_processes_of_a_held_pool() {
    let mut test = TestLedger::new();
    for job in [20, 21] {
        let function = vec![7].into();
        let share = StartJob { pool: 1, job, function, number: job + 1000, shared: true, ..StartJob::default() };
        test.command(Command::StartJob(share));
    }
    test.command(assign(10, &[(5, 0, 1)]));
    let [chunk] = test.chunks()[..] else { panic!("not exactly one chunk") };
    test.ledger.event(done(chunk, 0, 1));
    test.ledger.session_lost();
    test.steps();
    let (held, _) = test.ledger.hello();
    assert_eq!(held[0].shared, [1020, 1021]);
    let pool = test.pool();
    test.ledger.event(Event::PoolStopped(PoolStopped { pool }));
    let Command::AdoptPool(mut adopt) = adopt(&held[0], 2, &[(held[0].chunks[0].chunk, 6, 1)]) else { unreachable!() };
    adopt.jobs.push(AdoptedJob { number: 1020, job: 30 });
    test.agent.clear();
    test.command(Command::AdoptPool(adopt));
    let shared = test.agent.iter().filter_map(|command| match command {
        Command::StartJob(start) if start.shared => Some((start.number, start.function.to_vec())),
        _ => None,
    });
    assert_eq!(shared.collect::<Vec<_>>(), [(1020, vec![7])]);
    assert!(matches!(test.agent[0], Command::StartPool(_)), "{:?}", test.agent);
    let pool = test.pool();
    test.ledger.event(Event::PoolStarted(PoolStarted { pool }));
    test.command(Command::EndJob(EndJob { job: 30, kill: false }));
    test.ledger.session_lost();
    assert_eq!(test.ledger.hello().0[0].shared, []);
}
