//! Where pools run: labels, limits, unfit agents, and agents that join and leave.

use farpool_coordinator::RefusedKind;
use farpool_proto::v1::{
    AgentOutput, Draining, FailureKind, HealthReport, OpenPool, OutputStream, WorkerSettings, agent_command,
};

use crate::fakes::*;

/// The ids of the first pools of a coordinator.
const POOL: u64 = 1 << 32;

/// The chunks in the agent's inbox; reads the whole inbox.
fn assigned(wire: &mut Wire, agent: usize) -> Vec<Held> {
    wire.schedule();
    let commands = wire.to_agents[agent].drain(..);
    let chunks = commands.filter_map(|command| match command {
        agent_command::Body::Assign(assign) => Some(held(&assign)),
        _ => None,
    });
    chunks.flatten().collect()
}

#[test]
fn a_pool_waits_with_a_reason() {
    let mut wire = Wire::new();
    wire.client();
    wire.send(0, open_pool_for(0, &["gpu=a100", "zone=b"]));
    wire.expect(&["client0: welcome", "client0: waiting: no agent is connected"]);
    wire.agent_with(2, &["gpu=a100", "zone=a"]);
    wire.expect(&["client0: waiting: the only agent does not have gpu=a100 and zone=b"]);
    wire.agent_with(2, &["zone=b"]);
    wire.expect(&["client0: waiting: none of the 2 agents has gpu=a100 and zone=b"]);
    wire.agent_with(4, &["zone=b", "x=y", "gpu=a100"]);
    wire.expect(&["client0: opened with 4 slots", "agent2: start pool 0"]);
    // A second unfit agent changes nothing for it; one that fits does.
    wire.agent_with(8, &[]);
    wire.expect(&[]);
    wire.agent_with(1, &["gpu=a100", "zone=b"]);
    wire.expect(&["client0: opened with 5 slots", "agent4: start pool 0"]);
    wire.agent_gone(2);
    wire.expect(&["client0: opened with 1 slots"]);
    wire.report(4, Report::Draining(Draining {}));
    wire.expect(&["client0: waiting: none of the 3 agents has gpu=a100 and zone=b", "agent4: drain"]);
    for agent in [0, 1, 3] {
        wire.agent_gone(agent);
    }
    let reasons = ["none of the 2 agents has gpu=a100 and zone=b", "the only agent does not have gpu=a100 and zone=b"];
    let [two, one] = reasons.map(|reason| format!("client0: waiting: {reason}"));
    wire.expect(&[&two, &one, "client0: waiting: all agents are leaving"]);
    wire.agent_gone(4);
    wire.expect(&["client0: waiting: no agent is connected"]);
}

/// The client is told when workers die everywhere.
#[test]
fn a_pool_reports_that_all_its_agents_are_unhealthy() {
    let mut wire = Wire::new();
    wire.agent(1, 2);
    wire.agent(2, 4);
    wire.client();
    wire.send(0, open_pool(0));
    wire.expect(&["client0: welcome", "client0: opened with 3 slots", "agent0: start pool 0", "agent1: start pool 0"]);
    let unhealthy = |wire: &mut Wire, agent: usize, reason: &str| {
        wire.report(agent, Report::HealthReport(HealthReport { reason: reason.to_owned(), pool: 0 }));
    };
    unhealthy(&mut wire, 0, "10 workers in a row died");
    wire.expect(&[]);
    unhealthy(&mut wire, 1, "3 workers in a row died");
    let all = "all 2 agents that the pool runs on are unhealthy: `farpool agents` says why";
    wire.expect(&[&format!("client0: waiting: {all}")]);
    // Another reason for the same state is not sent.
    unhealthy(&mut wire, 1, "4 workers in a row died");
    wire.expect(&[]);
    unhealthy(&mut wire, 0, "");
    wire.expect(&["client0: opened with 3 slots"]);
}

