//! The cluster and its clients, all of them processes, and how each fault is done to them and mended.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::cable::Cable;
use crate::daemon::Daemon;
use crate::diary::Diary;
use crate::disk::{Disk, JOURNAL_SIZE};
use crate::faults::Fault;
use crate::hosts::{self, Host};
use crate::processes::{self, Process, TAG};
use crate::{binaries, client, text, visitor};

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

/// What is mended later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mend {
    WorkerGoesOn(u32),
    AgentStarts(usize),
    AgentGoesOn(usize),
    CoordinatorStarts,
    CoordinatorGoesOn,
    CablePlugged(usize),
    CableSpeaks(usize),
    LinkUp(usize),
    DiskHasRoom,
    VisitorKilled,
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
        coordinator.wait_for("listening on ");
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

    /// Fork servers: what agents have started, those that are gone included.
    fn fork_servers(&self) -> Vec<Process> {
        let daemons = self.agents.iter().chain(self.leaving.iter().map(|(agent, _)| agent)).map(Daemon::pid);
        let daemons: Vec<u32> = daemons.collect();
        self.processes().into_iter().filter(|process| daemons.contains(&process.parent)).collect()
    }

    fn workers(&self) -> Vec<Process> {
        let parents: Vec<u32> = self.fork_servers().iter().map(|process| process.pid).collect();
        self.processes()
            .into_iter()
            .filter(|process| parents.contains(&process.parent) && process.state != 'Z')
            .collect()
    }

    /// Does it, unless that makes no sense at the time.
    pub(crate) fn suffer(&mut self, fault: Fault) {
        let Some((kind, what)) = self.inflict(fault) else { return };
        self.diary.count(kind);
        self.diary.note(format_args!("{what}: {fault:?}"));
    }

    fn inflict(&mut self, fault: Fault) -> Option<(&'static str, String)> {
        match fault {
            Fault::WorkerKilled { which } => {
                let worker = pick(self.workers(), which)?;
                let _ = processes::send(worker.pid, Signal::SIGKILL);
                Some(("workers killed", format!("worker {}", worker.pid)))
            }
            Fault::WorkerStopped { which, pause } => {
                let worker = pick(self.workers(), which)?;
                let _ = processes::send(worker.pid, Signal::SIGSTOP);
                self.mend_after(pause, Mend::WorkerGoesOn(worker.pid));
                Some(("workers stopped", format!("worker {}", worker.pid)))
            }
            Fault::ForkServerKilled { which } => {
                let fork_server = pick(self.fork_servers(), which)?;
                let _ = processes::send(fork_server.pid, Signal::SIGKILL);
                Some(("fork servers killed", format!("fork server {}", fork_server.pid)))
            }
            Fault::AgentKilled { agent, pause } => {
                self.is_well(&[Mend::AgentStarts(agent), Mend::AgentGoesOn(agent)])?;
                self.agents[agent].kill();
                self.mend_after(pause, Mend::AgentStarts(agent));
                Some(("agents killed", self.agents[agent].name().to_owned()))
            }
            Fault::AgentStopped { agent, pause } => {
                self.is_well(&[Mend::AgentStarts(agent), Mend::AgentGoesOn(agent)])?;
                self.agents[agent].signal(Signal::SIGSTOP);
                self.mend_after(pause, Mend::AgentGoesOn(agent));
                Some(("agents stopped", self.agents[agent].name().to_owned()))
            }
            Fault::AgentLeaves { agent } => {
                self.is_well(&[Mend::AgentStarts(agent), Mend::AgentGoesOn(agent)])?;
                // One that is told before it can listen just ends.
                if Process::of(self.agents[agent].pid())?.name != "farpool-agent" {
                    return None;
                }
                self.agents[agent].signal(Signal::SIGTERM);
                let other = self.start_agent(agent);
                let left = std::mem::replace(&mut self.agents[agent], other);
                let name = left.name().to_owned();
                self.leaving.push((left, Instant::now()));
                Some(("agents drained", name))
            }
            Fault::CoordinatorKilled { pause, torn } => {
                self.is_well(&[Mend::CoordinatorStarts, Mend::CoordinatorGoesOn])?;
                self.coordinator.kill();
                // It cannot be while the disk is full.
                if torn.is_some_and(|which| self.disk.tear(which).is_ok()) {
                    self.torn = true;
                    self.diary.count("journals torn");
                }
                self.mend_after(pause, Mend::CoordinatorStarts);
                Some(("coordinators killed", "coordinator".to_owned()))
            }
            Fault::CoordinatorStopped { pause } => {
                self.is_well(&[Mend::CoordinatorStarts, Mend::CoordinatorGoesOn])?;
                self.coordinator.signal(Signal::SIGSTOP);
                self.mend_after(pause, Mend::CoordinatorGoesOn);
                Some(("coordinators stopped", "coordinator".to_owned()))
            }
            Fault::CableCut { cable } => {
                self.cables[cable].cut();
                Some(("cables cut", self.behind(Way::Cable(cable))))
            }
            Fault::CableUnplugged { cable, pause } => {
                self.is_well(&[Mend::CablePlugged(cable), Mend::CableSpeaks(cable)])?;
                self.cables[cable].unplug();
                self.mend_after(pause, Mend::CablePlugged(cable));
                Some(("cables unplugged", self.behind(Way::Cable(cable))))
            }
            Fault::CableSilent { cable, pause } => {
                self.is_well(&[Mend::CablePlugged(cable), Mend::CableSpeaks(cable)])?;
                self.cables[cable].silence(true);
                self.mend_after(pause, Mend::CableSpeaks(cable));
                Some(("cables silent", self.behind(Way::Cable(cable))))
            }
            Fault::CableHalfOpen { cable, coordinator_learns } => {
                self.cables[cable].half_open(coordinator_learns);
                Some(("cables half open", self.behind(Way::Cable(cable))))
            }
            Fault::LinkDown { link, pause } => {
                self.is_well(&[Mend::LinkUp(link)])?;
                self.hosts[link].set_link(false);
                self.mend_after(pause, Mend::LinkUp(link));
                Some(("links down", self.behind(Way::Host(link))))
            }
            Fault::DiskFull { pause } => {
                self.is_well(&[Mend::DiskHasRoom])?;
                self.disk.fill().then_some(())?;
                self.mend_after(pause, Mend::DiskHasRoom);
                Some(("disks full", "coordinator".to_owned()))
            }
            Fault::VisitorKilled { pause } => {
                self.is_well(&[Mend::VisitorKilled])?;
                self.visitors += 1;
                let folder = text(self.folder.clone());
                let mut command = visitor::command(self.visitors, &self.address(), &self.tag, &folder);
                command.current_dir(&self.folder);
                self.visitor = Some(Daemon::start(&format!("visitor-{}", self.visitors), command, &self.folder));
                self.mend_after(pause + Duration::from_millis(300), Mend::VisitorKilled);
                Some(("clients killed", "visitor".to_owned()))
            }
        }
    }

    /// Whether none of these is still to be mended.
    fn is_well(&self, mends: &[Mend]) -> Option<()> {
        (!self.mends.iter().any(|(_, mend)| mends.contains(mend))).then_some(())
    }

    fn mend_after(&mut self, pause: Duration, mend: Mend) {
        self.mends.push((Instant::now() + pause, mend));
    }

    pub(crate) fn mend_what_is_due(&mut self, now: Instant) {
        let (due, later) = std::mem::take(&mut self.mends).into_iter().partition(|(at, _)| *at <= now);
        self.mends = later;
        for (_, mend) in due {
            self.mend(mend);
        }
    }

    /// What is still wrong is so no more.
    pub(crate) fn mend_everything(&mut self) {
        for (_, mend) in std::mem::take(&mut self.mends) {
            self.mend(mend);
        }
        self.diary.note("everything is mended");
    }

    fn mend(&mut self, mend: Mend) {
        match mend {
            // Somebody else may have got its number, and does not mind.
            Mend::WorkerGoesOn(pid) => drop(processes::send(pid, Signal::SIGCONT)),
            Mend::AgentStarts(agent) => self.agents[agent] = self.start_agent(agent),
            Mend::AgentGoesOn(agent) => self.agents[agent].signal(Signal::SIGCONT),
            Mend::CoordinatorStarts => self.start_coordinator(),
            Mend::CoordinatorGoesOn => self.coordinator.signal(Signal::SIGCONT),
            Mend::CablePlugged(cable) => self.cables[cable].plug(),
            Mend::CableSpeaks(cable) => self.cables[cable].silence(false),
            Mend::LinkUp(link) => self.hosts[link].set_link(true),
            Mend::DiskHasRoom => self.disk.clear(),
            Mend::VisitorKilled => self.visitor = None,
        }
        self.diary.note(format_args!("mended: {mend:?}"));
    }

    /// Whether all that should be there is there.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        for client in &mut self.clients {
            if let Some(status) = client.ended() {
                return Err(format!("{} ended with {status}; it said:\n{}", client.name(), client.said()));
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
                return Err(format!("{} does not leave as it should; it said:\n{}", agent.name(), agent.said()));
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
        match self.torn && !self.coordinator.has_said("It is cut off there") {
            true => Err("the journal was torn, and no coordinator has warned of it".to_owned()),
            false => Ok(()),
        }
    }

    fn start_coordinator(&mut self) {
        self.coordinator = start_coordinator(&self.folder, &self.tag, self.port, &self.disk);
    }

    fn start_agent(&self, agent: usize) -> Daemon {
        let mut command = self.command(agent, &binaries::agent());
        command.args(["--coordinator", &self.seen_by(agent), "--slots", SLOTS, "--host", &format!("agent-{agent}")]);
        command.args(["--heartbeat-timeout", "2s", "--orphan-timeout", "20s", "--insecure", "--programs"]);
        command.arg(self.folder.join("programs/agents"));
        Daemon::start(&format!("agent-{agent}"), command, &self.folder)
    }

    fn start_client(&self, number: usize, seed: u64) -> Daemon {
        let name = format!("client-{number}");
        let program = std::env::current_exe().expect("the program knows where it is");
        let mut command = self.command(AGENTS + number, &program);
        let folder = text(self.folder.join(&name));
        fs::create_dir_all(&folder).expect("the test's folder can be written");
        client::settings(&mut command, &self.seen_by(AGENTS + number), seed.wrapping_add(number as u64), &folder);
        Daemon::start(&name, command, &self.folder)
    }

    fn command(&self, number: usize, program: &Path) -> Command {
        let mut command = match self.ways[number] {
            Way::Cable(_) => Command::new(program),
            Way::Host(host) => self.hosts[host].command(program),
        };
        command.env(TAG, &self.tag).env_remove("FARPOOL_ADDRESS").env_remove("RUST_BACKTRACE");
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
    command.env(TAG, tag).env_remove("FARPOOL_ADDRESS");
    command.args(["--listen", &listen, "--insecure", "--heartbeat-timeout", "2s", "--reconnect-grace", "1s"]);
    command.arg("--programs").arg(folder.join("programs/coordinator"));
    command.arg("--journal").arg(disk.journal()).args(["--journal-size", &JOURNAL_SIZE.to_string()]);
    Daemon::start("coordinator", command, folder)
}

fn is_there(daemon: &mut Daemon) -> Result<(), String> {
    match daemon.ended() {
        None => Ok(()),
        Some(status) => Err(format!("{} ended with {status}; it said:\n{}", daemon.name(), daemon.said())),
    }
}

fn pick(mut among: Vec<Process>, which: u64) -> Option<Process> {
    among.sort_by_key(|process| process.pid);
    let at = which.checked_rem(among.len() as u64)?;
    Some(among.swap_remove(at as usize))
}
