//! Clients that end without a word: nothing that they started survives them.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use farpool_testkit::processes;
use farpool_testkit::waiting;
use nix::sys::signal::Signal;

use crate::failures::checks::{millis, seconds};
use crate::failures::client::Client;
use crate::line::Line;

crate::runner::cases![
    interrupted,
    terminated,
    killed,
    killed_while_initializers_run,
    killed_at_any_moment,
    exits_with_a_pool_open,
    panics_with_a_pool_open,
    forgets_its_pool,
    the_fork_server_is_killed_together_with_the_client,
];

/// A client whose workers spin, are deaf, are stopped and sleep, and have left processes behind.
fn busy(scenario: &str) -> (Client, Line) {
    let mut line = Line::new("pids");
    let client = Client::start(scenario, &[&line.path()]);
    for _ in 0..4 {
        line.next_number();
    }
    // The client, its fork server, four workers, and what three of their tasks have left.
    waiting::until(|| client.processes().len() >= 9);
    (client, line)
}

fn check_signal(signal: Signal, limit: Duration) {
    let (mut client, _line) = busy("hangs");
    client.signal(signal);
    assert_eq!(client.end().signal(), Some(signal as i32));
    waiting::until_gone(limit, || client.processes());
}

fn interrupted() {
    check_signal(Signal::SIGINT, seconds(1));
}

fn terminated() {
    check_signal(Signal::SIGTERM, seconds(1));
}

fn killed() {
    check_signal(Signal::SIGKILL, seconds(5));
}

fn killed_while_initializers_run() {
    let mut line = Line::new("pids");
    let mut client = Client::start("hangs in its initializer", &[&line.path()]);
    line.next_number();
    line.next_number();
    client.signal(Signal::SIGKILL);
    client.end();
    waiting::until_gone(seconds(5), || client.processes());
}

fn killed_at_any_moment() {
    for moment in 0..25 {
        let mut client = Client::start("opens pools", &[]);
        assert_eq!(client.line(), "ready");
        // No event to wait for: any moment is meant.
        std::thread::sleep(millis(moment) / 2);
        client.signal(Signal::SIGKILL);
        client.end();
        waiting::until_gone(seconds(5), || client.processes());
    }
}

fn exits_with_a_pool_open() {
    let (mut client, _line) = busy("exits");
    client.go_on();
    assert_eq!(client.end().code(), Some(5));
    waiting::until_gone(seconds(5), || client.processes());
}

fn panics_with_a_pool_open() {
    let (mut client, _line) = busy("panics");
    client.go_on();
    assert_eq!(client.end().code(), Some(101));
    waiting::until_gone(seconds(1), || client.processes());
}

fn forgets_its_pool() {
    let (mut client, _line) = busy("forgets its pool");
    client.go_on();
    assert_eq!(client.end().code(), Some(0));
    waiting::until_gone(seconds(5), || client.processes());
}

/// Then only the kernel is left to end the workers; processes that tasks have left are nobody's any more.
fn the_fork_server_is_killed_together_with_the_client() {
    let mut line = Line::new("pids");
    let mut client = Client::start("hangs in its initializer", &[&line.path()]);
    let workers = [line.next_number(), line.next_number()];
    let fork_server = processes::Process::of(workers[0]).unwrap().parent;
    processes::send(fork_server, Signal::SIGKILL).unwrap();
    client.signal(Signal::SIGKILL);
    client.end();
    waiting::until_gone(seconds(5), || client.processes());
}
