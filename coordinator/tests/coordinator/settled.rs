//! Which reports agents are told that they may forget.

use farpool_proto::v1::{FailureKind, agent_command};

use crate::fakes::*;

/// Two agents that run a pool with items `a`, `b`, ... in chunks of one, and the chunks that each got.
fn two_agents(count: usize, retries: u32) -> (Wire, Vec<Vec<Held>>) {
    let mut wire = Wire::new();
    wire.agent_as(1, 2, Vec::new());
    wire.agent_as(2, 2, Vec::new());
    wire.client();
    wire.send(0, open_pool_as(9, 0, None));
    wire.send(0, open_job(0, 1, retries));
    let letters: Vec<String> = (0..count).map(|at| char::from(b'a' + at as u8).to_string()).collect();
    wire.send(0, items(0, 0, &letters));
    wire.schedule();
    wire.to_clients[0].clear();
    let chunks = (0..2).map(|agent| chunks(&mut wire, agent)).collect();
    (wire, chunks)
}

/// The chunks that an agent got; reads the whole inbox.
fn chunks(wire: &mut Wire, agent: usize) -> Vec<Held> {
    let assigned = wire.to_agents[agent].drain(..).filter_map(|command| match command {
        agent_command::Body::Assign(assign) => Some(held(&assign)),
        _ => None,
    });
    assigned.flatten().collect()
}

impl Wire {
    /// The driver has put all messages into the client's queue; the last one has this number.
    fn numbered(&mut self, last: u64) {
        let client = self.clients[0];
        self.to_clients[0].clear();
        self.coordinator.client_numbered(client, last);
    }

    fn acknowledged(&mut self, last: u64) {
        self.acknowledge(0, last);
        self.schedule();
    }
}

#[test]
fn a_report_is_settled_when_the_client_has_its_outcome() {
    let (mut wire, chunks) = two_agents(4, 2);
    wire.numbered(5);
    wire.acknowledged(5);
    wire.expect(&[]);
    wire.report(0, done(&chunks[0][0], 0, 1));
    wire.report(1, done(&chunks[1][0], 0, 1));
    wire.numbered(7);
    wire.report(0, done(&chunks[0][1], 0, 1));
    wire.numbered(8);
    wire.acknowledged(6);
    wire.expect(&[]);
    wire.acknowledged(7);
    wire.expect(&["agent0: settled 1 of pool 0", "agent1: settled 1 of pool 0"]);
    // A repeated acknowledgement has no effect.
    wire.acknowledged(7);
    wire.expect(&[]);
    wire.report(1, fault(&chunks[1][1], chunks[1][1].first, FailureKind::TimedOut));
    wire.numbered(11);
    wire.acknowledged(11);
    wire.expect(&["agent0: settled 2 of pool 0", "agent1: settled 2 of pool 0"]);
}

#[test]
fn messages_that_have_no_number_yet_are_not_acknowledged() {
    let (mut wire, chunks) = two_agents(2, 2);
    wire.report(0, done(&chunks[0][0], 0, 1));
    wire.acknowledged(u64::MAX - 1);
    wire.to_clients[0].clear();
    wire.expect(&[]);
    wire.numbered(3);
    wire.acknowledged(3);
    wire.expect(&["agent0: settled 1 of pool 0"]);
}

#[test]
fn reports_without_consequence_are_settled_after_earlier_ones() {
    let (mut wire, chunks) = two_agents(4, 2);
    wire.report(0, done(&chunks[0][0], 0, 1));
    // It is retried, so the client gets no message.
    wire.report(0, fault(&chunks[0][1], chunks[0][1].first, FailureKind::WorkerDied));
    wire.report(1, fault(&chunks[1][1], chunks[1][1].first, FailureKind::WorkerDied));
    // And this report belongs to no known job.
    wire.report(1, done(&chunks[1][1], 0, 1));
    wire.schedule();
    wire.numbered(3);
    let settled = |wire: &mut Wire, agent: usize| -> Vec<u64> {
        let commands = wire.to_agents[agent].drain(..);
        commands
            .filter_map(|it| if let agent_command::Body::Settled(it) = it { Some(it.report) } else { None })
            .collect()
    };
    assert_eq!((settled(&mut wire, 0), settled(&mut wire, 1)), (vec![], vec![2]));
    wire.acknowledged(3);
    assert_eq!((settled(&mut wire, 0), settled(&mut wire, 1)), (vec![2], vec![]));
}

