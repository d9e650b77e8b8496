//! A real cluster on this machine: a coordinator and agents as separate processes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::daemon::Daemon;
use crate::folder::Folder;
use crate::port::Port;
use crate::processes::{self, Process, TAG};
use crate::{binaries, waiting};

/// The variable that tells programs the cluster's address.
pub const ADDRESS: &str = "FARPOOL_ADDRESS";
/// The coordinator logs this when clients can connect.
pub const LISTENS: &str = "listening address=";
/// An agent logs this when it is connected.
pub const CONNECTED: &str = "connected to ";
/// How long a daemon may take to exit.
const PATIENCE: Duration = Duration::from_secs(20);

/// A coordinator and its agents. Dropping it kills them.
#[derive(Debug)]
pub struct Cluster {
    // Agents are dropped first.
    agents: Vec<Daemon>,
    coordinator: Daemon,
    port: Port,
    address: String,
    /// The folder for the daemons' programs.
    programs: PathBuf,
    tag: String,
    /// The coordinator's arguments.
    arguments: Vec<String>,
    _folder: Option<Folder>,
}

impl Cluster {
    /// Starts a coordinator on its own port, with these extra arguments and without agents. Its processes carry the tag; programs
    /// are kept in this folder.
    pub fn start(tag: &str, programs: &Path, arguments: &[&str]) -> Cluster {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let port = Port::reserve();
        let coordinator = start_coordinator(tag, programs, &port, &arguments);
        let (address, programs, tag) = (port.url(), programs.to_owned(), tag.to_owned());
        Cluster { agents: Vec::new(), coordinator, port, address, programs, tag, arguments, _folder: None }
    }

    /// Starts a cluster with a journal and this many agents (node1 and so on), each with this many slots.
    pub fn of(agents: usize, slots: usize) -> Cluster {
        static CLUSTERS: AtomicU32 = AtomicU32::new(0);
        let tag = format!("cluster.{}.{}", std::process::id(), CLUSTERS.fetch_add(1, Ordering::Relaxed));
        let folder = Folder::new("cluster");
        let mut cluster = Cluster::start(&tag, folder.path(), &["--journal", &folder.file("journal")]);
        let hosts: Vec<String> = (1..=agents).map(|number| format!("node{number}")).collect();
        let arguments: Vec<_> = hosts.iter().map(|host| ["--host", host]).collect();
        cluster.add_agents(slots, arguments.iter().map(|arguments| &arguments[..]));
        cluster._folder = Some(folder);
        cluster
    }

    /// Adds an agent with this many slots and these extra arguments. Returns its pid when it is connected.
    pub fn add_agent(&mut self, slots: usize, arguments: &[&str]) -> u32 {
        let address = self.address.clone();
        self.add_agent_through(&address, slots, arguments)
    }

    /// Adds an agent that finds the coordinator at another address. Returns its pid when it is connected.
    pub fn add_agent_through(&mut self, address: &str, slots: usize, arguments: &[&str]) -> u32 {
        let mut agent = self.launch(address, slots, arguments);
        agent.wait_for(CONNECTED);
        let pid = agent.pid();
        self.agents.push(agent);
        pid
    }

    /// Adds agents with this many slots, each with its own extra arguments. Returns when all are connected.
    pub fn add_agents<'a>(&mut self, slots: usize, all: impl IntoIterator<Item = &'a [&'a str]>) {
        let from = self.agents.len();
        for arguments in all {
            let agent = self.launch(&self.address, slots, arguments);
            self.agents.push(agent);
        }
        for agent in &mut self.agents[from..] {
            agent.wait_for(CONNECTED);
        }
    }

    fn launch(&self, address: &str, slots: usize, arguments: &[&str]) -> Daemon {
        let mut command = daemon(&binaries::agent(), &self.tag);
        command.args(["--coordinator", address, "--slots", &slots.to_string(), "--programs"]);
        command.arg(self.programs.join("agents")).args(arguments);
        Daemon::start("agent", command)
    }

    /// Kills the coordinator, as if its machine lost power.
    pub fn kill_coordinator(&mut self) {
        self.coordinator.kill();
    }

    /// Starts the coordinator again, at the same address.
    pub fn start_coordinator(&mut self) {
        self.coordinator = start_coordinator(&self.tag, &self.programs, &self.port, &self.arguments);
    }

    /// Kills the coordinator and starts it again.
    pub fn restart_coordinator(&mut self) {
        self.kill_coordinator();
        self.start_coordinator();
    }

