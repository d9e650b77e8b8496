//! A coordinator that knows nothing, clients that open their pools again, and agents that hold what they held.

use std::time::Duration;

use farpool_coordinator::{Config, RefusedKind};
use farpool_proto::v1::{AgentHello, FailureKind, HeldPool, PoolReopened, WastedOutcomes, agent_command, client_event};

use crate::fakes::*;

/// As long as it waits for those who are not back, and a little longer.
const RECOVERY: u64 = 5_000_000_000;

fn reopened() -> Ask {
    Ask::PoolReopened(PoolReopened {})
}

/// What the coordinator says to a client that opens its pool again while nobody is missing, and then runs at an agent.
const WAITS: &str = "client0: waiting: the pool is being reopened: 1 agent that ran it is not back yet";

#[test]
fn a_pool_goes_on_where_it_is_held() {
    let mut wire = Wire::new();
    wire.client();
    wire.ask(0, open_pool_as(9, 0, Some(&[1])));
    wire.ask(0, open_job(3, 1, 2));
    wire.ask(0, items(3, 4, &["e", "f", "g", "h"]));
    wire.ask(0, end_items(3));
    wire.schedule();
    wire.expect(&["client0: welcome"]);
    wire.ask(0, reopened());
    wire.schedule();
    wire.expect(&[WAITS]);
    // Item 5 runs there for the second time, and of 7 there is a report that is not settled.
    let chunks = vec![held_chunk(70, 3, 5, 2, &[(5, 1)]), held_chunk(71, 3, 7, 1, &[(7, 1)])];
    wire.agent_as(1, 2, vec![held_pool(5, 9, chunks)]);
    wire.schedule();
    wire.expect(&[
        "client0: runs at 1",
        "client0: opened with 2 slots",
        "agent0: adopt held pool 5 as 0 job 3 as 0 chunk 70 attempt 2 chunk 71 attempt 1",
    ]);
    // It reports under the new names, and gets what is left.
    let chunk = |at: u64, first, attempt, item: &str| Held {
        chunk: (1 << 32) | at,
        job: 1 << 32,
        first,
        attempt,
        items: vec![item.to_owned()],
    };
    let seven = chunk(1, 7, 1, "h");
    wire.say(0, done(&seven, 0, 1));
    wire.schedule();
    wire.expect(&["client0: job 3 done 7: [\"H\"]", "agent0: run job 0 attempt 1 from 4 [\"e\"]"]);
    let five = chunk(0, 5, 2, "f");
    wire.say(0, fault(&five, 5, FailureKind::WorkerDied));
    wire.schedule();
    // The third try is the last that `retries` allows.
    wire.expect(&["agent0: run job 0 attempt 3 from 5 [\"f\"]"]);
}

/// An agent hears nothing of a pool before it is told to adopt it.
#[test]
fn a_place_is_adopted_with_the_workers_that_it_is_to_have() {
    let mut wire = Wire::new();
    wire.client();
    wire.ask(0, open_pool_as(9, 4, Some(&[1, 2])));
    wire.ask(0, reopened());
    wire.agent_as(2, 2, vec![]);
    // It had one worker, and there is room for one more.
    wire.agent_as(1, 2, vec![HeldPool { processes: 1, ..held_pool(5, 9, vec![]) }]);
    wire.schedule();
    wire.expect(&[
        "client0: welcome",
        "client0: waiting: the pool is being reopened: 2 agents that ran it are not back yet",
        WAITS,
        "client0: runs at 1",
        "client0: runs at 2",
        "client0: opened with 4 slots",
        "agent0: start pool 0 with 2",
        "agent1: adopt held pool 5 as 0 with 2",
    ]);
}

#[test]
fn attempts_that_failed_count_when_their_report_comes_again() {
    let mut wire = Wire::new();
    wire.client();
    wire.ask(0, open_pool_as(9, 0, Some(&[1])));
    wire.ask(0, open_job_retrying(3, 1, 2));
    wire.ask(0, open_job_retrying(4, 1, 2));
    // Before the core knows the job.
    wire.ask(0, stop_retries(4));
    wire.ask(0, items(3, 0, &["a", "b"]));
    wire.ask(0, items(4, 0, &["c"]));
    wire.ask(0, reopened());
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
        wire.say(0, failed(&held, 0, 1));
    }
    wire.schedule();
    wire.expect(&[
        "client0: job 3 done 0: [\"A\"], failed, attempts 3",
        "client0: job 4 done 0: [\"C\"], failed",
        "agent0: run job 0 attempt 3 from 1 [\"b\"]",
    ]);
}

