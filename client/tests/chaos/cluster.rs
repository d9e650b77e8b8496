//! The cluster and its clients, all of them processes.

mod injection;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use farpool_testkit::binaries;
use farpool_testkit::cable::Cable;
use farpool_testkit::daemon::{self, Daemon};
use farpool_testkit::folder::text;
use farpool_testkit::processes::{self, Process, TAG};

use crate::client;
use crate::disk::{Disk, JOURNAL_SIZE};
use crate::fault_log::FaultLog;
use crate::hosts::{self, Host};
use injection::Repair;

const AGENTS: usize = 4;
const CLIENTS: usize = 2;
const SLOTS: &str = "3";
/// How long an agent may take to leave while faults continue.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(90);

pub(crate) struct Cluster {
    pub(crate) fault_log: FaultLog,
    folder: PathBuf,
    tag: String,
    port: u16,
    disk: Disk,
    /// There was garbage after the end of a journal.
    torn: bool,
    pub(crate) coordinator: Daemon,
    pub(crate) agents: Vec<Daemon>,
    pub(crate) clients: Vec<Daemon>,
    /// Agents that were asked to leave, and when.
    leaving: Vec<(Daemon, Instant)>,
    visitors: u64,
    visitor: Option<Daemon>,
    /// How agents, and after them clients, reach the coordinator.
    connections: Vec<Connection>,
    cables: Vec<Cable>,
    hosts: Vec<Host>,
    repairs: Vec<(Instant, Repair)>,
}

#[derive(Clone, Copy)]
enum Connection {
    Cable(usize),
    Host(usize),
}

impl Cluster {
    pub(crate) fn build(folder: &Path, seed: u64, fault_log: FaultLog) -> Cluster {
        let tag = format!("chaos.{}", hosts::run_number());
        // Below the system's ephemeral ports.
        let port = if hosts::is_isolated() { 7070 } else { 20_000 + (hosts::run_number() % 10_000) as u16 };
        let target = SocketAddr::from(([127, 0, 0, 1], port));
        let (mut connections, mut cables, mut hosts) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..AGENTS + CLIENTS {
            if hosts::is_isolated() && number % 2 == 1 {
                connections.push(Connection::Host(hosts.len()));
                hosts.push(Host::new(hosts.len() + 1));
            } else {
                connections.push(Connection::Cable(cables.len()));
                cables.push(Cable::to(target));
            }
        }
        let disk = Disk::at(folder.join("disk"));
        let mut coordinator = start_coordinator(folder, &tag, port, &disk);
        coordinator.wait_for("listening address=");
        let mut cluster = Cluster {
            fault_log,
            folder: folder.to_owned(),
            tag,
            port,
            disk,
            torn: false,
            coordinator,
            agents: Vec::new(),
            clients: Vec::new(),
            leaving: Vec::new(),
            visitors: 0,
            visitor: None,
            connections,
            cables,
            hosts,
            repairs: Vec::new(),
        };
        cluster.agents = (0..AGENTS).map(|agent| cluster.start_agent(agent)).collect();
        cluster.clients = (0..CLIENTS).map(|number| cluster.start_client(number, seed)).collect();
        cluster
    }

    pub(crate) fn agents(&self) -> usize {
        self.agents.len()
    }

    pub(crate) fn cables(&self) -> usize {
        self.cables.len()
    }

