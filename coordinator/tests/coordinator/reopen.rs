//! A new coordinator, clients that open their pools again, and agents that still hold chunks.

use std::time::Duration;

use farpool_coordinator::{Config, RefusedKind};
use farpool_proto::v1::{AgentHello, FailureKind, HeldPool, PoolReopened, WastedOutcomes, agent_command, client_event};

use crate::fakes::*;

/// The recovery timeout, and a little more.
const RECOVERY: u64 = 5_000_000_000;

fn reopened() -> Request {
    Request::PoolReopened(PoolReopened {})
}

/// The message to a client that opens its pool again while one agent that ran it is missing.
const WAITS: &str = "client0: waiting: the pool is being reopened: 1 agent that ran it has not reconnected";

#[test]
fn a_pool_resumes_where_it_is_held() {
    let mut wire = Wire::new();
    wire.client();
    wire.send(0, open_pool_as(9, 0, Some(&[1])));
    wire.send(0, open_job(3, 1, 2));
    wire.send(0, items(3, 4, &["e", "f", "g", "h"]));
    wire.send(0, end_items(3));
    wire.schedule();
    wire.expect(&["client0: welcome"]);
    wire.send(0, reopened());
    wire.schedule();
    wire.expect(&[WAITS]);
    // Item 5 is at its second attempt there, and the report about 7 is not settled.
    let chunks = vec![held_chunk(70, 3, 5, 2, &[(5, 1)]), held_chunk(71, 3, 7, 1, &[(7, 1)])];
    wire.agent_as(1, 2, vec![held_pool(5, 9, chunks)]);
    wire.schedule();
    wire.expect(&[
        "client0: runs at 1",
        "client0: opened with 2 slots",
        "agent0: adopt held pool 5 as 0 job 3 as 0 chunk 70 attempt 2 chunk 71 attempt 1",
    ]);
    // The agent reports under the new ids, and gets the rest.
    let chunk = |at: u64, first, attempt, item: &str| Held {
        chunk: (1 << 32) | at,
        job: 1 << 32,
        first,
        attempt,
        items: vec![item.to_owned()],
    };
    let seven = chunk(1, 7, 1, "h");
    wire.report(0, done(&seven, 0, 1));
    wire.schedule();
    wire.expect(&["client0: job 3 done 7: [\"H\"]", "agent0: run job 0 attempt 1 from 4 [\"e\"]"]);
    let five = chunk(0, 5, 2, "f");
    wire.report(0, fault(&five, 5, FailureKind::WorkerDied));
    wire.schedule();
    // The third attempt is the last that `retries` allows.
    wire.expect(&["agent0: run job 0 attempt 3 from 5 [\"f\"]"]);
}

/// An agent receives nothing about a pool before it is told to adopt it.
#[test]
fn a_place_is_adopted_with_the_workers_that_it_is_to_have() {
    let mut wire = Wire::new();
    wire.client();
    wire.send(0, open_pool_as(9, 4, Some(&[1, 2])));
    wire.send(0, reopened());
    wire.agent_as(2, 2, vec![]);
    // It had one worker, and there is room for one more.
    wire.agent_as(1, 2, vec![HeldPool { processes: 1, ..held_pool(5, 9, vec![]) }]);
    wire.schedule();
    wire.expect(&[
        "client0: welcome",
        "client0: waiting: the pool is being reopened: 2 agents that ran it have not reconnected",
        WAITS,
        "client0: runs at 1",
        "client0: runs at 2",
        "client0: opened with 4 slots",
        "agent0: start pool 0 with 2",
        "agent1: adopt held pool 5 as 0 with 2",
    ]);
}

