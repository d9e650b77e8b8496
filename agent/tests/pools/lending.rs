//! Workers that wait for other items lend their slots.

use std::time::Duration;

use farpool_proto::v1::LendSlot;
use farpool_proto::v1::agent_command::Body as Command;

use crate::host::{Event, Host, Word};

crate::cases![
    another_pool_runs_while_an_item_waits,
    three_levels_deep_on_one_slot,
    who_goes_on_takes_the_slot_back,
    chunks_that_are_stuck_leave_room_for_others,
    a_worker_that_dies_while_it_waits,
    a_client_that_an_item_has_started_borrows_its_slot,
    a_token_that_is_not_of_the_running_item_lends_nothing,
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

/// What the coordinator says of a client that has a token with this secret and position.
fn lend_slot(secret: u128, position: u32, lend: bool) -> Command {
    Command::LendSlot(LendSlot { secret: secret.to_be_bytes().to_vec().into(), position, lend })
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

fn a_client_that_an_item_has_started_borrows_its_slot() {
    let mut host = Host::new(1);
    host.pool(1);
    host.pool(2);
    let word = Word::new("client");
    let [outer] = host.assign(1, [&format!("secret {SECRET} hear {}", word.path())]);
    host.wait_for_output(1, "listening");
    host.say(lend_slot(SECRET, 0, true));
    wait_for_credit(&mut host, 2);
    // Twice the same token is still one slot.
    host.say(lend_slot(SECRET, 0, true));
    assert_eq!(host.run(2, "echo inner"), "inner");
    assert_eq!(host.credit(), Some(2));
    host.say(lend_slot(SECRET, 0, false));
    wait_for_credit(&mut host, 1);
    word.say();
    assert_eq!(host.result(outer), "go on");
    host.end();
}

fn a_token_that_is_not_of_the_running_item_lends_nothing() {
    let mut host = Host::new(1);
    host.pool(1);
    host.pool(2);
    assert_eq!(host.run(1, &format!("secret {SECRET} echo first")), "first");
    let word = Word::new("stale");
    let [outer] = host.assign(1, [&format!("hear {}", word.path())]);
    host.wait_for_output(1, "listening");
    let [inner] = host.assign(2, ["echo inner"]);
    // Of the item before; of one that has not begun; of another worker; of none.
    for (secret, position) in [(SECRET, 0), (SECRET, 2), (SECRET + 1, 1), (0, 1)] {
        host.say(lend_slot(secret, position, true));
    }
    host.drive_for(Duration::from_millis(50));
    assert_eq!(host.credit(), Some(1));
    assert!(
        host.try_to_say(Command::LendSlot(LendSlot { secret: vec![1; 15].into(), position: 0, lend: true })).is_err()
    );
    word.say();
    host.result(outer);
    assert_eq!(host.result(inner), "inner");
    assert!(host.place_of(outer) < host.place_of(inner));
    host.end();
}

fn lends_end_with_the_session_that_asked_for_them() {
    let mut host = Host::new(1);
    host.pool(1);
    let word = Word::new("session");
    let [outer] = host.assign(1, [&format!("secret {SECRET} hear {}", word.path())]);
    host.wait_for_output(1, "listening");
    host.say(lend_slot(SECRET, 0, true));
    wait_for_credit(&mut host, 2);
    host.say(Command::LendSlot(LendSlot::default()));
    wait_for_credit(&mut host, 1);
    word.say();
    host.result(outer);
    host.end();
}