    pub(crate) fn links(&self) -> usize {
        self.hosts.len()
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the coordinator's address for this process.
    pub(crate) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns all processes of the cluster and of its clients.
    pub(crate) fn processes(&self) -> Vec<Process> {
        processes::tagged(&self.tag)
    }

    /// Checks that all processes that should run do.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        for client in &mut self.clients {
            if let Some(status) = client.ended() {
                return Err(format!("{} ended with {status}; its output:\n{}", client.name(), client.tail()));
            }
        }
        self.disk.check()?;
        if self.none_pending(&[Repair::StartCoordinator]).is_some() {
            check_alive(&mut self.coordinator)?;
        }
        for agent in 0..self.agents.len() {
            if self.none_pending(&[Repair::StartAgent(agent)]).is_some() {
                check_alive(&mut self.agents[agent])?;
            }
        }
        for (agent, since) in &mut self.leaving {
            if agent.ended().map_or(since.elapsed() > LEAVE_TIMEOUT, |status| !status.success()) {
                return Err(format!("{} does not leave as it should; its output:\n{}", agent.name(), agent.tail()));
            }
        }
        self.leaving.retain_mut(|(agent, _)| agent.ended().is_none());
        Ok(())
    }

    /// Waits until agents that were asked to leave have left.
    pub(crate) fn wait_for_leaving_agents(&mut self) -> Result<(), String> {
        while !self.leaving.is_empty() {
            self.check()?;
            std::thread::sleep(crate::POLL_INTERVAL);
        }
        Ok(())
    }

    /// Kills the coordinator, and starts another one.
    pub(crate) fn restart_coordinator(&mut self) {
        self.coordinator.kill();
        self.start_coordinator();
    }

    /// Copies the journal to where it outlives the test.
    pub(crate) fn keep_journal(&self) {
        self.disk.keep(&self.folder.join("journal"));
    }

    /// Checks that a coordinator has warned of garbage after the end of its journal.
    pub(crate) fn check_torn_journal_warning(&self) -> Result<(), String> {
        match self.torn && !self.has_any_coordinator_logged("It is cut off there") {
            true => Err("the journal was torn, and no coordinator has warned of it".to_owned()),
            false => Ok(()),
        }
    }

    fn has_any_coordinator_logged(&self, words: &str) -> bool {
        fs::read_to_string(daemon::log(self.coordinator.name(), &self.folder)).is_ok_and(|log| log.contains(words))
    }

    fn start_coordinator(&mut self) {
        self.coordinator = start_coordinator(&self.folder, &self.tag, self.port, &self.disk);
    }

    fn start_agent(&self, agent: usize) -> Daemon {
        let mut command = self.command(agent, &binaries::agent());
        command.args(["--coordinator", &self.seen_by(agent), "--slots", SLOTS, "--host", &format!("agent-{agent}")]);
        command.args(["--heartbeat-timeout", "2s", "--orphan-timeout", "20s", "--insecure", "--programs"]);
        command.arg(self.folder.join("programs/agents"));
        Daemon::start_with_log(&format!("agent-{agent}"), command, &self.folder)
    }

    fn start_client(&self, number: usize, seed: u64) -> Daemon {
        let name = format!("client-{number}");
        let program = std::env::current_exe().expect("cannot find this program's path");
        let mut command = self.command(AGENTS + number, &program);
        let folder = text(self.folder.join(&name));
        fs::create_dir_all(&folder).expect("cannot write the test's folder");
        client::settings(&mut command, &self.seen_by(AGENTS + number), seed.wrapping_add(number as u64), &folder);
        Daemon::start_with_log(&name, command, &self.folder)
    }

    fn command(&self, number: usize, program: &Path) -> Command {
        let mut command = match self.connections[number] {
            Connection::Cable(_) => Command::new(program),
            Connection::Host(host) => self.hosts[host].command(program),
        };
        command.env(TAG, &self.tag).env_remove("FARPOOL_ADDRESS").env_remove("RUST_BACKTRACE").stdin(Stdio::piped());
        command
    }

    fn seen_by(&self, number: usize) -> String {
        match self.connections[number] {
            Connection::Cable(cable) => self.cables[cable].address(),
            Connection::Host(host) => self.hosts[host].coordinator(self.port),
        }
    }

    /// Returns the process at the end of a connection.
    fn peer_name(&self, connection: Connection) -> String {
        let same = |other: &Connection| match (connection, other) {
            (Connection::Cable(one), Connection::Cable(other)) | (Connection::Host(one), Connection::Host(other)) => {
                one == *other
            }
            _ => false,
        };
        match self.connections.iter().position(same) {
            Some(number) if number < AGENTS => format!("agent-{number}"),
            Some(number) => format!("client-{}", number - AGENTS),
            None => String::new(),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.clients.clear();
        self.visitor = None;
        self.agents.clear();
        self.leaving.clear();
        self.coordinator.kill();
        processes::kill(&processes::tagged(&self.tag));
    }
}

fn start_coordinator(folder: &Path, tag: &str, port: u16, disk: &Disk) -> Daemon {
    let listen = if hosts::is_isolated() { format!("0.0.0.0:{port}") } else { format!("127.0.0.1:{port}") };
    let mut command = Command::new(binaries::coordinator());
    command.env(TAG, tag).env_remove("FARPOOL_ADDRESS").stdin(Stdio::piped());
    command.args(["--listen", &listen, "--insecure", "--heartbeat-timeout", "2s", "--reconnect-grace", "1s"]);
    command.arg("--programs").arg(folder.join("programs/coordinator"));
    command.arg("--journal").arg(disk.journal()).args(["--journal-size", &JOURNAL_SIZE.to_string()]);
    Daemon::start_with_log("coordinator", command, folder)
}

fn check_alive(daemon: &mut Daemon) -> Result<(), String> {
    match daemon.ended() {
        None => Ok(()),
        Some(status) => Err(format!("{} ended with {status}; its output:\n{}", daemon.name(), daemon.tail())),
    }
}
