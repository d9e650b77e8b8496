//! Injects each fault, and repairs it later.

use std::net::{Ipv4Addr, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use farpool_testkit::daemon::Daemon;
use farpool_testkit::folder::text;
use farpool_testkit::processes::{self, Process};
use nix::sys::signal::Signal;

use super::{Cluster, Connection};
use crate::faults::Fault;
use crate::visitor;

/// A repair that is due later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repair {
    ResumeWorker(u32),
    StartAgent(usize),
    ResumeAgent(usize),
    StartCoordinator,
    ResumeCoordinator,
    PlugCable(usize),
    EndSilence(usize),
    LinkUp(usize),
    FreeDisk,
    KillVisitor,
}

impl Cluster {
    /// Injects a fault, unless that makes no sense at the time.
    pub(crate) fn inject(&mut self, fault: Fault) {
        let Some((kind, what)) = self.try_inject(fault) else { return };
        self.fault_log.count(kind);
        self.fault_log.note(format_args!("{what}: {fault:?}"));
    }

    fn try_inject(&mut self, fault: Fault) -> Option<(&'static str, String)> {
        match fault {
            Fault::WorkerKilled { which } => {
                let worker = pick(self.workers(), which)?;
                let _ = processes::send(worker.pid, Signal::SIGKILL);
                Some(("workers killed", format!("worker {}", worker.pid)))
            }
            Fault::WorkerStopped { which, pause } => {
                let worker = pick(self.workers(), which)?;
                let _ = processes::send(worker.pid, Signal::SIGSTOP);
                self.repair_after(pause, Repair::ResumeWorker(worker.pid));
                Some(("workers stopped", format!("worker {}", worker.pid)))
            }
            Fault::ForkServerKilled { which } => {
                let fork_server = pick(self.fork_servers(), which)?;
                let _ = processes::send(fork_server.pid, Signal::SIGKILL);
                Some(("fork servers killed", format!("fork server {}", fork_server.pid)))
            }
            Fault::AgentKilled { agent, pause } => {
                self.none_pending(&[Repair::StartAgent(agent), Repair::ResumeAgent(agent)])?;
                self.agents[agent].kill();
                self.repair_after(pause, Repair::StartAgent(agent));
                Some(("agents killed", self.agents[agent].name().to_owned()))
            }
            Fault::AgentStopped { agent, pause } => {
                self.none_pending(&[Repair::StartAgent(agent), Repair::ResumeAgent(agent)])?;
                self.agents[agent].signal(Signal::SIGSTOP);
                self.repair_after(pause, Repair::ResumeAgent(agent));
                Some(("agents stopped", self.agents[agent].name().to_owned()))
            }
            Fault::AgentLeaves { agent } => {
                self.none_pending(&[Repair::StartAgent(agent), Repair::ResumeAgent(agent)])?;
                // An agent that gets the signal too early just ends.
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
                self.none_pending(&[Repair::StartCoordinator, Repair::ResumeCoordinator])?;
                self.coordinator.kill();
                // Not while the disk is full: the torn part is set aside at the start, which needs room.
                let torn = torn.filter(|_| self.none_pending(&[Repair::FreeDisk]).is_some());
                if torn.is_some_and(|which| self.disk.tear(which).is_ok()) {
                    self.torn = true;
                    self.fault_log.count("journals torn");
                }
                self.repair_after(pause, Repair::StartCoordinator);
                Some(("coordinators killed", "coordinator".to_owned()))
            }
            Fault::CoordinatorStopped { pause } => {
                self.none_pending(&[Repair::StartCoordinator, Repair::ResumeCoordinator])?;
                self.coordinator.signal(Signal::SIGSTOP);
                self.repair_after(pause, Repair::ResumeCoordinator);
                Some(("coordinators stopped", "coordinator".to_owned()))
            }
            Fault::CableCut { cable } => {
                self.cables[cable].cut();
                Some(("cables cut", self.peer_name(Connection::Cable(cable))))
            }
            Fault::CableUnplugged { cable, pause } => {
                self.none_pending(&[Repair::PlugCable(cable), Repair::EndSilence(cable)])?;
                self.cables[cable].unplug();
                self.repair_after(pause, Repair::PlugCable(cable));
                Some(("cables unplugged", self.peer_name(Connection::Cable(cable))))
            }
            Fault::CableSilent { cable, pause } => {
                self.none_pending(&[Repair::PlugCable(cable), Repair::EndSilence(cable)])?;
                self.cables[cable].silence(true);
                self.repair_after(pause, Repair::EndSilence(cable));
                Some(("cables silent", self.peer_name(Connection::Cable(cable))))
            }
            Fault::CableHalfOpen { cable, coordinator_learns } => {
                self.cables[cable].half_open(coordinator_learns);
                Some(("cables half open", self.peer_name(Connection::Cable(cable))))
            }
            Fault::LinkDown { link, pause } => {
                self.none_pending(&[Repair::LinkUp(link)])?;
                self.hosts[link].set_link(false);
                self.repair_after(pause, Repair::LinkUp(link));
                Some(("links down", self.peer_name(Connection::Host(link))))
            }
            Fault::DiskFull { pause } => {
                // Once it listens, the coordinator has read the journal and set the torn part aside.
                self.none_pending(&[Repair::FreeDisk, Repair::StartCoordinator])?;
                TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()?;
                self.disk.fill().then_some(())?;
                self.repair_after(pause, Repair::FreeDisk);
                Some(("disks full", "coordinator".to_owned()))
            }
            Fault::VisitorKilled { pause } => {
                self.none_pending(&[Repair::KillVisitor])?;
                self.visitors += 1;
                let folder = text(self.folder.clone());
                let mut command = visitor::command(self.visitors, &self.address(), &self.tag, &folder);
                command.current_dir(&self.folder).stdin(Stdio::piped());
                self.visitor =
                    Some(Daemon::start_with_log(&format!("visitor-{}", self.visitors), command, &self.folder));
                self.repair_after(pause + Duration::from_millis(300), Repair::KillVisitor);
                Some(("clients killed", "visitor".to_owned()))
            }
        }
    }