#[test]
fn failed_attempts_count_when_their_report_is_resent() {
    let mut wire = Wire::new();
    wire.client();
    wire.send(0, open_pool_as(9, 0, Some(&[1])));
    wire.send(0, open_job_retrying(3, 1, 2));
    wire.send(0, open_job_retrying(4, 1, 2));
    // Before the core knows the job.
    wire.send(0, stop_retries(4));
    wire.send(0, items(3, 0, &["a", "b"]));
    wire.send(0, items(4, 0, &["c"]));
    wire.send(0, reopened());
    let chunks = vec![
        held_chunk(70, 3, 0, 3, &[(0, 1)]),
        held_chunk(71, 3, 1, 2, &[(1, 1)]),
        held_chunk(72, 4, 0, 1, &[(0, 1)]),
    ];
    wire.agent_as(1, 3, vec![held_pool(5, 9, chunks)]);
    wire.schedule();
    wire.to_clients[0].clear();
    wire.to_agents[0].clear();
    let chunk = |at: u64, job: u64, first, attempt, item: &str| Held {
        chunk: (1 << 32) | at,
        job: (1 << 32) | job,
        first,
        attempt,
        items: vec![item.to_owned()],
    };
    for held in [chunk(0, 0, 0, 3, "a"), chunk(1, 0, 1, 2, "b"), chunk(2, 1, 0, 1, "c")] {
        wire.report(0, failed(&held, 0, 1));
    }
    wire.schedule();
    wire.expect(&[
        "client0: job 3 done 0: [\"A\"], failed, attempts 3",
        "client0: job 4 done 0: [\"C\"], failed",
        "agent0: run job 0 attempt 3 from 1 [\"b\"]",
    ]);
}

#[test]
fn unneeded_items_are_not_adopted() {
    let mut wire = Wire::new();
    wire.client();
    wire.send(0, open_pool_as(9, 0, Some(&[1, 2])));
    wire.send(0, open_job(0, 1, 2));
    // The client has the outcomes of 0 and 3.
    wire.send(0, items(0, 1, &["b", "c"]));
    wire.send(0, items(0, 4, &["e"]));
    wire.send(0, end_items(0));
    wire.send(0, reopened());
    wire.expect(&[
        "client0: welcome",
        "client0: waiting: the pool is being reopened: 2 agents that ran it have not reconnected",
    ]);
    let chunks = vec![
        // Its report is settled, but the agent does not know that.
        held_chunk(1, 0, 0, 1, &[(0, 1)]),
        // The client has parts of both: only complete runs are adopted.
        held_chunk(2, 0, 2, 1, &[(2, 2)]),
        held_chunk(3, 0, 1, 1, &[(1, 1)]),
        // Of a job that is no longer needed.
        held_chunk(4, 7, 0, 1, &[(0, 1)]),
    ];
    wire.agent_as(1, 1, vec![held_pool(0, 9, chunks), held_pool(1, 8, vec![])]);
    wire.expect(&[WAITS]);
    // An item that the first agent holds too, and one that only this agent holds.
    let chunks = vec![held_chunk(1, 0, 1, 1, &[(1, 1)]), held_chunk(2, 0, 4, 1, &[(4, 1)])];
    wire.agent_as(2, 1, vec![held_pool(0, 9, chunks)]);
    wire.expect(&[
        "client0: runs at 1",
        "client0: runs at 2",
        "client0: opened with 2 slots",
        "agent0: adopt held pool 0 as 0 job 0 as 0 chunk 3 attempt 1",
        "agent1: adopt held pool 0 as 0 job 0 as 0 chunk 2 attempt 1",
    ]);
    // No client claims the other pool.
    wire.wait(RECOVERY);
    wire.schedule();
    wire.expect(&["agent0: stop held pool 1 now"]);
    wire.report(0, pool_stopped(HELD | 1));
    assert_eq!(wire.coordinator.next_deadline(), None);
}

#[test]
fn missing_agents_are_not_waited_for_after_the_timeout() {
    let mut wire = Wire::new();
    wire.agent_as(2, 1, Vec::new());
    wire.client();
    wire.send(0, open_pool_as(9, 0, Some(&[1, 2])));
    wire.send(0, open_job(0, 1, 2));
    wire.send(0, open_job(1, 1, 0));
    wire.send(0, items(0, 0, &["a"]));
    wire.send(0, items(1, 0, &["once"]));
    wire.send(0, reopened());
    wire.schedule();
    wire.expect(&["client0: welcome", WAITS]);
    assert_eq!(wire.coordinator.next_deadline(), wire.coordinator.next_due());
    wire.wait(RECOVERY - 100_000);
    wire.schedule();
    wire.expect(&[]);
    wire.wait(100_000);
    wire.schedule();
    // Items that may have run at the missing agent must not run twice.
    wire.expect(&[
        "client0: runs at 2",
        "client0: opened with 1 slots",
        "client0: job 1 failed 0: AgentLost on , attempts 1",
        "client0: no more at 1",
        "agent0: start pool 0",
    ]);
    wire.schedule();
    wire.expect(&["agent0: start job 0 whole", "agent0: run job 0 attempt 1 from 0 [\"a\"]"]);
    assert_eq!(wire.coordinator.next_deadline(), None);
    // It reconnects in the end: what it holds runs elsewhere by now.
    wire.agent_as(1, 1, vec![held_pool(3, 9, vec![held_chunk(5, 0, 0, 1, &[(0, 1)])])]);
    wire.expect(&["client0: runs at 1", "client0: opened with 2 slots", "agent1: adopt held pool 3 as 0"]);
}

