//! What the agent offers the next coordinator, and what happens to adopted and other chunks.

use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::*;

use super::{Book, adopt, assign, done, start_job, start_pool};
use crate::ledger::Step;

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
fn chunks_that_are_not_adopted_are_dropped() {
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
    let (held, wasted) = book.ledger.hello();
    assert_eq!((held[0].chunks.len(), wasted), (3, 0));
    let Command::AdoptPool(mut told) = adopt(&held[0], 5, &[(chunks[1], 50, 1)]) else { return };
    told.jobs.retain(|job| job.number == 1010);
    let told = book.say(Command::AdoptPool(told));
    assert_eq!(told[1..], [done(50, 2, 1)]);
    assert!(book.agent.contains(&Command::CancelChunks(CancelChunks { chunks: vec![chunks[0]] })), "{:?}", book.agent);
    assert!(matches!(book.last(), Command::EndJob(end) if end.kill), "{:?}", book.agent);
    assert_eq!(book.ledger.event(done(chunks[0], 1, 1)), None);
    // Two that were kept, and one that came late: the next hello counts them if they were not told before.
    assert_eq!(book.ledger.hello().1, 3);
    assert_eq!(book.ledger.take_wasted(), Some(WastedOutcomes { items: 3 }));
    assert_eq!((book.ledger.take_wasted(), book.ledger.hello().1), (None, 0));
    assert_eq!(book.ledger.event(done(chunks[0], 1, 1)), None);
    book.ledger.session_lost();
    assert_eq!(book.ledger.hello().1, 1);
    book.ledger.welcomed();
    assert_eq!(book.ledger.hello().1, 0);
}

#[test]
fn a_held_pool_that_is_not_adopted_is_stopped() {
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
fn items_returned_without_a_session_are_reported_after_adoption() {
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
    let unhealthy = |reason: &str| Event::HealthReport(HealthReport { reason: reason.to_owned(), pool: 0 });
    for event in [credit.clone(), unhealthy("why")] {
        assert_eq!(book.ledger.event(event.clone()), Some(event));
    }
    book.ledger.session_lost();
    book.ledger.hello();
    book.ledger.welcomed();
    assert_eq!(book.steps(), [unhealthy("why"), credit.clone()]);
    book.ledger.event(unhealthy(""));
    book.ledger.welcomed();
    assert_eq!(book.steps(), [credit]);
}

/// The next coordinator learns which of the pools that it adopts cannot serve, until they can.
#[test]
fn who_adopts_an_ailing_pool_is_told() {
    let mut book = Book::new();
    let pool = book.pool();
    let unhealthy = |pool| Event::HealthReport(HealthReport { reason: "why".to_owned(), pool });
    assert_eq!(book.ledger.event(unhealthy(pool)), Some(unhealthy(1)));
    assert_eq!(book.ledger.event(unhealthy(77)), None);
    book.ledger.session_lost();
    let (held, _) = book.ledger.hello();
    book.ledger.welcomed();
    let started = |pool| Event::PoolStarted(PoolStarted { pool });
    assert_eq!(book.say(adopt(&held[0], 5, &[])), [started(5), unhealthy(5)]);
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
