//! Workers that wait for other items lend their slots.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use farpool_agent::Settings;
use farpool_link::item_token::{Claim, GRANTED};
use farpool_proto::v1::LendSlot;
use farpool_proto::v1::agent_command::Body as Command;

use crate::pools::claims;
use crate::pools::host::{Event, Host, Word};

crate::pools::cases![
    another_pool_runs_while_an_item_waits,
    three_levels_deep_on_one_slot,
    who_goes_on_takes_the_slot_back,
    chunks_that_are_stuck_leave_room_for_others,
    a_worker_that_dies_while_it_waits,
    a_program_that_an_item_has_started_borrows_its_slot,
    two_programs_of_one_item_borrow_one_slot,
    a_claim_for_an_item_that_does_not_run_lends_nothing,
    a_copy_of_a_token_lends_nothing,
    a_ticket_that_was_not_granted_lends_nothing,
    connections_without_a_good_claim_are_closed,
    lends_end_with_the_session_that_asked_for_them,
];

fn lend(word: &Word) -> String {
    format!("lend {}", word.path())
}

fn another_pool_runs_while_an_item_waits() {
    let mut host = Host::new(1);
    host.pool(1);
    host.pool(2);
    let word = Word::new("nested");
    let [waits] = host.assign(1, [&lend(&word)]);
    host.wait_for_event(|event| matches!(event, Event::Credit(credit) if credit.chunks == 2));
    assert_eq!(host.run(2, "echo nested"), "nested");
    word.say();
    assert_eq!(host.result(waits), "go on");
    host.wait(|told| matches!(told.iter().rfind(|event| matches!(event, Event::Credit(_))), Some(Event::Credit(credit)) if credit.chunks == 1).then_some(()));
    host.end();
}

fn three_levels_deep_on_one_slot() {
    let mut host = Host::new(1);
    let words = [1, 2, 3].map(|level| Word::new(&format!("level-{level}")));
    let mut chunks = Vec::new();
    for (pool, word) in (1..).zip(&words) {
        host.pool(pool);
        chunks.extend(host.assign(pool, [&lend(word)]));
        host.wait_for_output(pool, "lending");
    }
    host.pool(4);
    assert_eq!(host.run(4, "echo deep"), "deep");
    assert_eq!(host.credit(), Some(4));
    for (word, chunk) in words.iter().zip(chunks).rev() {
        word.say();
        host.result(chunk);
    }
    host.wait_for_event(|event| matches!(event, Event::Credit(credit) if credit.chunks == 1));
    host.end();
}

/// It goes on at once; others begin nothing more until there is a slot.
fn who_goes_on_takes_the_slot_back() {
    let mut host = Host::new(1);
    host.pool(1);
    host.pool(2);
    let [nested, first, second] = ["back-1", "back-2", "back-3"].map(Word::new);
    let [outer] = host.assign(1, [&format!("both {} {}", nested.path(), first.path())]);
    host.wait_for_output(1, "lending");
    let [inner] = host.assign(2, [&format!("hear {}", second.path())]);
    host.wait_for_output(2, "listening");
    nested.say();
    host.wait_for_output(1, "listening");
    // Two run on one slot. One ends, and the other still has it.
    second.say();
    host.result(inner);
    let [next] = host.assign(2, ["echo next"]);
    host.drive_for(Duration::from_millis(30));
    first.say();
    host.result(outer);
    assert_eq!(host.result(next), "next");
    assert!(host.place_of(outer) < host.place_of(next));
    host.end();
}

/// They cannot run as long as all workers of their pool wait, and what those wait for must find its way here.
fn chunks_that_are_stuck_leave_room_for_others() {
    let mut host = Host::new(1);
    host.pool(1);
    host.pool(2);
    let word = Word::new("stuck");
    let chunks = host.assign(1, [&lend(&word), "echo a", "echo b"]);
    // One slot, one that is lent, and two chunks that wait for its worker.
    host.wait_for_event(|event| matches!(event, Event::Credit(credit) if credit.chunks == 4));
    assert_eq!(host.run(2, "echo nested"), "nested");
    word.say();
    assert_eq!(chunks.map(|chunk| host.result(chunk)), ["go on", "a", "b"]);
    host.end();
}

