//! The end of an agent: stopped or killed.

use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::pools::host::{Event, Gate, Host, is_alive};

crate::pools::cases![all_pools_are_stopped_at_once, nothing_survives_an_agent_that_is_killed];

/// The variable that makes this program run as an agent with two pools. Its value is the gate at which their workers wait.
pub(crate) const AGENT_VARIABLE: &str = "FARPOOL_TEST_AGENT";

fn all_pools_are_stopped_at_once() {
    let (mut host, gate) = (Host::new(3), Gate::new("never-said"));
    for pool in [1, 2, 3] {
        host.pool(pool);
        host.assign(pool, [&format!("hear {}", gate.path()), "echo never"]);
        host.wait_for_output(pool, "listening");
    }
    let pids: Vec<_> = host.events.iter().filter_map(pid_of).collect();
    assert!(pids.len() >= 3 && pids.iter().all(|pid| is_alive(pid)));
    let began = std::time::Instant::now();
    host.end();
    assert!(began.elapsed() < std::time::Duration::from_secs(5));
    assert!(pids.iter().all(|pid| !is_alive(pid)));
}

fn pid_of(event: &Event) -> Option<String> {
    match event {
        Event::Output(output) => Some(output.pid.to_string()),
        _ => None,
    }
}

fn nothing_survives_an_agent_that_is_killed() {
    let gate = Gate::new("never-opened");
    let mut agent = Command::new(std::env::current_exe().unwrap())
        .env(AGENT_VARIABLE, gate.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(agent.stdout.take().unwrap()).lines();
    let workers = [0; 2].map(|_| {
        let pid = lines.next().unwrap().unwrap();
        assert!(is_alive(&pid));
        pidfd_open(pid.parse().unwrap())
    });
    agent.kill().unwrap();
    agent.wait().unwrap();
    for worker in workers {
        let mut ended = [PollFd::new(worker.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut ended, PollTimeout::from(5000_u16)), Ok(1), "a worker is left behind");
    }
}

/// Starts two pools, prints the process id of a worker of each, and drives them for longer than the test takes.
pub(crate) fn run_agent(gate: &str) {
    let mut host = Host::new(2);
    for pool in [1, 2] {
        host.pool(pool);
        // An idle worker might end to make room for one of the other pool.
        host.assign(pool, [&format!("hear {gate}")]);
        host.wait_for_output(pool, "listening");
        println!("{}", host.events.iter().rev().find_map(pid_of).expect("the worker printed something"));
    }
    host.drive_for(std::time::Duration::from_secs(60));
}

fn pidfd_open(pid: i32) -> OwnedFd {
    // SAFETY: pidfd_open(2) takes two numbers and touches no memory of this process.
    let fd = nix::errno::Errno::result(unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_open, pid, 0) });
    let fd = i32::try_from(fd.expect("the process runs")).expect("a descriptor");
    // SAFETY: the kernel has just made this descriptor.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
