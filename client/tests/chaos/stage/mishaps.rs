//! How each fault is done to the cluster, and mended later.

use std::net::{Ipv4Addr, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use farpool_testkit::daemon::Daemon;
use farpool_testkit::folder::text;
use farpool_testkit::processes::{self, Process};
use nix::sys::signal::Signal;

use super::{Stage, Way};
use crate::faults::Fault;
use crate::visitor;

/// What is mended later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mend {
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
                // Not while the disk is full: what is torn is kept aside at the start, which needs room.
                let torn = torn.filter(|_| self.is_well(&[Mend::DiskHasRoom]).is_some());
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
                // Once it listens, the coordinator has read the journal and kept aside what was torn.
                self.is_well(&[Mend::DiskHasRoom, Mend::CoordinatorStarts])?;
                TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()?;
                self.disk.fill().then_some(())?;
                self.mend_after(pause, Mend::DiskHasRoom);
                Some(("disks full", "coordinator".to_owned()))
            }
            Fault::VisitorKilled { pause } => {
                self.is_well(&[Mend::VisitorKilled])?;
                self.visitors += 1;
                let folder = text(self.folder.clone());
                let mut command = visitor::command(self.visitors, &self.address(), &self.tag, &folder);
                command.current_dir(&self.folder).stdin(Stdio::piped());
                self.visitor =
                    Some(Daemon::start_with_log(&format!("visitor-{}", self.visitors), command, &self.folder));
                self.mend_after(pause + Duration::from_millis(300), Mend::VisitorKilled);
                Some(("clients killed", "visitor".to_owned()))
            }
        }
    }

    /// Whether none of these is still to be mended.
    pub(super) fn is_well(&self, mends: &[Mend]) -> Option<()> {
        (!self.mends.iter().any(|(_, mend)| mends.contains(mend))).then_some(())
    }

    fn mend_after(&mut self, pause: Duration, mend: Mend) {
        self.mends.push((Instant::now() + pause, mend));
    }

    pub(crate) fn mend_what_is_due(&mut self, now: Instant) {
        let (due, later) = std::mem::take(&mut self.mends).into_iter().partition(|(at, _)| *at <= now);
        self.mends = later;
        self.mend_all(due);
    }

    /// What is still wrong is so no more.
    pub(crate) fn mend_everything(&mut self) {
        let mends = std::mem::take(&mut self.mends);
        self.mend_all(mends);
        self.diary.note("everything is mended");
    }

    fn mend_all(&mut self, mut mends: Vec<(Instant, Mend)>) {
        // A coordinator needs room to start.
        mends.sort_by_key(|(_, mend)| *mend != Mend::DiskHasRoom);
        for (_, mend) in mends {
            self.mend(mend);
        }
    }

    fn mend(&mut self, mend: Mend) {
        match mend {
            // Somebody else may have got its number, and does not mind.
            Mend::WorkerGoesOn(pid) => drop(processes::send(pid, Signal::SIGCONT)),
            Mend::AgentStarts(agent) => self.agents[agent] = self.start_agent(agent),
            Mend::AgentGoesOn(agent) => self.agents[agent].signal(Signal::SIGCONT),
            // What it was writing when it was killed may be torn, too.
            Mend::CoordinatorStarts if self.is_well(&[Mend::DiskHasRoom]).is_none() => {
                return self.mend_after(Duration::from_millis(100), mend);
            }
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
}

fn pick(mut among: Vec<Process>, which: u64) -> Option<Process> {
    among.sort_by_key(|process| process.pid);
    let at = which.checked_rem(among.len() as u64)?;
    Some(among.swap_remove(at as usize))
}
