//! Workers that wait for other items lend their slots.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use farpool_agent::Settings;
use farpool_link::item_token::{Claim, GRANTED};
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::{LendSlot, StartPool, WorkerSettings};

use crate::pools::claims;
use crate::pools::host::{Event, Gate, Host, start};

crate::pools::cases![
    another_pool_runs_while_an_item_waits,
    three_levels_deep_on_one_slot,
    an_item_that_resumes_takes_the_slot_back,
    an_item_with_an_outcome_keeps_no_slot,
    a_slot_is_lent_while_outcomes_are_held,
    stuck_chunks_leave_room_for_others,
    a_worker_that_dies_while_it_waits,
    a_program_started_by_an_item_borrows_its_slot,
    two_programs_of_one_item_borrow_one_slot,
    a_claim_for_an_item_that_does_not_run_lends_nothing,
    a_copy_of_a_token_lends_nothing,
    a_ticket_that_was_not_granted_lends_nothing,
    connections_without_a_valid_claim_are_closed,
    lending_ends_with_its_session,
];

fn lend(gate: &Gate) -> String {
    format!("lend {}", gate.path())
}

fn another_pool_runs_while_an_item_waits() {
    let mut host = Host::new(1);
    host.pool(1);
    host.pool(2);
    let gate = Gate::new("nested");
    let [waits] = host.assign(1, [&lend(&gate)]);
    host.wait_for_event(|event| matches!(event, Event::Credit(credit) if credit.chunks == 2));
    assert_eq!(host.run(2, "echo nested"), "nested");
    gate.open();
    assert_eq!(host.result(waits), "go on");
    host.wait(|events| matches!(events.iter().rfind(|event| matches!(event, Event::Credit(_))), Some(Event::Credit(credit)) if credit.chunks == 1).then_some(()));
    host.end();
}

fn three_levels_deep_on_one_slot() {
    let mut host = Host::new(1);
    let gates = [1, 2, 3].map(|level| Gate::new(&format!("level-{level}")));
    let mut chunks = Vec::new();
    for (pool, gate) in (1..).zip(&gates) {
        host.pool(pool);
        chunks.extend(host.assign(pool, [&lend(gate)]));
        host.wait_for_output(pool, "lending");
    }
    host.pool(4);
    assert_eq!(host.run(4, "echo deep"), "deep");
    assert_eq!(host.credit(), Some(4));
    for (gate, chunk) in gates.iter().zip(chunks).rev() {
        gate.open();
        host.result(chunk);
    }
    host.wait_for_event(|event| matches!(event, Event::Credit(credit) if credit.chunks == 1));
    host.end();
}

/// It resumes at once; other workers begin nothing more until there is a slot.
fn an_item_that_resumes_takes_the_slot_back() {
    let mut host = Host::new(1);
    host.pool(1);
    host.pool(2);
    let [nested, first, second] = ["back-1", "back-2", "back-3"].map(Gate::new);
    let [outer] = host.assign(1, [&format!("both {} {}", nested.path(), first.path())]);
    host.wait_for_output(1, "lending");
    let [inner] = host.assign(2, [&format!("hear {}", second.path())]);
    host.wait_for_output(2, "listening");
    nested.open();
    host.wait_for_output(1, "listening");
    // Two run on one slot. One ends, and the other still has it.
    second.open();
    host.result(inner);
    let [next] = host.assign(2, ["echo next"]);
    host.drive_for(Duration::from_millis(30));
    first.open();
    host.result(outer);
    assert_eq!(host.result(next), "next");
    assert!(host.position_of(outer) < host.position_of(next));
    host.end();
}

/// The thread of a finished item records only a little later that it is idle, and does not wake the agent for that.
fn an_item_with_an_outcome_keeps_no_slot() {
    let mut host = Host::new(1);
    let settings = WorkerSettings { payload_limit: 1 << 20, threads: 2, ..WorkerSettings::default() };
    host.pool_of(StartPool { pool: 1, settings: Some(settings), ..start() });
    host.pool(2);
    assert_eq!(host.run(1, "echo first"), "first");
    let gate = Gate::new("beside");
    let [waits] = host.assign(1, [&format!("beside {}", lend(&gate))]);
    host.wait_for_output(1, "lending");
    assert_eq!(host.run(2, "echo nested"), "nested");
    gate.open();
    assert_eq!(host.result(waits), "go on");
    host.end();
}

fn a_slot_is_lent_while_outcomes_are_held() {
    let mut host = Host::new(1);
    host.pool(1);
    host.pool(2);
    let [first, gate] = ["held-1", "held-2"].map(Gate::new);
    let [waits] = host.assign(1, [&format!("after {} {}", first.path(), lend(&gate))]);
    host.wait_for_output(1, "listening");
    host.agent.hold_pool(1, true);
    first.open();
    wait_for_credit(&mut host, 2);
    assert_eq!(host.run(2, "echo nested"), "nested");
    gate.open();
    wait_for_credit(&mut host, 1);
    host.agent.hold_pool(1, false);
    assert_eq!(host.result(waits), "go ongo on");
    host.end();
}