/// If only one pool's workers die at an agent, other pools get all of the agent.
#[test]
fn a_pool_gets_nothing_where_it_is_unhealthy() {
    let mut wire = Wire::new();
    wire.agent(1, 4);
    for client in 0..2 {
        wire.client();
        wire.send(client, open_pool(0));
        wire.send(client, open_job(0, 1, 0));
    }
    let bad = POOL;
    wire.send(0, items(0, 0, &["a"; 9]));
    let chunks = assigned(&mut wire, 0);
    assert_eq!(chunks.len(), 4, "as many as the agent accepts");
    wire.to_clients[0].clear();
    wire.report(0, Report::HealthReport(HealthReport { reason: "10 workers in a row died".to_owned(), pool: bad }));
    wire.expect(&[
        "client0: waiting: its workers do not start: host0: 10 workers in a row died",
        "client1: welcome",
        "client1: opened with 1 slots",
    ]);
    for chunk in &chunks {
        wire.report(0, give_back(chunk, 0, 1));
    }
    assert_eq!(assigned(&mut wire, 0).len(), 0);
    wire.send(1, items(0, 0, &["b"; 9]));
    assert_eq!(assigned(&mut wire, 0).len(), 4, "the other pool gets all of the agent");
    wire.report(0, pool_started(bad));
    wire.expect(&["client0: opened with 1 slots"]);
    assert_eq!(wire.coordinator.late_messages(), 0);
}