#[test]
fn what_is_not_wanted_is_not_adopted() {
    let mut wire = Wire::new();
    wire.client();
    wire.ask(0, open_pool_as(9, 0, Some(&[1, 2])));
    wire.ask(0, open_job(0, 1, 2));
    // The client has the outcomes of 0 and 3.
    wire.ask(0, items(0, 1, &["b", "c"]));
    wire.ask(0, items(0, 4, &["e"]));
    wire.ask(0, end_items(0));
    wire.ask(0, reopened());
    wire.expect(&[
        "client0: welcome",
        "client0: waiting: the pool is being reopened: 2 agents that ran it are not back yet",
    ]);
    let chunks = vec![
        // Its report is settled but that was not heard.
        held_chunk(1, 0, 0, 1, &[(0, 1)]),
        // Both report what the client has in part: only wholes are taken.
        held_chunk(2, 0, 2, 1, &[(2, 2)]),
        held_chunk(3, 0, 1, 1, &[(1, 1)]),
        // Of a job that is not wanted any more.
        held_chunk(4, 7, 0, 1, &[(0, 1)]),
    ];
    wire.agent_as(1, 1, vec![held_pool(0, 9, chunks), held_pool(1, 8, vec![])]);
    wire.expect(&[WAITS]);
    // The same again, and what others hold.
    let chunks = vec![held_chunk(1, 0, 1, 1, &[(1, 1)]), held_chunk(2, 0, 4, 1, &[(4, 1)])];
    wire.agent_as(2, 1, vec![held_pool(0, 9, chunks)]);
    wire.expect(&[
        "client0: runs at 1",
        "client0: runs at 2",
        "client0: opened with 2 slots",
        "agent0: adopt held pool 0 as 0 job 0 as 0 chunk 3 attempt 1",
        "agent1: adopt held pool 0 as 0 job 0 as 0 chunk 2 attempt 1",
    ]);
    // Nobody claims the other pool.
    wire.wait(RECOVERY);
    wire.schedule();
    wire.expect(&["agent0: stop held pool 1 now"]);
    wire.say(0, pool_stopped(HELD | 1));
    assert_eq!(wire.coordinator.next_deadline(), None);
}

#[test]
fn who_does_not_come_back_is_not_waited_for() {
    let mut wire = Wire::new();
    wire.agent_as(2, 1, Vec::new());
    wire.client();
    wire.ask(0, open_pool_as(9, 0, Some(&[1, 2])));
    wire.ask(0, open_job(0, 1, 2));
    wire.ask(0, open_job(1, 1, 0));
    wire.ask(0, items(0, 0, &["a"]));
    wire.ask(0, items(1, 0, &["once"]));
    wire.ask(0, reopened());
    wire.schedule();
    wire.expect(&["client0: welcome", WAITS]);
    assert_eq!(wire.coordinator.next_deadline(), wire.coordinator.next_look());
    wire.wait(RECOVERY - 100_000);
    wire.schedule();
    wire.expect(&[]);
    wire.wait(100_000);
    wire.schedule();
    // What may have run at the one that is not back must not run twice.
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
    // It comes in the end: what it holds runs elsewhere by now.
    wire.agent_as(1, 1, vec![held_pool(3, 9, vec![held_chunk(5, 0, 0, 1, &[(0, 1)])])]);
    wire.expect(&["client0: runs at 1", "client0: opened with 2 slots", "agent1: adopt held pool 3 as 0"]);
}

/// Nobody can have run what came for the first time.
#[test]
fn what_is_new_does_not_fail_with_what_may_have_run() {
    let mut wire = Wire::new();
    wire.agent_as(2, 1, Vec::new());
    wire.client();
    wire.ask(0, open_pool_as(9, 0, Some(&[1, 2])));
    wire.ask(0, open_job(0, 1, 0));
    wire.ask(0, items(0, 0, &["a", "b"]));
    wire.ask(0, reopened());
    wire.ask(0, items(0, 2, &["c"]));
    wire.ask(0, end_items(0));
    wire.ask(0, open_job(1, 1, 0));
    wire.ask(0, items(1, 0, &["d"]));
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
    wire.say(0, done(&chunk, 0, 1));
    wire.expect(&["client0: job 0 done 2: [\"C\"]", "client0: job 0 ended", "agent0: end job 0"]);
    wire.schedule();
    wire.expect(&["agent0: start job 1 whole", "agent0: run job 1 attempt 1 from 0 [\"d\"]"]);
}

