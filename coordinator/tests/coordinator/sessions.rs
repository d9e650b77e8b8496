//! Sessions, message by message. No other messages are sent than those listed.

use farpool_coordinator::{Config, RefusedKind};
use farpool_proto::v1::{FailureKind, agent_command, client_event};

use crate::fakes::*;

/// The pool's id in the messages: the first one of a coordinator.
const POOL: u64 = 1 << 32;

/// What a stored message counts in addition to its bytes.
const MESSAGE_COST: u64 = 192;

/// An agent with two slots and room for three chunks, and a client with a pool there.
fn opened() -> Wire {
    let mut wire = Wire::new();
    wire.agent(2, 3);
    wire.client();
    wire.send(0, open_pool(0));
    wire.expect(&["client0: welcome", "client0: opened with 2 slots", "agent0: start pool 0"]);
    wire
}

/// The chunks of the agent's last message; only the start of their job may precede it in the inbox.
fn assigned(wire: &mut Wire, agent: usize) -> Vec<Held> {
    wire.schedule();
    let mut chunks = Vec::new();
    for command in wire.to_agents[agent].drain(..) {
        match command {
            agent_command::Body::Assign(assign) => chunks.extend(held(&assign)),
            agent_command::Body::StartJob(_) => {}
            other => panic!("{other:?}"),
        }
    }
    chunks
}

