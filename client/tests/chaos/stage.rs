//! The cluster and its clients, all of them processes.

mod mishaps;

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
use crate::diary::Diary;
use crate::disk::{Disk, JOURNAL_SIZE};
use crate::hosts::{self, Host};
use mishaps::Mend;

const AGENTS: usize = 4;
const CLIENTS: usize = 2;
const SLOTS: &str = "3";
/// So long an agent may take to leave while nobody lets it rest.
const FAREWELL: Duration = Duration::from_secs(90);

pub(crate) struct Stage {
    pub(crate) diary: Diary,
    folder: PathBuf,
    tag: String,
    port: u16,
    disk: Disk,
    /// Something was left behind the end of the journal.
    torn: bool,
    pub(crate) coordinator: Daemon,
    pub(crate) agents: Vec<Daemon>,
    pub(crate) clients: Vec<Daemon>,
    /// Agents that were told to leave, and when.
    leaving: Vec<(Daemon, Instant)>,
    visitors: u64,
    visitor: Option<Daemon>,
    /// How agents, and behind them clients, reach the coordinator.
    ways: Vec<Way>,
    cables: Vec<Cable>,
    hosts: Vec<Host>,
    mends: Vec<(Instant, Mend)>,
}

#[derive(Clone, Copy)]
enum Way {
    Cable(usize),
    Host(usize),
}

impl Stage {
    pub(crate) fn build(folder: &Path, seed: u64, diary: Diary) -> Stage {
        let tag = format!("chaos.{}", hosts::run_number());
        // Below those that the system gives to whoever connects.
        let port = if hosts::is_apart() { 7070 } else { 20_000 + (hosts::run_number() % 10_000) as u16 };
        let target = SocketAddr::from(([127, 0, 0, 1], port));
        let (mut ways, mut cables, mut hosts) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..AGENTS + CLIENTS {
            if hosts::is_apart() && number % 2 == 1 {
                ways.push(Way::Host(hosts.len()));
                hosts.push(Host::new(hosts.len() + 1));
            } else {
                ways.push(Way::Cable(cables.len()));
                cables.push(Cable::to(target));
            }
        }
        let disk = Disk::at(folder.join("disk"));
        let mut coordinator = start_coordinator(folder, &tag, port, &disk);
        coordinator.wait_for("listening address=");
        let mut stage = Stage {
            diary,
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
            ways,
            cables,
            hosts,
            mends: Vec::new(),
        };
        stage.agents = (0..AGENTS).map(|agent| stage.start_agent(agent)).collect();
        stage.clients = (0..CLIENTS).map(|number| stage.start_client(number, seed)).collect();
        stage
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

    /// Where this process reaches the coordinator.
    pub(crate) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All processes of the cluster and of its clients.
    pub(crate) fn processes(&self) -> Vec<Process> {
        processes::tagged(&self.tag)
    }

    /// Whether all that should be there is there.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        for client in &mut self.clients {
            if let Some(status) = client.ended() {
                return Err(format!("{} ended with {status}; it said:\n{}", client.name(), client.tail()));
            }
        }
        self.disk.check()?;
        if self.is_well(&[Mend::CoordinatorStarts]).is_some() {
            is_there(&mut self.coordinator)?;
        }
        for agent in 0..self.agents.len() {
            if self.is_well(&[Mend::AgentStarts(agent)]).is_some() {
                is_there(&mut self.agents[agent])?;
            }
        }
        for (agent, since) in &mut self.leaving {
            if agent.ended().map_or(since.elapsed() > FAREWELL, |status| !status.success()) {
                return Err(format!("{} does not leave as it should; it said:\n{}", agent.name(), agent.tail()));
            }
        }
        self.leaving.retain_mut(|(agent, _)| agent.ended().is_none());
        Ok(())
    }

    /// Waits until those that were told to leave have left.
    pub(crate) fn see_off(&mut self) -> Result<(), String> {
        while !self.leaving.is_empty() {
            self.check()?;
            std::thread::sleep(crate::BEAT);
        }
        Ok(())
    }

    /// Kills the coordinator, and starts another one.
    pub(crate) fn restart_coordinator(&mut self) {
        self.coordinator.kill();
        self.start_coordinator();
    }

    /// Has what the journal consists of outlive the test.
    pub(crate) fn keep_journal(&self) {
        self.disk.keep(&self.folder.join("journal"));
    }

    /// Whoever looks after the coordinator is told that something was behind the end of its journal.
    pub(crate) fn has_warned_of_torn_journals(&self) -> Result<(), String> {
        match self.torn && !self.has_any_coordinator_said("It is cut off there") {
            true => Err("the journal was torn, and no coordinator has warned of it".to_owned()),
            false => Ok(()),
        }
    }

    fn has_any_coordinator_said(&self, words: &str) -> bool {
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
        let program = std::env::current_exe().expect("the program knows where it is");
        let mut command = self.command(AGENTS + number, &program);
        let folder = text(self.folder.join(&name));
        fs::create_dir_all(&folder).expect("the test's folder can be written");
        client::settings(&mut command, &self.seen_by(AGENTS + number), seed.wrapping_add(number as u64), &folder);
        Daemon::start_with_log(&name, command, &self.folder)
    }

    fn command(&self, number: usize, program: &Path) -> Command {
        let mut command = match self.ways[number] {
            Way::Cable(_) => Command::new(program),
            Way::Host(host) => self.hosts[host].command(program),
        };
        command.env(TAG, &self.tag).env_remove("FARPOOL_ADDRESS").env_remove("RUST_BACKTRACE").stdin(Stdio::piped());
        command
    }

    fn seen_by(&self, number: usize) -> String {
        match self.ways[number] {
            Way::Cable(cable) => self.cables[cable].address(),
            Way::Host(host) => self.hosts[host].coordinator(self.port),
        }
    }

    /// Who is at the end of it.
    fn behind(&self, way: Way) -> String {
        let same = |other: &Way| match (way, other) {
            (Way::Cable(one), Way::Cable(other)) | (Way::Host(one), Way::Host(other)) => one == *other,
            _ => false,
        };
        match self.ways.iter().position(same) {
            Some(number) if number < AGENTS => format!("agent-{number}"),
            Some(number) => format!("client-{}", number - AGENTS),
            None => String::new(),
        }
    }
}

impl Drop for Stage {
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
    let listen = if hosts::is_apart() { format!("0.0.0.0:{port}") } else { format!("127.0.0.1:{port}") };
    let mut command = Command::new(binaries::coordinator());
    command.env(TAG, tag).env_remove("FARPOOL_ADDRESS").stdin(Stdio::piped());
    command.args(["--listen", &listen, "--insecure", "--heartbeat-timeout", "2s", "--reconnect-grace", "1s"]);
    command.arg("--programs").arg(folder.join("programs/coordinator"));
    command.arg("--journal").arg(disk.journal()).args(["--journal-size", &JOURNAL_SIZE.to_string()]);
    Daemon::start_with_log("coordinator", command, folder)
}

fn is_there(daemon: &mut Daemon) -> Result<(), String> {
    match daemon.ended() {
        None => Ok(()),
        Some(status) => Err(format!("{} ended with {status}; it said:\n{}", daemon.name(), daemon.tail())),
    }
}