/// The others of its chunk have had their outcomes: it does not wait until somebody gives further items.
#[test]
fn what_is_left_of_a_chunk_waits_for_nothing() {
    let mut wire = Wire::new();
    wire.agent_as(1, 1, Vec::new());
    wire.client();
    wire.ask(0, open_pool_as(9, 0, Some(&[1])));
    wire.ask(0, open_job(0, 4, 2));
    wire.ask(0, items(0, 0, &["a"]));
    wire.ask(0, reopened());
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
fn an_agent_that_was_given_up_for_a_while_goes_on_with_what_is_left() {
    let mut wire = Wire::new();
    wire.agent_as(1, 2, Vec::new());
    wire.client();
    wire.ask(0, open_pool_as(9, 0, None));
    wire.ask(0, open_job(0, 1, 2));
    wire.ask(0, items(0, 0, &["a", "b", "c"]));
    wire.schedule();
    wire.agent_gone(0);
    wire.to_clients[0].clear();
    // Somebody else gets the first of what it held.
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
    // What the loss has cost in tries stays.
    wire.expect(&[
        "client0: runs at 1",
        "client0: opened with 3 slots",
        "agent2: adopt held pool 4 as 0 job 0 as 0 chunk 11 attempt 2",
        "agent2: run job 0 attempt 1 from 2 [\"c\"]",
    ]);
}

#[test]
fn jobs_that_run_at_most_once() {
    // Whether the agent is back with the pool, without it, or not at all; and what becomes of the items that it does not hold.
    for (held, expected) in [(Some(true), true), (Some(false), false), (None, false)] {
        let mut wire = Wire::new();
        wire.client();
        wire.ask(0, open_pool_as(9, 0, Some(&[1])));
        wire.ask(0, open_job(0, 1, 0));
        wire.ask(0, items(0, 0, &["a", "b"]));
        wire.ask(0, end_items(0));
        wire.ask(0, reopened());
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
        let failed = wire.to_clients[0].drain(..).filter_map(|told| match told {
            client_event::Body::ItemsFailed(failed) => Some((failed.first, failed.count)),
            _ => None,
        });
        assert_eq!(failed.collect::<Vec<_>>(), if expected { vec![] } else { vec![(0, 2)] }, "{held:?}");
    }
}

#[test]
fn a_pool_that_is_being_opened_again_can_end() {
    let begin = |job: bool| {
        let mut wire = Wire::new();
        wire.agent_as(1, 1, vec![held_pool(2, 9, vec![held_chunk(5, 0, 0, 1, &[(0, 1)])])]);
        wire.client();
        wire.ask(0, open_pool_as(9, 0, Some(&[1, 2])));
        if job {
            wire.ask(0, open_job(0, 1, 2));
            wire.ask(0, items(0, 0, &["a"]));
        }
        wire.expect(&["client0: welcome"]);
        wire
    };
    // The client goes.
    let mut wire = begin(true);
    wire.client_gone(0);
    wire.expect(&["agent0: stop held pool 2 now"]);
    assert!(wire.coordinator.is_idle() && wire.coordinator.stored_bytes() == 0);
    // It is closed at once.
    let mut wire = begin(true);
    wire.ask(0, close(true));
    wire.expect(&["client0: job 0 cancelled", "client0: closed", "agent0: stop held pool 2 now"]);
    assert!(wire.coordinator.is_idle() && wire.coordinator.stored_bytes() == 0);
    // Its only job is cancelled: by its client, or by an operator.
    for by_client in [true, false] {
        let mut wire = begin(true);
        if by_client {
            wire.ask(0, cancel(0));
        } else {
            let job = wire.coordinator.find_job("2").expect("it is there");
            assert!(wire.serve(|coordinator, now, out| coordinator.cancel_job(job, now, out)));
        }
        wire.expect(&["client0: job 0 cancelled"]);
        wire.ask(0, close(false));
        wire.ask(0, reopened());
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
        wire.say(0, pool_stopped(1 << 32));
        wire.expect(&["client0: closed"]);
    }
    // Nothing of it was left, and it is closed gently.
    let mut wire = begin(false);
    wire.ask(0, close(false));
    wire.ask(0, reopened());
    wire.wait(RECOVERY);
    wire.schedule();
    wire.say(0, pool_stopped(1 << 32));
    assert!(wire.coordinator.is_idle());
}

#[test]
fn a_pool_that_does_not_come_again_in_time_is_still_waited_for_while_its_client_is_there() {
    let mut wire = Wire::new();
    wire.agent_as(1, 1, vec![held_pool(2, 9, vec![held_chunk(5, 0, 0, 1, &[(0, 1)])])]);
    wire.client();
    wire.ask(0, open_pool_as(9, 0, Some(&[1])));
    wire.ask(0, open_job(0, 1, 2));
    wire.wait(3 * RECOVERY);
    wire.schedule();
    // It is still sending.
    wire.ask(0, items(0, 0, &["a"]));
    wire.schedule();
    wire.expect(&["client0: welcome"]);
    wire.ask(0, reopened());
    wire.schedule();
    wire.expect(&[
        "client0: runs at 1",
        "client0: opened with 1 slots",
        "agent0: adopt held pool 2 as 0 job 0 as 0 chunk 5 attempt 1",
    ]);
}

#[test]
fn no_window_bounds_what_comes_again_and_the_memory_sees_it() {
    let mut config = Config::default();
    config.window = 10;
    let mut wire = Wire::with(config);
    wire.client();
    wire.ask(0, open_pool_as(9, 0, Some(&[1])));
    wire.ask(0, open_job(0, 0, 2));
    assert!(wire.coordinator.lacks_chunk(wire.clients[0]));
    let long = "x".repeat(100);
    for first in 0..3 {
        wire.ask(0, items(0, first, &[&long]));
    }
    let stored = wire.coordinator.stored_bytes();
    assert!(stored >= 3 * 104, "{stored}");
    assert_eq!(wire.coordinator.stored_bytes_of(wire.clients[0]), stored);
    // It is paused and resumed by who drives, without effect.
    let client = wire.clients[0];
    wire.serve(|coordinator, now, out| coordinator.pause_client(client, true, now, out));
    wire.serve(|coordinator, now, out| coordinator.pause_client(client, false, now, out));
    wire.ask(0, reopened());
    assert!(!wire.coordinator.lacks_chunk(wire.clients[0]));
    let refused = wire.try_ask(0, items(0, 3, &["a"])).expect_err("from here on the window counts");
    assert_eq!(refused.kind(), &RefusedKind::WindowOverrun { job: 0, limit: 10 });
    let refused = wire.try_ask(0, reopened()).expect_err("that was said");
    assert_eq!(refused.kind(), &RefusedKind::NotReopening);
    wire.client();
    wire.ask(1, open_pool_as(8, 0, None));
    let refused = wire.try_ask(1, reopened()).expect_err("it was not open before");
    assert_eq!(refused.kind(), &RefusedKind::NotReopening);
}

#[test]
fn a_pool_with_a_limit_keeps_to_it() {
    let mut wire = Wire::new();
    wire.client();
    wire.ask(0, open_pool_as(9, 2, Some(&[1, 2])));
    wire.ask(0, open_job(0, 1, 2));
    wire.ask(0, items(0, 0, &["a", "b", "c"]));
    wire.ask(0, reopened());
    wire.to_clients[0].clear();
    let held =
        |number, item| HeldPool { processes: 2, ..held_pool(number, 9, vec![held_chunk(7, 0, item, 1, &[(item, 1)])]) };
    wire.agent_as(1, 4, vec![held(1, 0)]);
    wire.to_clients[0].clear();
    wire.agent_as(2, 4, vec![held(2, 1)]);
    // The first has all that it may have, so there is no place for the second.
    wire.expect(&[
        "client0: runs at 1",
        "client0: opened with 2 slots",
        "client0: no more at 2",
        "agent0: adopt held pool 1 as 0 with 2 job 0 as 0 chunk 7 attempt 1",
        "agent1: stop held pool 2 now",
    ]);
}

#[test]
fn clients_learn_who_coordinates_and_hellos_count_what_was_in_vain() {
    let mut config = Config::default();
    config.id = Some([3; 16]);
    config.recovery = Duration::from_secs(1);
    let mut wire = Wire::with(config);
    wire.client();
    wire.ask(0, open_pool_as(9, 0, None));
    match wire.to_clients[0].pop_front() {
        Some(client_event::Body::Welcome(welcome)) => assert_eq!(&welcome.coordinator[..], [3; 16]),
        other => panic!("{other:?}"),
    }
    wire.silent_agent();
    let hello =
        AgentHello { host: "h".to_owned(), slots: 1, id: vec![1; 16].into(), wasted: 7, ..AgentHello::default() };
    wire.say(0, Say::Hello(Box::new(hello)));
    wire.say(0, Say::WastedOutcomes(WastedOutcomes { items: 2 }));
    assert_eq!(wire.coordinator.late_messages(), 9);
    let started: Vec<_> = wire.to_agents[0].drain(..).collect();
    match &started[..] {
        [agent_command::Body::StartPool(start)] => assert_eq!(&start.id[..], [9; 16]),
        other => panic!("{other:?}"),
    }
    // A hold of another agent is stopped when that time is over.
    wire.agent_as(2, 1, vec![held_pool(1, 77, Vec::new())]);
    wire.to_agents[1].clear();
    wire.wait(999_000_000);
    wire.schedule();
    assert!(wire.to_agents[1].is_empty());
    wire.wait(1_000_000);
    wire.schedule();
    assert_eq!(wire.to_agents[1].len(), 1);
}