/// While all workers of a pool wait, its other chunks cannot run. The items that the workers wait for must still get
/// here.
fn stuck_chunks_leave_room_for_others() {
    let mut host = Host::new(1);
    host.pool(1);
    host.pool(2);
    let gate = Gate::new("stuck");
    let chunks = host.assign(1, [&lend(&gate), "echo a", "echo b"]);
    // One slot, one lent slot, and two chunks that wait for its worker.
    host.wait_for_event(|event| matches!(event, Event::Credit(credit) if credit.chunks == 4));
    assert_eq!(host.run(2, "echo nested"), "nested");
    gate.open();
    assert_eq!(chunks.map(|chunk| host.result(chunk)), ["go on", "a", "b"]);
    host.end();
}

fn a_worker_that_dies_while_it_waits() {
    let mut host = Host::new(1);
    host.pool(1);
    host.pool(2);
    let gate = Gate::new("dies");
    let [waits] = host.assign(1, [&lend(&gate)]);
    host.wait_for_output(1, "lending");
    assert_eq!(host.run(2, "echo nested"), "nested");
    let pid = host.events.iter().find_map(|event| match event {
        Event::Output(output) if output.pool == 1 => Some(output.pid),
        _ => None,
    });
    let pid = nix::unistd::Pid::from_raw(pid.expect("the task has printed a pid").cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(host.outcome(waits).is_err());
    assert_eq!(host.run(1, "echo on"), "on");
    assert_eq!(host.credit(), Some(1));
    host.end();
}

const SECRET: u128 = 77;
const TICKET: u128 = 1 << 70;

/// Returns a host that programs can find, and its id.
fn host_with_id() -> (Host, u128) {
    static HOSTS: AtomicU64 = AtomicU64::new(0);
    let id = u128::from(std::process::id()) << 64 | u128::from(HOSTS.fetch_add(1, Ordering::Relaxed));
    let mut settings = Settings::host(1);
    settings.id = Some(id);
    (Host::with(settings), id)
}

/// The coordinator's command for a client with this ticket.
fn lend_slot(ticket: u128, lend: bool) -> Command {
    Command::LendSlot(LendSlot { ticket: ticket.to_be_bytes().to_vec().into(), lend })
}

/// An item whose task starts a program. `how`: "program", or "orphan" for a program whose parent ends.
fn starts(how: &str, agent: u128, position: u32, gate: &Gate) -> String {
    format!("secret {SECRET} {how} {agent} {SECRET} {position} {TICKET} {}", gate.path())
}

/// Claims a slot for this process, as a program does, and waits for the agent's answer; `None`: it is not granted.
fn claim(host: &mut Host, agent: u128, claim: Claim) -> Option<UnixStream> {
    let mut stream = claims::connect(agent);
    stream.write_all(&claim.to_bytes()).unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut answer = [0];
    let granted = host.until(|| match stream.read(&mut answer) {
        Ok(0) => Some(false),
        Ok(_) => Some(answer == [GRANTED]),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
        // It was closed with unread data.
        Err(_) => Some(false),
    });
    granted.then_some(stream)
}

fn wait_for_credit(host: &mut Host, chunks: u32) {
    host.wait(|events| {
        let last = events.iter().rev().find_map(|event| match event {
            Event::Credit(credit) => Some(credit.chunks),
            _ => None,
        });
        (last == Some(chunks)).then_some(())
    });
}

fn a_program_started_by_an_item_borrows_its_slot() {
    for how in ["program", "orphan"] {
        let (mut host, agent) = host_with_id();
        host.pool(1);
        host.pool(2);
        let gate = Gate::new("program");
        let [outer] = host.assign(1, [&starts(how, agent, 0, &gate)]);
        host.wait_for_output(1, "claimed 1");
        host.send(lend_slot(TICKET, true));
        wait_for_credit(&mut host, 2);
        // The same ticket twice still lends one slot.
        host.send(lend_slot(TICKET, true));
        assert_eq!(host.run(2, "echo inner"), "inner");
        assert_eq!(host.credit(), Some(2));
        host.send(lend_slot(TICKET, false));
        wait_for_credit(&mut host, 1);
        host.send(lend_slot(TICKET, true));
        wait_for_credit(&mut host, 2);
        gate.open();
        assert_eq!(host.result(outer), "go on");
        wait_for_credit(&mut host, 1);
        host.end();
    }
}

/// The slot is lent while either of them waits, and not for one that has ended.
fn two_programs_of_one_item_borrow_one_slot() {
    let (mut host, agent) = host_with_id();
    host.pool(1);
    let gates = ["first", "second"].map(Gate::new);
    let programs = gates.each_ref().map(|gate| format!("{agent} {SECRET} 0 {{}} {}", gate.path()));
    let item =
        format!("secret {SECRET} programs {} {}", programs[0].replace("{}", "1"), programs[1].replace("{}", "2"));
    let [outer] = host.assign(1, [&item]);
    host.wait_for_output(1, "claimed 1\nclaimed 1");
    for ticket in [1, 2] {
        host.send(lend_slot(ticket, true));
    }
    wait_for_credit(&mut host, 2);
    host.send(lend_slot(1, false));
    host.drive_for(Duration::from_millis(30));
    assert_eq!(host.credit(), Some(2), "the other one waits");
    gates[1].open();
    wait_for_credit(&mut host, 1);
    gates[0].open();
    host.result(outer);
    host.end();
}

fn a_claim_for_an_item_that_does_not_run_lends_nothing() {
    // It has ended, or has not begun.
    for position in [0, 2] {
        let (mut host, agent) = host_with_id();
        host.pool(1);
        host.pool(2);
        assert_eq!(host.run(1, &format!("secret {SECRET} echo first")), "first");
        let gate = Gate::new("stale");
        let [outer] = host.assign(1, [&starts("program", agent, position, &gate)]);
        host.wait_for_output(1, "claimed 0");
        let [inner] = host.assign(2, ["echo inner"]);
        host.send(lend_slot(TICKET, true));
        host.drive_for(Duration::from_millis(50));
        gate.open();
        host.result(outer);
        assert_eq!(host.result(inner), "inner");
        assert!(host.position_of(outer) < host.position_of(inner), "position {position}");
        host.end();
    }
}

fn a_copy_of_a_token_lends_nothing() {
    let (mut host, agent) = host_with_id();
    host.pool(1);
    host.pool(2);
    let gate = Gate::new("copy");
    let [outer] = host.assign(1, [&format!("secret {SECRET} hear {}", gate.path())]);
    host.wait_for_output(1, "listening");
    // This is the agent's process, which no worker has started.
    assert!(claim(&mut host, agent, Claim { ticket: TICKET, secret: SECRET, position: 0 }).is_none());
    // A program that another worker has started.
    let other = Gate::new("other");
    let copy = format!("secret {} program {agent} {SECRET} 0 {TICKET} {}", SECRET + 1, other.path());
    host.send(lend_slot(TICKET, true));
    host.drive_for(Duration::from_millis(50));
    assert_eq!(host.credit(), Some(1));
    gate.open();
    host.result(outer);
    let [outer] = host.assign(1, [&format!("secret {SECRET} lend {}", gate.path())]);
    host.wait_for_output(1, "lending");
    let [copies] = host.assign(2, [&copy]);
    host.wait_for_output(2, "claimed 0");
    other.open();
    host.result(copies);
    gate.open();
    host.result(outer);
    host.end();
}

fn a_ticket_that_was_not_granted_lends_nothing() {
    let (mut host, agent) = host_with_id();
    host.pool(1);
    let gate = Gate::new("unknown");
    let [outer] = host.assign(1, [&starts("program", agent, 0, &gate)]);
    host.wait_for_output(1, "claimed 1");
    for ticket in [0, SECRET, TICKET + 1] {
        host.send(lend_slot(ticket, true));
    }
    host.drive_for(Duration::from_millis(50));
    assert_eq!(host.credit(), Some(1));
    assert!(host.try_send(Command::LendSlot(LendSlot { ticket: vec![1; 15].into(), lend: true })).is_err());
    gate.open();
    host.result(outer);
    host.end();
}

/// A connection that sends too little, too much or nothing does not block others, and is closed.
fn connections_without_a_valid_claim_are_closed() {
    let (mut host, agent) = host_with_id();
    host.pool(1);
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(claims::connect(agent));
        host.drive_for(Duration::from_millis(1));
    }
    let closed = |stream: &mut UnixStream| {
        stream.set_nonblocking(true).unwrap();
        matches!(stream.read(&mut [0]), Ok(0))
    };
    assert!(silent.iter_mut().filter_map(|stream| closed(stream).then_some(())).count() >= 136);
    let mut talks = claims::connect(agent);
    talks.write_all(&[7; 4096]).unwrap();
    talks.set_nonblocking(true).unwrap();
    host.until(|| match talks.read(&mut [0]) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
        answer => {
            assert!(!matches!(answer, Ok(1..)), "{answer:?}");
            Some(())
        }
    });
    let gate = Gate::new("after");
    let [outer] = host.assign(1, [&starts("program", agent, 0, &gate)]);
    host.wait_for_output(1, "claimed 1");
    gate.open();
    host.result(outer);
    host.end();
}

fn lending_ends_with_its_session() {
    let (mut host, agent) = host_with_id();
    host.pool(1);
    let gate = Gate::new("session");
    let [outer] = host.assign(1, [&starts("program", agent, 0, &gate)]);
    host.wait_for_output(1, "claimed 1");
    host.send(lend_slot(TICKET, true));
    wait_for_credit(&mut host, 2);
    host.send(Command::LendSlot(LendSlot::default()));
    wait_for_credit(&mut host, 1);
    // The next session sends it again.
    host.send(lend_slot(TICKET, true));
    wait_for_credit(&mut host, 2);
    gate.open();
    host.result(outer);
    host.end();
}
