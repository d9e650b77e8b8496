//! Pools start where their clients have acknowledged the place.

use crate::fakes::*;

/// A coordinator, and a client with a pool; nothing is acknowledged automatically.
fn opened(processes: u32) -> Wire {
    let mut wire = Wire::new();
    wire.acks_at_once = false;
    wire.client();
    wire.send(0, open_pool_as(9, processes, None));
    wire.to_clients[0].clear();
    wire
}

/// The client acknowledges all messages so far; the last one has this number.
fn acknowledge_all(wire: &mut Wire, last: u64) {
    wire.coordinator.client_numbered(wire.clients[0], last);
    wire.acknowledge(0, last);
}

#[test]
fn a_place_starts_when_the_client_has_acknowledged_it() {
    let mut wire = opened(0);
    wire.agent_as(1, 2, Vec::new());
    wire.coordinator.client_numbered(wire.clients[0], 3);
    wire.agent_as(2, 2, Vec::new());
    wire.expect(&[
        "client0: runs at 1",
        "client0: opened with 2 slots",
        "client0: runs at 2",
        "client0: opened with 4 slots",
    ]);
    for (last, expected) in [(2, &[][..]), (3, &["agent0: start pool 0"]), (4, &[])] {
        wire.acknowledge(0, last);
        wire.expect(expected);
    }
    acknowledge_all(&mut wire, 5);
    wire.expect(&["agent1: start pool 0"]);
}

#[test]
fn an_agent_that_still_holds_the_pool_must_be_acknowledged_too() {
    let mut wire = opened(0);
    wire.send(0, open_job(0, 1, 2));
    wire.send(0, items(0, 0, &["a", "b"]));
    wire.agent_as(1, 2, vec![held_pool(5, 9, vec![held_chunk(7, 0, 1, 1, &[(1, 1)])])]);
    wire.schedule();
    wire.expect(&["client0: runs at 1", "client0: opened with 2 slots"]);
    acknowledge_all(&mut wire, 2);
    wire.schedule();
    wire.expect(&[
        "agent0: adopt held pool 5 as 0 job 0 as 0 chunk 7 attempt 1",
        "agent0: run job 0 attempt 1 from 0 [\"a\"]",
    ]);
}

/// Checks the messages about what happens before the client acknowledges the place at agent 1, and those after it has.
#[track_caller]
fn check(happens: impl Fn(&mut Wire), expected: &[&str], received: &[&str]) {
    let mut wire = opened(1);
    wire.agent_as(1, 2, vec![held_pool(5, 9, Vec::new())]);
    wire.expect(&["client0: runs at 1", "client0: opened with 1 slots"]);
    happens(&mut wire);
    wire.expect(expected);
    acknowledge_all(&mut wire, 9);
    wire.expect(received);
}

#[test]
fn events_before_the_client_has_acknowledged() {
    check(|_| {}, &[], &["agent0: adopt held pool 5 as 0 with 1"]);
    check(|wire| wire.agent_gone(0), &["client0: no more at 1", "client0: waiting: no agent is connected"], &[]);
    check(|wire| wire.send(0, close(false)), &["client0: closed", "agent0: stop held pool 5 now"], &[]);
    check(|wire| wire.client_gone(0), &["agent0: stop held pool 5 now"], &[]);
}

#[test]
fn a_pending_place_at_a_leaving_agent_does_not_start() {
    let mut wire = opened(0);
    wire.agent_as(1, 2, Vec::new());
    wire.report(0, Report::Draining(Default::default()));
    wire.to_clients[0].clear();
    acknowledge_all(&mut wire, 9);
    wire.expect(&["client0: no more at 1", "agent0: drain"]);
}
