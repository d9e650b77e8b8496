//! Clients that end abruptly: nothing that they started survives them.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use farpool_testkit::processes;
use farpool_testkit::waiting;
use nix::sys::signal::Signal;

use crate::failures::checks::{millis, seconds};
use crate::failures::client::Client;
use crate::report_pipe::ReportPipe;

crate::runner::cases![
    interrupted,
    terminated,
    killed,
    killed_while_initializers_run,
    killed_at_any_moment,
    exits_with_a_pool_open,
    panics_with_a_pool_open,
    leaks_its_pool,
    the_fork_server_is_killed_together_with_the_client,
];

/// Starts a client whose workers spin, ignore SIGTERM, are stopped, or sleep, and have left processes behind.
fn busy(scenario: &str) -> (Client, ReportPipe) {
    let mut line = ReportPipe::new("pids");
    let client = Client::start(scenario, &[&line.path()]);
    for _ in 0..4 {
        line.next_number();
    }
    // The client, its fork server, four workers, and what three of their tasks have left behind.
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
    let mut line = ReportPipe::new("pids");
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
        // There is no event to wait for: it may be any moment.
        std::thread::sleep(millis(moment) / 2);
        client.signal(Signal::SIGKILL);
        client.end();
        waiting::until_gone(seconds(5), || client.processes());
    }
}

fn exits_with_a_pool_open() {
    let (mut client, _line) = busy("exits");
    client.resume();
    assert_eq!(client.end().code(), Some(5));
    waiting::until_gone(seconds(5), || client.processes());
}

fn panics_with_a_pool_open() {
    let (mut client, _line) = busy("panics");
    client.resume();
    assert_eq!(client.end().code(), Some(101));
    waiting::until_gone(seconds(1), || client.processes());
}

fn leaks_its_pool() {
    let (mut client, _line) = busy("forgets its pool");
    client.resume();
    assert_eq!(client.end().code(), Some(0));
    waiting::until_gone(seconds(5), || client.processes());
}

/// Then only the kernel can end the workers. Processes that tasks have left behind survive.
fn the_fork_server_is_killed_together_with_the_client() {
    let mut line = ReportPipe::new("pids");
    let mut client = Client::start("hangs in its initializer", &[&line.path()]);
    let workers = [line.next_number(), line.next_number()];
    let fork_server = processes::Process::of(workers[0]).unwrap().parent;
    processes::send(fork_server, Signal::SIGKILL).unwrap();
    client.signal(Signal::SIGKILL);
    client.end();
    waiting::until_gone(seconds(5), || client.processes());
}