fn a_worker_that_dies_while_it_waits() {
    let mut host = Host::new(1);
    host.pool(1);
    host.pool(2);
    let word = Word::new("dies");
    let [waits] = host.assign(1, [&lend(&word)]);
    host.wait_for_output(1, "lending");
    assert_eq!(host.run(2, "echo nested"), "nested");
    let pid = host.told.iter().find_map(|event| match event {
        Event::Output(output) if output.pool == 1 => Some(output.pid),
        _ => None,
    });
    let pid = nix::unistd::Pid::from_raw(pid.expect("it has printed").cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(host.outcome(waits).is_err());
    assert_eq!(host.run(1, "echo on"), "on");
    assert_eq!(host.credit(), Some(1));
    host.end();
}

const SECRET: u128 = 77;
const TICKET: u128 = 1 << 70;

/// A host whose programs can find it; and its id.
fn host_with_id() -> (Host, u128) {
    static HOSTS: AtomicU64 = AtomicU64::new(0);
    let id = u128::from(std::process::id()) << 64 | u128::from(HOSTS.fetch_add(1, Ordering::Relaxed));
    let mut settings = Settings::host(1);
    settings.id = Some(id);
    (Host::with(settings), id)
}

/// What the coordinator says of a client that has shown this ticket.
fn lend_slot(ticket: u128, lend: bool) -> Command {
    Command::LendSlot(LendSlot { ticket: ticket.to_be_bytes().to_vec().into(), lend })
}

/// An item whose task starts a program. `how`: "program", or "orphan" for one whose parent ends.
fn starts(how: &str, agent: u128, position: u32, word: &Word) -> String {
    format!("secret {SECRET} {how} {agent} {SECRET} {position} {TICKET} {}", word.path())
}

/// Claims a slot for this process, as a program does, and waits for the agent's answer; `None`: it does not grant it.
fn claim(host: &mut Host, agent: u128, claim: Claim) -> Option<UnixStream> {
    let mut stream = claims::connect(agent);
    stream.write_all(&claim.to_bytes()).unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut answer = [0];
    let granted = host.until(|| match stream.read(&mut answer) {
        Ok(0) => Some(false),
        Ok(_) => Some(answer == [GRANTED]),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
        // It was closed with something unread.
        Err(_) => Some(false),
    });
    granted.then_some(stream)
}

fn wait_for_credit(host: &mut Host, chunks: u32) {
    host.wait(|told| {
        let last = told.iter().rev().find_map(|event| match event {
            Event::Credit(credit) => Some(credit.chunks),
            _ => None,
        });
        (last == Some(chunks)).then_some(())
    });
}

fn a_program_that_an_item_has_started_borrows_its_slot() {
    for how in ["program", "orphan"] {
        let (mut host, agent) = host_with_id();
        host.pool(1);
        host.pool(2);
        let word = Word::new("program");
        let [outer] = host.assign(1, [&starts(how, agent, 0, &word)]);
        host.wait_for_output(1, "claimed 1");
        host.say(lend_slot(TICKET, true));
        wait_for_credit(&mut host, 2);
        // Twice the same ticket is still one slot.
        host.say(lend_slot(TICKET, true));
        assert_eq!(host.run(2, "echo inner"), "inner");
        assert_eq!(host.credit(), Some(2));
        host.say(lend_slot(TICKET, false));
        wait_for_credit(&mut host, 1);
        host.say(lend_slot(TICKET, true));
        wait_for_credit(&mut host, 2);
        word.say();
        assert_eq!(host.result(outer), "go on");
        wait_for_credit(&mut host, 1);
        host.end();
    }
}

/// The slot is lent for each of them while it waits, and for none that has gone.
fn two_programs_of_one_item_borrow_one_slot() {
    let (mut host, agent) = host_with_id();
    host.pool(1);
    let words = ["first", "second"].map(Word::new);
    let programs = words.each_ref().map(|word| format!("{agent} {SECRET} 0 {{}} {}", word.path()));
    let item =
        format!("secret {SECRET} programs {} {}", programs[0].replace("{}", "1"), programs[1].replace("{}", "2"));
    let [outer] = host.assign(1, [&item]);
    host.wait_for_output(1, "claimed 1\nclaimed 1");
    for ticket in [1, 2] {
        host.say(lend_slot(ticket, true));
    }
    wait_for_credit(&mut host, 2);
    host.say(lend_slot(1, false));
    host.drive_for(Duration::from_millis(30));
    assert_eq!(host.credit(), Some(2), "the other one waits");
    words[1].say();
    wait_for_credit(&mut host, 1);
    words[0].say();
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
        let word = Word::new("stale");
        let [outer] = host.assign(1, [&starts("program", agent, position, &word)]);
        host.wait_for_output(1, "claimed 0");
        let [inner] = host.assign(2, ["echo inner"]);
        host.say(lend_slot(TICKET, true));
        host.drive_for(Duration::from_millis(50));
        word.say();
        host.result(outer);
        assert_eq!(host.result(inner), "inner");
        assert!(host.place_of(outer) < host.place_of(inner), "position {position}");
        host.end();
    }
}