    /// Returns `Some` if none of these repairs is pending.
    pub(super) fn none_pending(&self, repairs: &[Repair]) -> Option<()> {
        (!self.repairs.iter().any(|(_, repair)| repairs.contains(repair))).then_some(())
    }

    fn repair_after(&mut self, pause: Duration, repair: Repair) {
        self.repairs.push((Instant::now() + pause, repair));
    }

    pub(crate) fn repair_due(&mut self, now: Instant) {
        let (due, later) = std::mem::take(&mut self.repairs).into_iter().partition(|(at, _)| *at <= now);
        self.repairs = later;
        self.repair_all(due);
    }

    /// Does all pending repairs at once.
    pub(crate) fn repair_everything(&mut self) {
        let repairs = std::mem::take(&mut self.repairs);
        self.repair_all(repairs);
        self.fault_log.note("everything is repaired");
    }

    fn repair_all(&mut self, mut repairs: Vec<(Instant, Repair)>) {
        // A coordinator needs room to start.
        repairs.sort_by_key(|(_, repair)| *repair != Repair::FreeDisk);
        for (_, repair) in repairs {
            self.repair(repair);
        }
    }

    fn repair(&mut self, repair: Repair) {
        match repair {
            // Another process may have its id by now, and the signal does it no harm.
            Repair::ResumeWorker(pid) => drop(processes::send(pid, Signal::SIGCONT)),
            Repair::StartAgent(agent) => self.agents[agent] = self.start_agent(agent),
            Repair::ResumeAgent(agent) => self.agents[agent].signal(Signal::SIGCONT),
            // Its last write before it was killed may be torn, too, and setting that aside needs room on the disk.
            Repair::StartCoordinator if self.none_pending(&[Repair::FreeDisk]).is_none() => {
                return self.repair_after(Duration::from_millis(100), repair);
            }
            Repair::StartCoordinator => self.start_coordinator(),
            Repair::ResumeCoordinator => self.coordinator.signal(Signal::SIGCONT),
            Repair::PlugCable(cable) => self.cables[cable].plug(),
            Repair::EndSilence(cable) => self.cables[cable].silence(false),
            Repair::LinkUp(link) => self.hosts[link].set_link(true),
            Repair::FreeDisk => self.disk.clear(),
            Repair::KillVisitor => self.visitor = None,
        }
        self.fault_log.note(format_args!("repaired: {repair:?}"));
    }

    /// Returns the fork servers: all processes that agents have started, including zombies.
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
}

fn pick(mut among: Vec<Process>, which: u64) -> Option<Process> {
    among.sort_by_key(|process| process.pid);
    let at = which.checked_rem(among.len() as u64)?;
    Some(among.swap_remove(at as usize))
}