#[test]
fn nothing_is_assigned_before_the_pool_has_started() {
    let mut wire = Wire::new();
    wire.starts_at_once = false;
    wire.agent(1, 2);
    wire.client();
    wire.send(0, open_pool(0));
    // The slots count already.
    wire.expect(&["client0: welcome", "client0: opened with 1 slots", "agent0: start pool 0"]);
    wire.send(0, open_job(0, 1, 0));
    wire.send(0, items(0, 0, &["a"]));
    wire.schedule();
    wire.expect(&[]);
    wire.report(0, pool_started(POOL));
    wire.schedule();
    wire.expect(&["agent0: start job 0 whole", r#"agent0: run job 0 attempt 1 from 0 ["a"]"#]);
    // Reports that are repeated, or about unknown places, have no effect.
    wire.report(0, pool_started(POOL));
    wire.report(0, pool_started(7));
    assert_eq!(wire.coordinator.late_messages(), 2);
}

#[test]
fn a_limit_is_kept_over_all_agents() {
    let mut wire = Wire::new();
    wire.agent(2, 3);
    wire.agent(4, 6);
    wire.client();
    wire.send(0, open_pool(3));
    wire.expect(&[
        "client0: welcome",
        "client0: opened with 3 slots",
        "agent0: start pool 0 with 1",
        "agent1: start pool 0 with 2",
    ]);
    wire.agent(1, 1);
    wire.expect(&[]);
    wire.agent_gone(1);
    wire.expect(&["agent0: resize pool 0 to 2", "agent2: start pool 0 with 1"]);
    wire.agent_gone(2);
    wire.expect(&["client0: opened with 2 slots"]);
    wire.agent(9, 9);
    wire.expect(&["client0: opened with 3 slots", "agent3: start pool 0 with 1"]);
}

#[test]
fn an_agent_that_cannot_run_a_pool_leaves_it_to_others() {
    for kind in [FailureKind::ProgramRejected, FailureKind::Unavailable] {
        let mut wire = Wire::new();
        wire.agent(1, 1);
        wire.agent(1, 1);
        wire.client();
        wire.send(0, open_pool(0));
        wire.send(0, open_job(0, 1, 0));
        wire.send(0, items(0, 0, &["a", "b"]));
        let chunks = assigned(&mut wire, 0);
        assert_eq!(chunks.len(), 1);
        assigned(&mut wire, 1);
        wire.to_clients[0].clear();
        wire.report(0, pool_fault(POOL, kind));
        wire.report(0, pool_stopped(POOL));
        wire.expect(&["client0: opened with 1 slots"]);
        // What the agent held counts no attempt, and its report of it is dropped.
        wire.report(0, done(&chunks[0], 0, 1));
        assert_eq!(wire.coordinator.late_messages(), 1);
        wire.agent(1, 1);
        wire.schedule();
        wire.expect(&[
            "client0: opened with 2 slots",
            "agent2: start pool 0",
            "agent2: start job 0 whole",
            &format!("agent2: run job 0 attempt 1 from {} {:?}", chunks[0].first, chunks[0].items),
        ]);
        // The pool has run, so it fails only when no agent remains that can run it.
        wire.report(1, pool_fault(POOL, kind));
        wire.expect(&["client0: opened with 1 slots"]);
        wire.report(2, pool_fault(POOL, kind));
        let received = format!("client0: pool failed: {kind:?} on there, attempts 0");
        wire.expect(&[
            &received,
            "agent0: end job 0 kill",
            "agent1: end job 0 kill",
            "agent1: stop pool 0 now",
            "agent2: end job 0 kill",
            "agent2: stop pool 0 now",
        ]);
        wire.report(1, pool_stopped(POOL));
        wire.report(2, pool_stopped(POOL));
        wire.send(0, close(true));
        wire.expect(&["client0: closed"]);
        assert!(wire.coordinator.is_idle());
    }
}

#[test]
fn a_pool_whose_agents_have_gone_waits_for_one_that_can_run_it() {
    let mut wire = Wire::new();
    wire.agent_with(1, &["gpu=a100"]);
    wire.agent_with(1, &["gpu=a100"]);
    wire.client();
    wire.send(0, open_pool_for(0, &["gpu=a100"]));
    wire.report(0, pool_fault(POOL, FailureKind::ProgramRejected));
    wire.report(0, pool_stopped(POOL));
    wire.to_clients[0].clear();
    wire.to_agents.iter_mut().for_each(|inbox| inbox.clear());
    wire.agent_gone(1);
    let reason = "the only agent with gpu=a100 cannot run this program: there: it has no libc";
    wire.expect(&[&format!("client0: waiting: {reason}")]);
    wire.agent_with(1, &["gpu=a100"]);
    wire.expect(&["client0: opened with 1 slots", "agent2: start pool 0"]);

    // If it never ran anywhere, the program is to blame.
    let mut wire = Wire::new();
    wire.starts_at_once = false;
    wire.agent(1, 1);
    wire.agent(1, 1);
    wire.client();
    wire.send(0, open_pool(0));
    wire.report(0, pool_fault(POOL, FailureKind::ProgramRejected));
    wire.to_clients[0].clear();
    wire.to_agents.iter_mut().for_each(|inbox| inbox.clear());
    wire.agent_gone(1);
    wire.expect(&["client0: pool failed: ProgramRejected on there, attempts 0", "agent0: stop pool 0 now"]);
}

#[test]
fn a_draining_agent_gets_nothing_more() {
    let mut wire = Wire::new();
    wire.agent(1, 3);
    wire.client();
    wire.send(0, open_pool(1));
    wire.send(0, open_job(0, 1, 0));
    wire.send(0, items(0, 0, &["a", "b", "c", "d"]));
    let chunks = assigned(&mut wire, 0);
    wire.to_clients[0].clear();
    let agent = wire.agents[0];
    for _ in 0..2 {
        assert!(wire.serve(|coordinator, now, out| coordinator.drain_agent(agent, now, out)));
    }
    wire.expect(&["client0: waiting: all agents are leaving", "agent0: drain"]);
    wire.agent(1, 3);
    wire.report(0, Report::Draining(Draining {}));
    wire.schedule();
    // The one worker of the pool is still at the first agent.
    wire.expect(&["client0: waiting: the only agent does not have a free slot for it"]);
    wire.report(0, give_back(&chunks[1], 0, 1));
    wire.report(0, give_back(&chunks[2], 0, 1));
    wire.schedule();
    wire.expect(&[]);
    wire.report(0, done(&chunks[0], 0, 1));
    wire.schedule();
    wire.expect(&[
        r#"client0: job 0 done 0: ["A"]"#,
        "client0: opened with 1 slots",
        "agent1: start pool 0 with 1",
        "agent1: start job 0 whole",
        r#"agent1: run job 0 attempt 1 from 1 ["b"], job 0 attempt 1 from 2 ["c"], job 0 attempt 1 from 3 ["d"]"#,
    ]);
    wire.report(0, pool_stopped(POOL));
    wire.agent_gone(0);
    wire.expect(&[]);
    assert!(!wire.serve(|coordinator, now, out| coordinator.drain_agent(agent, now, out)));
}

#[test]
fn a_job_waits_for_its_labels() {
    let mut wire = Wire::new();
    wire.agent_with(2, &[]);
    wire.client();
    wire.send(0, open_pool(0));
    wire.send(0, open_job_for(0, &["gpu=a100"]));
    wire.send(0, open_job_for(1, &[]));
    wire.send(0, items(0, 0, &["a"]));
    wire.send(0, items(1, 0, &["b"]));
    wire.schedule();
    wire.expect(&[
        "client0: welcome",
        "client0: opened with 2 slots",
        "client0: waiting: the only agent that the pool runs on does not have gpu=a100, which the job requires",
        "agent0: start pool 0",
        "agent0: start job 1 whole",
        r#"agent0: run job 1 attempt 1 from 0 ["b"]"#,
    ]);
    wire.agent_with(1, &["gpu=a100"]);
    wire.schedule();
    wire.expect(&[
        "client0: opened with 3 slots",
        "agent1: start pool 0",
        "agent1: start job 0 whole",
        r#"agent1: run job 0 attempt 1 from 0 ["a"]"#,
    ]);
}

#[test]
fn a_worker_moves_to_where_a_job_can_run() {
    let mut wire = Wire::new();
    wire.agent_with(2, &[]);
    wire.client();
    wire.send(0, open_pool(1));
    wire.agent_with(2, &["gpu=a100"]);
    wire.send(0, open_job_for(0, &[]));
    wire.send(0, items(0, 0, &["a"]));
    let chunks = assigned(&mut wire, 0);
    wire.to_clients[0].clear();
    wire.send(0, open_job_for(1, &["gpu=a100"]));
    wire.send(0, items(1, 0, &["b"]));
    wire.schedule();
    let waits = "waiting: the only agent that the pool runs on does not have gpu=a100, which the job requires";
    wire.expect(&[&format!("client0: {waits}")]);
    wire.send(0, end_items(0));
    // This ends the job that needs the place.
    wire.report(0, done(&chunks[0], 0, 1));
    wire.schedule();
    wire.expect(&[
        r#"client0: job 0 done 0: ["A"]"#,
        "client0: job 0 ended",
        "agent0: end job 0",
        "agent0: stop pool 0",
    ]);
    wire.report(0, pool_stopped(POOL));
    wire.schedule();
    wire.expect(&[
        "client0: opened with 1 slots",
        "agent1: start pool 0 with 1",
        "agent1: start job 1 whole",
        r#"agent1: run job 1 attempt 1 from 0 ["b"]"#,
    ]);
}

#[test]
fn output_goes_to_the_client() {
    let mut wire = Wire::new();
    wire.agent(1, 1);
    wire.agent(1, 1);
    wire.client();
    wire.send(0, open_pool(1));
    wire.expect(&["client0: welcome", "client0: opened with 1 slots", "agent0: start pool 0 with 1"]);
    let output = |pool| {
        let stream = OutputStream::Stderr.into();
        Report::Output(AgentOutput { pool, pid: 12, stream, data: "hello\n".into() })
    };
    wire.report(0, output(POOL));
    wire.expect(&["client0: output of 12 on host0: hello\n"]);
    // Output of an unknown pool, from an agent where the pool is not, and after the client has left.
    wire.report(0, output(7));
    wire.report(1, output(POOL));
    wire.client_gone(0);
    wire.report(0, output(POOL));
    wire.expect(&["agent0: stop pool 0 now"]);
    assert_eq!(wire.coordinator.late_messages(), 3);
}

#[test]
fn the_newer_of_two_sessions_of_an_agent_counts() {
    let mut wire = Wire::new();
    wire.agent_as(1, 1, Vec::new());
    wire.client();
    wire.send(0, open_pool_as(9, 0, None));
    wire.send(0, open_job(0, 1, 2));
    wire.send(0, items(0, 0, &["a"]));
    wire.schedule();
    let job = ["client0: welcome", "client0: runs at 1", "client0: opened with 1 slots"];
    let first = [
        &job[..],
        &["agent0: start pool 0", "agent0: start job 0 whole", "agent0: run job 0 attempt 1 from 0 [\"a\"]"],
    ];
    wire.expect(&first.concat());
    wire.agent_as(1, 2, Vec::new());
    wire.schedule();
    wire.expect(&[
        "client0: no more at 1",
        "client0: runs at 1",
        "client0: opened with 2 slots",
        "agent1: start pool 0",
        "agent1: start job 0 whole",
        "agent1: run job 0 attempt 2 from 0 [\"a\"]",
    ]);
    let refused = wire.try_report(0, Report::Draining(Draining {})).expect_err("the agent's session is over");
    assert_eq!(refused.kind(), &RefusedKind::NoSession);
    wire.agent_gone(0);
    assert_eq!(wire.coordinator.find_agent("host1").ok().map(|(agent, _)| agent), Some(wire.agents[1]));
    wire.expect(&[]);
}

#[test]
fn agents_get_the_weight() {
    let mut wire = Wire::new();
    wire.agent(1, 1);
    for (weight, expected) in [(0, 1), (1, 1), (7, 7)] {
        let client = wire.client();
        let settings = Some(WorkerSettings::default());
        wire.send(client, Request::OpenPool(Box::new(OpenPool { settings, weight, ..OpenPool::default() })));
        let Some(agent_command::Body::StartPool(start)) = wire.to_agents[0].pop_back() else { panic!() };
        assert_eq!((start.weight, start.processes), (expected, 0));
    }
}