/// No agent can have run items that arrived for the first time.
#[test]
fn new_items_do_not_fail_with_those_that_may_have_run() {
    let mut wire = Wire::new();
    wire.agent_as(2, 1, Vec::new());
    wire.client();
    wire.send(0, open_pool_as(9, 0, Some(&[1, 2])));
    wire.send(0, open_job(0, 1, 0));
    wire.send(0, items(0, 0, &["a", "b"]));
    wire.send(0, reopened());
    wire.send(0, items(0, 2, &["c"]));
    wire.send(0, end_items(0));
    wire.send(0, open_job(1, 1, 0));
    wire.send(0, items(1, 0, &["d"]));
    wire.expect(&["client0: welcome", WAITS]);
    wire.wait(RECOVERY);
    wire.schedule();
    wire.expect(&[
        "client0: runs at 2",
        "client0: opened with 1 slots",
        "client0: job 0 failed 0 to 1: AgentLost on , attempts 1",
        "client0: no more at 1",
        "agent0: start pool 0",
    ]);
    wire.schedule();
    wire.expect(&["agent0: start job 0 whole", "agent0: run job 0 attempt 1 from 2 [\"c\"]"]);
    let chunk = Held { chunk: 1 << 32, job: 1 << 32, first: 2, attempt: 1, items: vec!["c".to_owned()] };
    wire.report(0, done(&chunk, 0, 1));
    wire.expect(&["client0: job 0 done 2: [\"C\"]", "client0: job 0 ended", "agent0: end job 0"]);
    wire.schedule();
    wire.expect(&["agent0: start job 1 whole", "agent0: run job 1 attempt 1 from 0 [\"d\"]"]);
}

/// The other items of the chunk have their outcomes, so the rest does not wait for further items.
#[test]
fn the_rest_of_a_chunk_waits_for_nothing() {
    let mut wire = Wire::new();
    wire.agent_as(1, 1, Vec::new());
    wire.client();
    wire.send(0, open_pool_as(9, 0, Some(&[1])));
    wire.send(0, open_job(0, 4, 2));
    wire.send(0, items(0, 0, &["a"]));
    wire.send(0, reopened());
    wire.schedule();
    wire.expect(&[
        "client0: welcome",
        "client0: runs at 1",
        "client0: opened with 1 slots",
        "agent0: start pool 0",
        "agent0: start job 0 whole",
        "agent0: run job 0 attempt 1 from 0 [\"a\"]",
    ]);
}

#[test]
fn an_agent_that_was_lost_for_a_while_resumes_the_rest() {
    let mut wire = Wire::new();
    wire.agent_as(1, 2, Vec::new());
    wire.client();
    wire.send(0, open_pool_as(9, 0, None));
    wire.send(0, open_job(0, 1, 2));
    wire.send(0, items(0, 0, &["a", "b", "c"]));
    wire.schedule();
    wire.agent_gone(0);
    wire.to_clients[0].clear();
    // Another agent gets the first of what it held.
    wire.agent_as(2, 1, Vec::new());
    wire.schedule();
    wire.expect(&[
        "client0: runs at 2",
        "client0: opened with 1 slots",
        "agent1: start pool 0",
        "agent1: start job 0 whole",
        "agent1: run job 0 attempt 2 from 0 [\"a\"]",
    ]);
    let chunks = vec![held_chunk(10, 0, 0, 1, &[(0, 1)]), held_chunk(11, 0, 1, 1, &[(1, 1)])];
    wire.agent_as(1, 2, vec![held_pool(4, 9, chunks)]);
    wire.schedule();
    // The attempts that the loss has cost stay counted.
    wire.expect(&[
        "client0: runs at 1",
        "client0: opened with 3 slots",
        "agent2: adopt held pool 4 as 0 job 0 as 0 chunk 11 attempt 2",
        "agent2: run job 0 attempt 1 from 2 [\"c\"]",
    ]);
}