    /// Returns the address for clients.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns the address without its scheme.
    pub fn socket(&self) -> SocketAddr {
        self.port.address()
    }

    /// Returns the coordinator's process id.
    pub fn coordinator(&self) -> u32 {
        self.coordinator.pid()
    }

    /// Sends a signal to the agent or coordinator with this pid.
    pub fn signal(&self, pid: u32, signal: Signal) {
        processes::send(pid, signal).expect("cannot signal the daemon");
    }

    /// Waits until this agent has exited.
    pub fn wait_for_agent(&mut self, pid: u32) {
        let at = self.agents.iter().position(|agent| agent.pid() == pid).expect("no agent with this pid");
        let mut agent = self.agents.swap_remove(at);
        agent.wait(Duration::MAX).expect("the agent did not exit");
    }

    /// Returns the processes that agents have started.
    pub fn workers(&self) -> Vec<Process> {
        let agents: Vec<u32> = self.agents.iter().map(Daemon::pid).collect();
        processes::every().filter(|process| agents.contains(&process.parent)).collect()
    }

    /// Ends all daemons as an operator would, after a case that should have left no worker. Fails if something is wrong.
    pub fn stop(mut self) -> Result<(), String> {
        let mut wrong = self.left_workers().err().unwrap_or_default();
        self.signal_all(Signal::SIGTERM);
        for daemon in self.agents.iter_mut().chain([&mut self.coordinator]) {
            wrong += &end(daemon);
        }
        let left = processes::tagged(&self.tag);
        if !left.is_empty() {
            wrong += &format!("the daemons have left processes:\n{}", processes::list(&left));
            processes::kill(&left);
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Checks that the cluster is as it was at its start: all daemons run, and no worker is left after at most a second.
    pub fn check_at_rest(&mut self) -> Result<(), String> {
        for daemon in self.agents.iter_mut().chain([&mut self.coordinator]) {
            if let Some(status) = daemon.ended() {
                return Err(format!("the {} has ended with {status}; its output:\n{}", daemon.name(), daemon.tail()));
            }
        }
        self.left_workers()
    }

    /// Fails if workers are left after a second, and names them.
    fn left_workers(&self) -> Result<(), String> {
        let left = waiting::left_after(Duration::from_secs(1), || self.workers());
        if left.is_empty() {
            return Ok(());
        }
        Err(format!("after a second there are still workers:\n{}", processes::list(&left)))
    }

    /// Ends all daemons, whatever they are doing, and checks that everything they started is gone.
    #[track_caller]
    pub fn end(mut self) {
        // The first signal lets running work finish, the second does not.
        for signal in [Signal::SIGTERM, Signal::SIGTERM, Signal::SIGKILL] {
            self.signal_all(signal);
            let daemons = self.agents.iter_mut().chain([&mut self.coordinator]);
            if daemons.map(|daemon| daemon.wait(Duration::from_secs(1))).all(|ended| ended.is_ok()) {
                break;
            }
        }
        waiting::until_gone(Duration::from_secs(10), || processes::tagged(&self.tag));
    }

    fn signal_all(&mut self, signal: Signal) {
        self.agents.iter_mut().chain([&mut self.coordinator]).for_each(|daemon| daemon.signal(signal));
    }
}

fn start_coordinator(tag: &str, programs: &Path, port: &Port, arguments: &[String]) -> Daemon {
    let mut command = daemon(&binaries::coordinator(), tag);
    command.args(["--listen", &port.address().to_string(), "--programs"]).arg(programs.join("coordinator"));
    command.args(arguments);
    let mut coordinator = Daemon::start("coordinator", command);
    coordinator.wait_for(LISTENS);
    coordinator
}

fn daemon(program: &Path, tag: &str) -> Command {
    let mut command = Command::new(program);
    command.env(TAG, tag).env_remove(ADDRESS).stdin(Stdio::null());
    command
}

/// Waits until a signalled daemon has exited. Returns what is wrong, or nothing.
fn end(daemon: &mut Daemon) -> String {
    match daemon.wait(PATIENCE) {
        Ok(status) if status.success() => String::new(),
        // The case may have killed it.
        Ok(_) if daemon.output().contains("SIGTERM") => String::new(),
        Ok(status) => format!("the {} ended with {status}; its output:\n{}", daemon.name(), daemon.output()),
        Err(wrong) => wrong,
    }
}
