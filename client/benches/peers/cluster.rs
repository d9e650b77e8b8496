//! A coordinator and its agents on this machine, as separate processes.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use farpool_testkit::binaries;
use farpool_testkit::cluster::{ADDRESS, CONNECTED, LISTENS};
use farpool_testkit::daemon::Daemon;
use farpool_testkit::folder::Folder;
use farpool_testkit::port::Port;
use nix::sys::signal::Signal;

/// A running cluster. Dropping it ends its daemons.
pub(crate) struct Cluster {
    agents: Vec<Daemon>,
    coordinator: Daemon,
    address: String,
    /// The daemons' program folders: each agent represents a host, so each has its own.
    _programs: Folder,
}

impl Cluster {
    /// Starts this many agents, each with this many slots.
    pub(crate) fn start(agents: usize, slots: usize) -> Cluster {
        let (programs, port) = (Folder::new("bench"), Port::reserve());
        let mut command = daemon(&binaries::coordinator());
        command.args(["--listen", &port.address().to_string(), "--programs"]).arg(programs.path().join("coordinator"));
        let coordinator = start("coordinator", command, LISTENS);
        let agent = |number: usize| {
            let mut command = daemon(&binaries::agent());
            command.args(["--coordinator", &port.url(), "--slots", &slots.to_string(), "--programs"]);
            command.arg(programs.path().join(format!("agent-{number}")));
            start("agent", command, CONNECTED)
        };
        let agents = (0..agents).map(agent).collect();
        Cluster { agents, coordinator, address: port.url(), _programs: programs }
    }

    /// Returns the address for clients.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for daemon in self.agents.iter_mut().chain([&mut self.coordinator]) {
            daemon.signal(Signal::SIGTERM);
            // A daemon that does not exit in time is killed.
            let _ = daemon.wait(Duration::from_secs(1));
        }
    }
}

fn daemon(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_remove(ADDRESS).stdin(Stdio::null());
    command
}

/// Starts a daemon; returns when it has written a line with these words.
fn start(name: &str, command: Command, words: &str) -> Daemon {
    let mut daemon = Daemon::start(name, command);
    daemon.wait_for(words);
    daemon
}