#[test]
fn jobs_that_run_at_most_once() {
    // Whether the agent is back with the pool, without it, or not at all; and the expected outcome of items that it
    // does not hold.
    for (held, expected) in [(Some(true), true), (Some(false), false), (None, false)] {
        let mut wire = Wire::new();
        wire.client();
        wire.send(0, open_pool_as(9, 0, Some(&[1])));
        wire.send(0, open_job(0, 1, 0));
        wire.send(0, items(0, 0, &["a", "b"]));
        wire.send(0, end_items(0));
        wire.send(0, reopened());
        let pool = || held_pool(0, 9, vec![held_chunk(1, 0, 0, 1, &[(0, 1)])]);
        if let Some(held) = held {
            wire.agent_as(1, 2, if held { vec![pool()] } else { Vec::new() });
        } else {
            wire.agent_as(2, 2, Vec::new());
            wire.wait(RECOVERY);
        }
        wire.schedule();
        let agent: Vec<_> = wire.to_agents[0].drain(..).collect();
        let runs = agent.iter().any(|command| matches!(command, agent_command::Body::Assign(_)));
        assert_eq!(runs, expected, "{held:?}: {agent:?}");
        let failed = wire.to_clients[0].drain(..).filter_map(|event| match event {
            client_event::Body::ItemsFailed(failed) => Some((failed.first, failed.count)),
            _ => None,
        });
        assert_eq!(failed.collect::<Vec<_>>(), if expected { vec![] } else { vec![(0, 2)] }, "{held:?}");
    }
}

#[test]
fn a_pool_that_is_being_reopened_can_end() {
    let begin = |job: bool| {
        let mut wire = Wire::new();
        wire.agent_as(1, 1, vec![held_pool(2, 9, vec![held_chunk(5, 0, 0, 1, &[(0, 1)])])]);
        wire.client();
        wire.send(0, open_pool_as(9, 0, Some(&[1, 2])));
        if job {
            wire.send(0, open_job(0, 1, 2));
            wire.send(0, items(0, 0, &["a"]));
        }
        wire.expect(&["client0: welcome"]);
        wire
    };
    // The client leaves.
    let mut wire = begin(true);
    wire.client_gone(0);
    wire.expect(&["agent0: stop held pool 2 now"]);
    assert!(wire.coordinator.is_idle() && wire.coordinator.stored_bytes() == 0);
    // It is closed at once.
    let mut wire = begin(true);
    wire.send(0, close(true));
    wire.expect(&["client0: job 0 cancelled", "client0: closed", "agent0: stop held pool 2 now"]);
    assert!(wire.coordinator.is_idle() && wire.coordinator.stored_bytes() == 0);
    // Its only job is cancelled: by its client, or by an operator.
    for by_client in [true, false] {
        let mut wire = begin(true);
        if by_client {
            wire.send(0, cancel(0));
        } else {
            let job = wire.coordinator.find_job("2").expect("the job exists");
            assert!(wire.serve(|coordinator, now, out| coordinator.cancel_job(job, now, out)));
        }
        wire.expect(&["client0: job 0 cancelled"]);
        wire.send(0, close(false));
        wire.send(0, reopened());
        wire.expect(&[WAITS]);
        wire.wait(RECOVERY);
        wire.schedule();
        wire.expect(&[
            "client0: runs at 1",
            "client0: opened with 1 slots",
            "client0: no more at 2",
            "agent0: adopt held pool 2 as 0",
            "agent0: stop pool 0",
        ]);
        wire.report(0, pool_stopped(1 << 32));
        wire.expect(&["client0: closed"]);
    }
    // The client resends nothing, and closes the pool gently.
    let mut wire = begin(false);
    wire.send(0, close(false));
    wire.send(0, reopened());
    wire.wait(RECOVERY);
    wire.schedule();
    wire.report(0, pool_stopped(1 << 32));
    assert!(wire.coordinator.is_idle());
}

#[test]
fn a_connected_client_may_resend_after_the_timeout() {
    let mut wire = Wire::new();
    wire.agent_as(1, 1, vec![held_pool(2, 9, vec![held_chunk(5, 0, 0, 1, &[(0, 1)])])]);
    wire.client();
    wire.send(0, open_pool_as(9, 0, Some(&[1])));
    wire.send(0, open_job(0, 1, 2));
    wire.wait(3 * RECOVERY);
    wire.schedule();
    // It is still sending.
    wire.send(0, items(0, 0, &["a"]));
    wire.schedule();
    wire.expect(&["client0: welcome"]);
    wire.send(0, reopened());
    wire.schedule();
    wire.expect(&[
        "client0: runs at 1",
        "client0: opened with 1 slots",
        "agent0: adopt held pool 2 as 0 job 0 as 0 chunk 5 attempt 1",
    ]);
}

