//! Lists processes. Every process that a case starts has its tag in the environment, including workers and processes
//! that their tasks leave behind.

use std::env;
use std::fmt::Write;
use std::fs;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// The variable that holds the tag.
pub const TAG: &str = "FARPOOL_TEST_TAG";

/// A process as /proc shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its process id.
    pub pid: u32,
    /// Its parent's process id.
    pub parent: u32,
    /// As ps(1) shows it: R, S, T, Z ...
    pub state: char,
    /// Its name, truncated by the kernel.
    pub name: String,
    /// The kernel function that it sleeps in.
    asleep_in: String,
}

impl Process {
    /// Reads the process from /proc; `None` if it does not exist.
    pub fn of(pid: u32) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (head, tail) = stat.rsplit_once(')')?;
        let mut fields = tail.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let name = head.split_once('(')?.1.to_owned();
        let asleep_in = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
        Some(Process { pid, parent, state, name, asleep_in })
    }
}

/// Returns this process's tag.
pub fn own_tag() -> String {
    env::var(TAG).expect("the case has no tag")
}

/// Returns all processes with this tag or a tag below it.
pub fn tagged(tag: &str) -> Vec<Process> {
    let variable = format!("{TAG}={tag}");
    let carries = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environment.split(|&byte| byte == 0);
        variables.any(|other| matches!(other.strip_prefix(variable.as_bytes()), Some([] | [b'/', ..])))
    };
    all().filter(carries).filter_map(Process::of).collect()
}

/// Returns all processes of this machine.
pub fn every() -> impl Iterator<Item = Process> {
    all().filter_map(Process::of)
}

/// Returns the children of this process, including zombies.
pub fn children() -> Vec<Process> {
    let own = std::process::id();
    every().filter(|process| process.parent == own).collect()
}

/// Returns everything that this case has started, directly or not, and that still exists.
pub fn started_by_this_case() -> Vec<Process> {
    let own = std::process::id();
    let mut processes = children();
    for process in tagged(&own_tag()) {
        if process.pid != own && !processes.contains(&process) {
            processes.push(process);
        }
    }
    processes
}

/// Fails if anything that this process or its workers started still exists, without waiting.
pub fn assert_none_left() {
    let left = started_by_this_case();
    assert!(left.is_empty(), "processes are left behind:\n{}", list(&left));
}

/// Kills exactly these processes.
pub fn kill(processes: &[Process]) {
    for process in processes {
        // An error means that it has exited.
        let _ = send(process.pid, Signal::SIGKILL);
    }
}

/// Sends a signal to one process.
pub fn send(pid: u32, signal: Signal) -> nix::Result<()> {
    signal::kill(Pid::from_raw(i32::try_from(pid).expect("the pid is not positive")), signal)
}

/// Describes the processes, one per line.
pub fn list(processes: &[Process]) -> String {
    processes.iter().fold(String::new(), |mut lines, process| {
        let Process { pid, parent, state, name, asleep_in } = process;
        let _ = writeln!(lines, "    {pid} {name}, {state}, child of {parent}, in {asleep_in}");
        lines
    })
}

fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("cannot read /proc");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}