#[test]
fn dropped_results_are_settled_and_others_of_the_report_are_not() {
    let mut wire = Wire::new();
    wire.agent_as(1, 2, Vec::new());
    wire.client();
    wire.send(0, open_pool_as(9, 0, None));
    wire.send(0, open_job_retrying(0, 2, 1));
    wire.send(0, items(0, 0, &["a", "b"]));
    wire.send(0, end_items(0));
    wire.schedule();
    wire.to_clients[0].clear();
    // The client gets no message about the first attempt.
    let held = chunks(&mut wire, 0);
    wire.report(0, failed(&held[0], 0, 1));
    wire.schedule();
    wire.expect(&["agent0: run job 0 attempt 2 from 0 [\"a\"]", "agent0: settled 1 of pool 0"]);
    // The agent is lost: the first item has no attempt left, and the second one is at its second now.
    wire.agent_gone(0);
    wire.to_clients[0].clear();
    wire.agent_as(2, 2, Vec::new());
    wire.schedule();
    wire.to_clients[0].clear();
    let held = chunks(&mut wire, 1);
    assert_eq!(held.iter().map(|chunk| (chunk.first, chunk.attempt)).collect::<Vec<_>>(), [(1, 2)]);
    wire.report(1, failed(&held[0], 0, 1));
    wire.expect(&["client0: job 0 done 1: [\"B\"], failed, attempts 2", "client0: job 0 ended", "agent1: end job 0"]);
}

#[test]
fn a_partly_dropped_report_is_settled_when_the_client_has_the_rest() {
    let mut wire = Wire::new();
    for agent in [1, 2] {
        wire.agent_as(agent, 1, Vec::new());
    }
    wire.client();
    wire.send(0, open_pool_as(9, 0, None));
    wire.send(0, open_job_retrying(0, 2, 1));
    wire.send(0, items(0, 0, &["a", "b"]));
    wire.send(0, end_items(0));
    wire.schedule();
    let first = usize::from(chunks(&mut wire, 0).is_empty());
    wire.agent_gone(first);
    wire.schedule();
    let other = 1 - first;
    let held = chunks(&mut wire, other);
    assert_eq!(held.iter().map(|chunk| (chunk.first, chunk.attempt)).collect::<Vec<_>>(), [(0, 2)]);
    wire.to_clients[0].clear();
    // The first item has no attempt left; the second one has.
    wire.report(other, failed(&held[0], 0, 2));
    wire.schedule();
    wire.expect(&[
        "client0: job 0 done 0: [\"A\"], failed, attempts 2",
        &format!("agent{other}: run job 0 attempt 2 from 1 [\"b\"]"),
    ]);
    wire.numbered(9);
    wire.acknowledged(8);
    wire.expect(&[]);
    wire.acknowledged(9);
    wire.expect(&[&format!("agent{other}: settled 1 of pool 0")]);
}

#[test]
fn reports_for_a_lost_client_are_settled() {
    let (mut wire, chunks) = two_agents(3, 2);
    wire.report(0, done(&chunks[0][0], 0, 1));
    wire.client_gone(0);
    wire.to_clients[0].clear();
    // A later report is settled too: there is no client for its message.
    wire.report(1, done(&chunks[1][0], 0, 1));
    wire.schedule();
    wire.expect(&[
        "agent0: end job 0 kill",
        "agent0: stop pool 0 now",
        "agent0: settled 1 of pool 0",
        "agent1: end job 0 kill",
        "agent1: stop pool 0 now",
        "agent1: settled 1 of pool 0",
    ]);
    wire.acknowledged(100);
    wire.numbered(100);
    wire.expect(&[]);
}

#[test]
fn each_pool_is_settled_separately() {
    let (mut wire, chunks) = two_agents(1, 2);
    wire.client();
    wire.send(1, open_pool_as(8, 0, None));
    wire.send(1, open_job(0, 1, 2));
    wire.send(1, items(0, 0, &["x"]));
    wire.schedule();
    let (mut at, mut other) = (0, Vec::new());
    for agent in 0..2 {
        let found = self::chunks(&mut wire, agent);
        if !found.is_empty() {
            (at, other) = (agent, found);
        }
    }
    let first = usize::from(chunks[0].is_empty());
    wire.report(first, done(&chunks[first][0], 0, 1));
    wire.report(at, done(&other[0], 0, 1));
    wire.to_clients[1].clear();
    wire.numbered(4);
    wire.coordinator.client_numbered(wire.clients[1], 9);
    wire.acknowledged(4);
    wire.expect(&[&format!("agent{first}: settled 1 of pool 0")]);
    wire.acknowledge(1, 9);
    wire.schedule();
    let report = if at == first { 2 } else { 1 };
    wire.expect(&[&format!("agent{at}: settled {report} of pool 1")]);
}

#[test]
fn without_ids_no_reports_are_kept() {
    let mut wire = Wire::new();
    wire.agent(1, 1);
    wire.client();
    wire.send(0, open_pool(0));
    wire.send(0, open_job(0, 1, 0));
    wire.send(0, items(0, 0, &["a"]));
    wire.schedule();
    let chunk = chunks(&mut wire, 0).remove(0);
    wire.report(0, done(&chunk, 0, 1));
    wire.numbered(4);
    wire.acknowledged(4);
    wire.expect(&[]);
}