#[test]
fn a_map_from_start_to_finish() {
    let mut wire = opened();
    wire.send(0, open_job(7, 2, 2));
    wire.send(0, items(7, 0, &["a", "", "c"]));
    wire.send(0, items(7, 3, &["d", "e"]));
    wire.send(0, end_items(7));
    wire.expect(&[]);
    wire.schedule();
    // Chunks of two, one of them out of both batches; all of it in one message.
    let Some(agent_command::Body::Assign(assign)) = wire.to_agents[0].back().cloned() else { panic!() };
    wire.expect(&[
        "agent0: start job 0 whole",
        r#"agent0: run job 0 attempt 1 from 0 ["a", ""], job 0 attempt 1 from 2 ["c", "d"], job 0 attempt 1 from 4 ["e"]"#,
    ]);
    let chunks = held(&assign);
    assert_eq!(assign.segments.len(), 4);
    wire.report(0, done(&chunks[1], 0, 1));
    wire.report(0, done(&chunks[2], 0, 1));
    wire.report(0, done(&chunks[0], 0, 2));
    wire.expect(&[
        r#"client0: job 7 done 2: ["C"]"#,
        r#"client0: job 7 done 4: ["E"]"#,
        r#"client0: job 7 done 0: ["A", ""]"#,
    ]);
    wire.report(0, done(&chunks[1], 1, 1));
    wire.expect(&[r#"client0: job 7 done 3: ["D"]"#, "client0: job 7 ended", "agent0: end job 0"]);
    wire.send(0, close(false));
    wire.expect(&["agent0: stop pool 0"]);
    wire.report(0, pool_stopped(POOL));
    wire.expect(&["client0: closed"]);
    assert!(wire.coordinator.is_idle());
    assert_eq!((wire.coordinator.stored_bytes(), wire.coordinator.late_messages()), (0, 0));
}

#[test]
fn an_empty_job_ends_at_once() {
    let mut wire = opened();
    wire.send(0, open_job(0, 0, 2));
    wire.send(0, end_items(0));
    wire.expect(&["client0: job 0 ended"]);
}

#[test]
fn the_pool_waits_for_an_agent() {
    let mut wire = Wire::new();
    wire.client();
    wire.send(0, open_pool(3));
    wire.send(0, open_job(0, 1, 0));
    wire.send(0, items(0, 0, &["a"]));
    wire.schedule();
    wire.expect(&["client0: welcome", "client0: waiting: no agent is connected"]);
    wire.agent(2, 1);
    wire.schedule();
    wire.expect(&[
        "client0: opened with 2 slots",
        "agent0: start pool 0 with 2",
        "agent0: start job 0 whole",
        r#"agent0: run job 0 attempt 1 from 0 ["a"]"#,
    ]);
    // An agent that joins later gets the rest.
    wire.agent(8, 1);
    wire.expect(&["client0: opened with 3 slots", "agent1: start pool 0 with 1"]);
    wire.agent(8, 1);
    wire.expect(&[]);
}

#[test]
fn faults_are_retried_or_delivered() {
    let check = |retries: u32, faults: &[FailureKind], received: &str| {
        let mut wire = opened();
        wire.send(0, open_job(0, 1, retries));
        wire.send(0, items(0, 0, &["a"]));
        wire.send(0, end_items(0));
        for (at, kind) in faults.iter().enumerate() {
            let chunks = assigned(&mut wire, 0);
            assert_eq!(chunks.iter().map(|chunk| chunk.attempt).collect::<Vec<_>>(), [at as u32 + 1]);
            wire.report(0, fault(&chunks[0], 0, *kind));
        }
        wire.schedule();
        wire.expect(&[received, "client0: job 0 ended", "agent0: end job 0"]);
    };
    use FailureKind::*;
    check(2, &[WorkerDied; 3], "client0: job 0 failed 0: WorkerDied on host0, attempts 3");
    check(0, &[WorkerDied], "client0: job 0 failed 0: WorkerDied on host0, attempts 1");
    check(2, &[WorkerDied, Panicked], "client0: job 0 failed 0: Panicked on host0, attempts 2");
    check(2, &[TimedOut], "client0: job 0 failed 0: TimedOut on host0, attempts 1");
    check(2, &[PayloadTooLarge], "client0: job 0 failed 0: PayloadTooLarge on host0, attempts 1");
}

#[test]
fn results_that_count_as_failed_are_retried_or_delivered() {
    let check = |retries: u32, failures: u32, received: &str| {
        let mut wire = opened();
        wire.send(0, open_job_retrying(0, 1, retries));
        wire.send(0, items(0, 0, &["a"]));
        wire.send(0, end_items(0));
        for attempt in 1..=failures {
            let chunks = assigned(&mut wire, 0);
            assert_eq!(chunks.iter().map(|chunk| chunk.attempt).collect::<Vec<_>>(), [attempt]);
            wire.report(0, failed(&chunks[0], 0, 1));
        }
        if failures <= retries {
            let chunks = assigned(&mut wire, 0);
            wire.report(0, done(&chunks[0], 0, 1));
        }
        wire.schedule();
        wire.expect(&[received, "client0: job 0 ended", "agent0: end job 0"]);
        assert_eq!(wire.coordinator.stored_bytes(), 0);
    };
    check(2, 0, r#"client0: job 0 done 0: ["A"]"#);
    check(2, 2, r#"client0: job 0 done 0: ["A"], attempts 3"#);
    check(2, 3, r#"client0: job 0 done 0: ["A"], failed, attempts 3"#);
    check(0, 1, r#"client0: job 0 done 0: ["A"], failed"#);
}

#[test]
fn items_that_fail_after_retries_are_stopped_are_not_retried() {
    let mut wire = opened();
    wire.send(0, open_job_retrying(0, 1, 5));
    wire.send(0, items(0, 0, &["a", "b"]));
    wire.send(0, end_items(0));
    let chunks = assigned(&mut wire, 0);
    wire.report(0, failed(&chunks[0], 0, 1));
    wire.send(0, stop_retries(0));
    wire.report(0, failed(&chunks[1], 0, 1));
    wire.expect(&[r#"client0: job 0 done 1: ["B"], failed"#]);
    let chunks = assigned(&mut wire, 0);
    wire.report(0, failed(&chunks[0], 0, 1));
    wire.expect(&[r#"client0: job 0 done 0: ["A"], failed, attempts 2"#, "client0: job 0 ended", "agent0: end job 0"]);
    // The client may not know yet that the job has ended.
    wire.send(0, stop_retries(0));
    assert_eq!(wire.coordinator.late_messages(), 1);
    assert!(wire.try_send(0, stop_retries(7)).is_err());
}

#[test]
fn a_cancelled_job_is_gone_at_once() {
    let mut wire = opened();
    wire.send(0, open_job(0, 1, 2));
    wire.send(0, items(0, 0, &["a", "b", "c", "d"]));
    let chunks = assigned(&mut wire, 0);
    wire.report(0, done(&chunks[0], 0, 1));
    wire.send(0, cancel(0));
    wire.expect(&[r#"client0: job 0 done 0: ["A"]"#, "client0: job 0 cancelled", "agent0: end job 0 kill"]);
    assert_eq!(wire.coordinator.stored_bytes(), 0);
    // Messages from both sides are late now.
    wire.report(0, done(&chunks[1], 0, 1));
    wire.send(0, items(0, 4, &["e"]));
    wire.send(0, end_items(0));
    wire.send(0, cancel(0));
    wire.schedule();
    wire.expect(&[]);
    assert_eq!(wire.coordinator.late_messages(), 4);
}

#[test]
fn closing_waits_for_jobs_unless_it_is_now() {
    let mut wire = opened();
    wire.send(0, open_job(0, 1, 2));
    wire.send(0, items(0, 0, &["a"]));
    let chunks = assigned(&mut wire, 0);
    wire.send(0, close(false));
    wire.expect(&[]);
    wire.send(0, end_items(0));
    wire.report(0, done(&chunks[0], 0, 1));
    wire.expect(&[
        r#"client0: job 0 done 0: ["A"]"#,
        "client0: job 0 ended",
        "agent0: end job 0",
        "agent0: stop pool 0",
    ]);
    wire.send(0, close(true));
    wire.expect(&["agent0: stop pool 0 now"]);
    wire.report(0, pool_stopped(POOL));
    wire.expect(&["client0: closed"]);

    let mut wire = opened();
    wire.send(0, open_job(0, 1, 2));
    wire.send(0, items(0, 0, &["a", "b"]));
    assigned(&mut wire, 0);
    wire.send(0, close(false));
    wire.send(0, close(true));
    wire.expect(&["client0: job 0 cancelled", "agent0: end job 0 kill", "agent0: stop pool 0 now"]);
    wire.report(0, pool_stopped(POOL));
    wire.expect(&["client0: closed"]);

    // No agent has the pool, so none is told to stop it.
    let mut wire = Wire::new();
    wire.client();
    wire.send(0, open_pool(0));
    wire.send(0, close(false));
    wire.expect(&["client0: welcome", "client0: waiting: no agent is connected", "client0: closed"]);
}

#[test]
fn closing_waits_for_all_jobs() {
    let mut wire = opened();
    for job in 0..2 {
        wire.send(0, open_job(job, 1, 2));
    }
    wire.send(0, close(false));
    wire.send(0, end_items(0));
    wire.expect(&["client0: job 0 ended"]);
    wire.send(0, end_items(1));
    wire.expect(&["client0: job 1 ended", "agent0: stop pool 0"]);
}

#[test]
fn items_that_failed_are_not_kept() {
    let mut wire = opened();
    wire.send(0, open_job(0, 1, 0));
    wire.send(0, items(0, 0, &["a"]));
    wire.send(0, items(0, 1, &["bc"]));
    let chunks = assigned(&mut wire, 0);
    assert_eq!(wire.coordinator.stored_bytes(), 3 + 2 * 4 + 2 * MESSAGE_COST);
    wire.report(0, fault(&chunks[0], 0, FailureKind::WorkerDied));
    wire.expect(&["client0: job 0 failed 0: WorkerDied on host0, attempts 1"]);
    assert_eq!(wire.coordinator.stored_bytes(), 2 + 4 + MESSAGE_COST);
}

#[test]
fn an_agent_gets_no_more_than_the_limit() {
    let mut config = Config::default();
    config.max_agent_chunks = 2;
    let mut wire = Wire::with(config);
    wire.agent(1, u32::MAX);
    wire.client();
    wire.send(0, open_pool(0));
    wire.send(0, open_job(0, 1, 0));
    wire.send(0, items(0, 0, &["a", "b", "c"]));
    wire.to_agents[0].clear();
    assert_eq!(assigned(&mut wire, 0).len(), 2);
}

#[test]
fn nothing_remains_of_a_lost_client() {
    let mut wire = opened();
    wire.send(0, open_job(0, 1, 2));
    wire.send(0, items(0, 0, &["a", "b"]));
    let chunks = assigned(&mut wire, 0);
    wire.client_gone(0);
    wire.expect(&["agent0: end job 0 kill", "agent0: stop pool 0 now"]);
    wire.report(0, done(&chunks[0], 0, 1));
    wire.report(0, pool_stopped(POOL));
    wire.schedule();
    wire.expect(&[]);
    assert!(wire.coordinator.is_idle());
    assert_eq!(wire.coordinator.stored_bytes(), 0);
}

#[test]
fn a_pool_reports_its_failure_once() {
    let mut wire = opened();
    wire.agent(1, 1);
    wire.expect(&["client0: opened with 3 slots", "agent1: start pool 0"]);
    wire.send(0, open_job(0, 1, 2));
    wire.send(0, items(0, 0, &["a", "b", "c", "d", "e", "f"]));
    assigned(&mut wire, 0);
    assigned(&mut wire, 1);
    wire.report(0, pool_fault(POOL, FailureKind::InitializerFailed));
    wire.report(1, pool_fault(POOL, FailureKind::InitializerFailed));
    wire.expect(&[
        "client0: pool failed: InitializerFailed on there, attempts 0",
        "agent0: end job 0 kill",
        "agent0: stop pool 0 now",
        "agent1: end job 0 kill",
        "agent1: stop pool 0 now",
    ]);
    // The client continues until it knows.
    wire.send(0, items(0, 6, &["g"]));
    wire.send(0, open_job(1, 1, 2));
    wire.send(0, items(1, 0, &["h"]));
    wire.report(0, pool_stopped(POOL));
    wire.report(1, pool_stopped(POOL));
    wire.expect(&[]);
    wire.send(0, close(false));
    wire.expect(&["client0: closed"]);
    assert!(wire.coordinator.is_idle());
}

#[test]
fn chunks_of_a_lost_agent_run_elsewhere_or_fail() {
    let check = |retries: u32, expected: &[&str]| {
        let mut wire = opened();
        wire.send(0, open_job(0, 2, retries));
        wire.send(0, items(0, 0, &["a", "b", "c"]));
        wire.send(0, end_items(0));
        let chunks = assigned(&mut wire, 0);
        wire.report(0, done(&chunks[0], 0, 1));
        wire.expect(&[r#"client0: job 0 done 0: ["A"]"#]);
        wire.agent_gone(0);
        let mut events: Vec<_> = wire.to_clients[0].drain(..).collect();
        assert!(matches!(events.pop(), Some(client_event::Body::Waiting(_))));
        wire.to_clients[0].extend(events);
        wire.agent(1, 2);
        wire.schedule();
        wire.expect(expected);
    };
    check(
        1,
        &[
            "client0: opened with 1 slots",
            "agent1: start pool 0",
            "agent1: start job 0 whole",
            r#"agent1: run job 0 attempt 2 from 1 ["b"], job 0 attempt 2 from 2 ["c"]"#,
        ],
    );
    check(
        0,
        &[
            "client0: job 0 failed 2: AgentLost on host0, attempts 1",
            "client0: job 0 failed 1: AgentLost on host0, attempts 1",
            "client0: job 0 ended",
            "client0: opened with 1 slots",
            "agent1: start pool 0",
        ],
    );
}

#[test]
fn chunks_are_taken_back_for_an_idle_agent() {
    let mut wire = opened();
    wire.send(0, open_job(0, 1, 2));
    wire.send(0, items(0, 0, &["a", "b", "c"]));
    wire.send(0, end_items(0));
    let chunks = assigned(&mut wire, 0);
    wire.agent(2, 3);
    wire.schedule();
    wire.expect(&["client0: opened with 4 slots", "agent0: give back 1", "agent1: start pool 0"]);
    wire.report(0, give_back(&chunks[2], 0, 1));
    wire.schedule();
    wire.expect(&["agent1: start job 0 whole", r#"agent1: run job 0 attempt 1 from 2 ["c"]"#]);
}

/// A coordinator with a window of 100 bytes and a job; an item takes its letters and 4 bytes.
fn narrow(chunksize: u64) -> Wire {
    let mut config = Config::default();
    config.window = 100;
    let mut wire = Wire::with(config);
    wire.agent(2, 3);
    wire.client();
    wire.send(0, open_pool(0));
    let Some(client_event::Body::Welcome(welcome)) = wire.to_clients[0].pop_front() else { panic!() };
    assert_eq!(welcome.window, 100);
    wire.expect(&["client0: opened with 2 slots", "agent0: start pool 0"]);
    wire.send(0, open_job(7, chunksize, 0));
    wire.to_agents[0].clear();
    wire
}

/// `count` items of 26 bytes, and 4 bytes each for their ends.
fn thirties(first: u64, count: usize) -> Request {
    items(7, first, &vec!["abcdefghijklmnopqrstuvwxyz"; count])
}

#[test]
fn the_window_rises_as_items_have_outcomes() {
    let mut wire = narrow(1);
    for first in 0..4 {
        wire.send(0, thirties(first, 1));
    }
    let refused = wire.try_send(0, thirties(4, 1)).expect_err("120 bytes have arrived");
    assert_eq!(refused.kind(), &RefusedKind::WindowOverrun { job: 7, limit: 100 });
    assert_eq!(wire.coordinator.stored_bytes(), 120 + 4 * MESSAGE_COST);
    let chunks = assigned(&mut wire, 0);
    wire.report(0, fault(&chunks[0], 0, FailureKind::WorkerDied));
    wire.expect(&["client0: job 7 failed 0: WorkerDied on host0, attempts 1", "client0: job 7 window 130"]);
    wire.send(0, thirties(4, 1));
    wire.try_send(0, thirties(5, 1)).expect_err("120 bytes are held again");
    wire.report(0, done(&chunks[1], 0, 1));
    wire.expect(&[r#"client0: job 7 done 1: ["ABCDEFGHIJKLMNOPQRSTUVWXYZ"]"#, "client0: job 7 window 160"]);
    // Another job has a window of its own, and a job whose input has ended gets no new limit.
    wire.send(0, open_job(8, 1, 0));
    wire.send(0, items(8, 0, &["a"]));
    wire.send(0, end_items(7));
    wire.report(0, done(&chunks[2], 0, 1));
    wire.expect(&[r#"client0: job 7 done 2: ["ABCDEFGHIJKLMNOPQRSTUVWXYZ"]"#]);
}

#[test]
fn grants_are_rare() {
    let mut wire = narrow(1);
    for first in 0..10 {
        wire.send(0, items(7, first, &["abcdef"]));
    }
    let mut received = Vec::new();
    for _ in 0..10 {
        for chunk in assigned(&mut wire, 0) {
            wire.report(0, done(&chunk, 0, 1));
        }
        let events = wire.to_clients[0].drain(..);
        received.extend(events.filter_map(|event| match event {
            client_event::Body::Window(window) => Some(window.limit),
            _ => None,
        }));
    }
    assert_eq!(received, [130, 160, 190]);
}

#[test]
fn one_item_may_be_larger_than_the_window() {
    let mut wire = narrow(1);
    let large = "x".repeat(PAYLOAD_LIMIT as usize);
    wire.send(0, items(7, 0, &["a"]));
    wire.send(0, items(7, 1, &[&large]));
    wire.try_send(0, items(7, 2, &["c"])).expect_err("the window is full");
    let chunks = assigned(&mut wire, 0);
    wire.report(0, done(&chunks[1], 0, 1));
    assert!(matches!(wire.to_clients[0].pop_back(), Some(client_event::Body::Window(window)) if window.limit == 1104));
    wire.send(0, items(7, 2, &["c"]));
}

#[test]
fn a_chunk_larger_than_the_window_is_completed() {
    let mut wire = narrow(8);
    for first in 0..4 {
        wire.send(0, thirties(2 * first, 2));
    }
    wire.try_send(0, thirties(8, 1)).expect_err("a whole chunk has arrived");
    let chunks = assigned(&mut wire, 0);
    assert_eq!(chunks[0].items.len(), 8);
    wire.report(0, done(&chunks[0], 0, 1));
    wire.expect(&[r#"client0: job 7 done 0: ["ABCDEFGHIJKLMNOPQRSTUVWXYZ"]"#]);
    wire.send(0, thirties(8, 2));
    wire.try_send(0, thirties(10, 1)).expect_err("nine items have arrived");
    // The client leaves items out up to the next chunk: this one runs as it is.
    wire.report(0, done(&chunks[0], 1, 7));
    wire.send(0, thirties(16, 7));
    assert_eq!(assigned(&mut wire, 0)[0].items.len(), 2);
}