fn a_copy_of_a_token_lends_nothing() {
    let (mut host, agent) = host_with_id();
    host.pool(1);
    host.pool(2);
    let word = Word::new("copy");
    let [outer] = host.assign(1, [&format!("secret {SECRET} hear {}", word.path())]);
    host.wait_for_output(1, "listening");
    // This process is the agent's, and no worker has started it.
    assert!(claim(&mut host, agent, Claim { ticket: TICKET, secret: SECRET, position: 0 }).is_none());
    // A program that another worker has started.
    let other = Word::new("other");
    let copy = format!("secret {} program {agent} {SECRET} 0 {TICKET} {}", SECRET + 1, other.path());
    host.say(lend_slot(TICKET, true));
    host.drive_for(Duration::from_millis(50));
    assert_eq!(host.credit(), Some(1));
    word.say();
    host.result(outer);
    let [outer] = host.assign(1, [&format!("secret {SECRET} lend {}", word.path())]);
    host.wait_for_output(1, "lending");
    let [copies] = host.assign(2, [&copy]);
    host.wait_for_output(2, "claimed 0");
    other.say();
    host.result(copies);
    word.say();
    host.result(outer);
    host.end();
}

fn a_ticket_that_was_not_granted_lends_nothing() {
    let (mut host, agent) = host_with_id();
    host.pool(1);
    let word = Word::new("unknown");
    let [outer] = host.assign(1, [&starts("program", agent, 0, &word)]);
    host.wait_for_output(1, "claimed 1");
    for ticket in [0, SECRET, TICKET + 1] {
        host.say(lend_slot(ticket, true));
    }
    host.drive_for(Duration::from_millis(50));
    assert_eq!(host.credit(), Some(1));
    assert!(host.try_to_say(Command::LendSlot(LendSlot { ticket: vec![1; 15].into(), lend: true })).is_err());
    word.say();
    host.result(outer);
    host.end();
}

/// Whoever connects and says too little, too much or nothing neither keeps others out nor stays.
fn connections_without_a_good_claim_are_closed() {
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
    let word = Word::new("after");
    let [outer] = host.assign(1, [&starts("program", agent, 0, &word)]);
    host.wait_for_output(1, "claimed 1");
    word.say();
    host.result(outer);
    host.end();
}

fn lends_end_with_the_session_that_asked_for_them() {
    let (mut host, agent) = host_with_id();
    host.pool(1);
    let word = Word::new("session");
    let [outer] = host.assign(1, [&starts("program", agent, 0, &word)]);
    host.wait_for_output(1, "claimed 1");
    host.say(lend_slot(TICKET, true));
    wait_for_credit(&mut host, 2);
    host.say(Command::LendSlot(LendSlot::default()));
    wait_for_credit(&mut host, 1);
    // The next session says it anew.
    host.say(lend_slot(TICKET, true));
    wait_for_credit(&mut host, 2);
    word.say();
    host.result(outer);
    host.end();
}
