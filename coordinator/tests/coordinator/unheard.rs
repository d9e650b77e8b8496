//! Pools start where their clients have heard of it.

use crate::fakes::*;

/// A coordinator, and a client with a pool; nobody says by himself that he has heard something.
fn opened(processes: u32) -> Wire {
    let mut wire = Wire::new();
    wire.hears_at_once = false;
    wire.client();
    wire.ask(0, open_pool_as(9, processes, None));
    wire.to_clients[0].clear();
    wire
}

/// All messages to the client so far are up to this one, and it has them.
fn hear(wire: &mut Wire, last: u64) {
    wire.coordinator.client_numbered(wire.clients[0], last);
    wire.acknowledge(0, last);
}

#[test]
fn a_place_starts_when_the_client_has_heard_of_it() {
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
    hear(&mut wire, 5);
    wire.expect(&["agent1: start pool 0"]);
}

#[test]
fn who_has_gone_on_with_it_elsewhere_is_no_exception() {
    let mut wire = opened(0);
    wire.ask(0, open_job(0, 1, 2));
    wire.ask(0, items(0, 0, &["a", "b"]));
    wire.agent_as(1, 2, vec![held_pool(5, 9, vec![held_chunk(7, 0, 1, 1, &[(1, 1)])])]);
    wire.schedule();
    wire.expect(&["client0: runs at 1", "client0: opened with 2 slots"]);
    hear(&mut wire, 2);
    wire.schedule();
    wire.expect(&[
        "agent0: adopt held pool 5 as 0 job 0 as 0 chunk 7 attempt 1",
        "agent0: run job 0 attempt 1 from 0 [\"a\"]",
    ]);
}

/// What happens before the client hears of the place at agent 1, and what everybody is told then and when it has heard.
#[track_caller]
fn check(happens: impl Fn(&mut Wire), expected: &[&str], heard: &[&str]) {
    let mut wire = opened(1);
    wire.agent_as(1, 2, vec![held_pool(5, 9, Vec::new())]);
    wire.expect(&["client0: runs at 1", "client0: opened with 1 slots"]);
    happens(&mut wire);
    wire.expect(expected);
    hear(&mut wire, 9);
    wire.expect(heard);
}

#[test]
fn what_happens_before_the_client_has_heard() {
    check(|_| {}, &[], &["agent0: adopt held pool 5 as 0 with 1"]);
    check(|wire| wire.agent_gone(0), &["client0: no more at 1", "client0: waiting: no agent is connected"], &[]);
    check(|wire| wire.ask(0, close(false)), &["client0: closed", "agent0: stop held pool 5 now"], &[]);
    check(|wire| wire.client_gone(0), &["agent0: stop held pool 5 now"], &[]);
}

#[test]
fn who_leaves_is_not_begun_with() {
    let mut wire = opened(0);
    wire.agent_as(1, 2, Vec::new());
    wire.say(0, Say::Draining(Default::default()));
    wire.to_clients[0].clear();
    hear(&mut wire, 9);
    wire.expect(&["client0: no more at 1"]);
}