#[test]
fn no_window_bounds_a_resend_but_its_memory_is_counted() {
    let mut config = Config::default();
    config.window = 10;
    let mut wire = Wire::with(config);
    wire.client();
    wire.send(0, open_pool_as(9, 0, Some(&[1])));
    wire.send(0, open_job(0, 0, 2));
    assert!(wire.coordinator.lacks_chunk(wire.clients[0]));
    let long = "x".repeat(100);
    for first in 0..3 {
        wire.send(0, items(0, first, &[&long]));
    }
    let stored = wire.coordinator.stored_bytes();
    assert!(stored >= 3 * 104, "{stored}");
    assert_eq!(wire.coordinator.stored_bytes_of(wire.clients[0]), stored);
    // The driver pauses and resumes it, without effect.
    let client = wire.clients[0];
    wire.serve(|coordinator, now, out| coordinator.pause_client(client, true, now, out));
    wire.serve(|coordinator, now, out| coordinator.pause_client(client, false, now, out));
    wire.send(0, reopened());
    assert!(!wire.coordinator.lacks_chunk(wire.clients[0]));
    let refused = wire.try_send(0, items(0, 3, &["a"])).expect_err("from here on the window counts");
    assert_eq!(refused.kind(), &RefusedKind::WindowOverrun { job: 0, limit: 10 });
    let refused = wire.try_send(0, reopened()).expect_err("the client has resent everything already");
    assert_eq!(refused.kind(), &RefusedKind::NotReopening);
    wire.client();
    wire.send(1, open_pool_as(8, 0, None));
    let refused = wire.try_send(1, reopened()).expect_err("the pool was not open before");
    assert_eq!(refused.kind(), &RefusedKind::NotReopening);
}

#[test]
fn a_reopened_pool_keeps_its_limit() {
    let mut wire = Wire::new();
    wire.client();
    wire.send(0, open_pool_as(9, 2, Some(&[1, 2])));
    wire.send(0, open_job(0, 1, 2));
    wire.send(0, items(0, 0, &["a", "b", "c"]));
    wire.send(0, reopened());
    wire.to_clients[0].clear();
    let held =
        |number, item| HeldPool { processes: 2, ..held_pool(number, 9, vec![held_chunk(7, 0, item, 1, &[(item, 1)])]) };
    wire.agent_as(1, 4, vec![held(1, 0)]);
    wire.to_clients[0].clear();
    wire.agent_as(2, 4, vec![held(2, 1)]);
    // The first has all workers that it may have, so there is no place for the second.
    wire.expect(&[
        "client0: runs at 1",
        "client0: opened with 2 slots",
        "client0: no more at 2",
        "agent0: adopt held pool 1 as 0 with 2 job 0 as 0 chunk 7 attempt 1",
        "agent1: stop held pool 2 now",
    ]);
}

#[test]
fn welcomes_name_the_coordinator_and_hellos_count_wasted_outcomes() {
    let mut config = Config::default();
    config.id = Some([3; 16]);
    config.recovery = Duration::from_secs(1);
    let mut wire = Wire::with(config);
    wire.client();
    wire.send(0, open_pool_as(9, 0, None));
    match wire.to_clients[0].pop_front() {
        Some(client_event::Body::Welcome(welcome)) => assert_eq!(&welcome.coordinator[..], [3; 16]),
        other => panic!("{other:?}"),
    }
    wire.silent_agent();
    let hello =
        AgentHello { host: "h".to_owned(), slots: 1, id: vec![1; 16].into(), wasted: 7, ..AgentHello::default() };
    wire.report(0, Report::Hello(Box::new(hello)));
    wire.report(0, Report::WastedOutcomes(WastedOutcomes { items: 2 }));
    assert_eq!(wire.coordinator.late_messages(), 9);
    let started: Vec<_> = wire.to_agents[0].drain(..).collect();
    match &started[..] {
        [agent_command::Body::StartPool(start)] => assert_eq!(&start.id[..], [9; 16]),
        other => panic!("{other:?}"),
    }
    // A pool held by another agent is stopped after the timeout.
    wire.agent_as(2, 1, vec![held_pool(1, 77, Vec::new())]);
    wire.to_agents[1].clear();
    wire.wait(999_000_000);
    wire.schedule();
    assert!(wire.to_agents[1].is_empty());
    wire.wait(1_000_000);
    wire.schedule();
    assert_eq!(wire.to_agents[1].len(), 1);
}
