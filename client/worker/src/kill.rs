//! Kills a worker with its process group and its descendants, and never another worker.
//!
//! Tasks may move processes to other groups and sessions. But a process keeps its parent while the parent lives. So all
//! processes are stopped before any is killed.

use std::collections::{HashMap, HashSet};

use farpool_link::process::{Process, Stat, children_of};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgid};

/// Most rounds of searching for descendants. A stopped process starts no others, so each round but the last finds
/// another generation or one that has just started.
const ROUNDS: usize = 64;

/// The workers of a fork server: its children that were not reaped, so that their pids are not reused.
#[derive(Default)]
pub(crate) struct Workers {
    pids: HashMap<u32, Pid>,
    /// Processes that were signalled with a worker, and are killed with it even if they outlive their ancestors.
    signalled: HashMap<u32, Vec<Identity>>,
}

/// A process that is not our child, identified by its pid and start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Identity {
    pid: Pid,
    started: u64,
}

impl Workers {
    /// Adds a started worker.
    pub(crate) fn insert(&mut self, number: u32, pid: Pid) {
        self.pids.insert(number, pid);
    }

    /// Returns the number of the worker with this pid.
    pub(crate) fn number_of(&self, pid: Pid) -> Option<u32> {
        self.pids.iter().find(|(_, of)| **of == pid).map(|(number, _)| *number)
    }

    /// Signals a worker and all processes that certainly belong to it.
    pub(crate) fn signal(&mut self, number: u32, signal: Signal) {
        let Some(&worker) = self.pids.get(&number) else { return };
        if signal == Signal::SIGKILL {
            return self.kill(number, worker);
        }
        // Errors mean that the processes have exited.
        let mut reached = descendants(&[worker], &self.orphans(worker));
        if !self.group_is_shared(worker) {
            let _ = killpg(worker, signal);
            reached.retain(|known| getpgid(Some(known.pid)) != Ok(worker));
        }
        if getpgid(Some(worker)) != Ok(worker) {
            let _ = kill(worker, signal);
        }
        reached.iter().for_each(|known| known.signal(signal));
        let signalled = self.signalled.entry(number).or_default();
        signalled.extend(reached);
    }

    /// Kills the process group of a worker that has exited and is about to be reaped, and the processes that were
    /// signalled with it.
    pub(crate) fn ended(&mut self, number: u32) {
        let Some(&worker) = self.pids.get(&number) else { return };
        if self.signalled.contains_key(&number) {
            self.kill(number, worker);
        } else {
            self.kill_group(worker);
        }
        self.pids.remove(&number);
        self.signalled.remove(&number);
    }

    /// Kills all descendants of this process.
    pub(crate) fn kill_all(&mut self) {
        let own = Pid::this();
        stop_and_kill(|| descendants(&[own], &[]));
        self.pids.clear();
        self.signalled.clear();
    }

    fn kill(&mut self, number: u32, worker: Pid) {
        let signalled = self.signalled.entry(number).or_default().clone();
        let _ = kill(worker, Signal::SIGSTOP);
        stop_and_kill(|| {
            let roots: Vec<Identity> = signalled.iter().copied().chain(self.orphans(worker)).collect();
            descendants(&[worker], &roots)
        });
        self.kill_group(worker);
        let _ = kill(worker, Signal::SIGKILL);
    }

    fn kill_group(&self, worker: Pid) {
        if self.group_is_shared(worker) {
            let orphans = self.orphans(worker);
            stop_and_kill(|| descendants(&[], &orphans));
        } else {
            // An error means that the group is empty.
            let _ = killpg(worker, Signal::SIGKILL);
        }
    }

    /// Returns whether another worker has joined the process group of this one.
    fn group_is_shared(&self, worker: Pid) -> bool {
        self.pids.values().any(|&other| other != worker && getpgid(Some(other)) == Ok(worker))
    }

    /// Returns processes of a worker's group that have outlived their parents and become children of this process.
    fn orphans(&self, worker: Pid) -> Vec<Identity> {
        let own = Pid::this();
        let children = children_of(own).into_iter().filter(|child| self.number_of(*child).is_none());
        let in_group = |child: &Pid| getpgid(Some(*child)) == Ok(worker);
        children.filter(in_group).filter_map(|child| Identity::child(child, own)).collect()
    }
}

/// Stops all processes that `reached` finds until it finds no new ones, then kills them.
fn stop_and_kill(reached: impl Fn() -> Vec<Identity>) {
    let mut stopped: HashSet<Identity> = HashSet::new();
    for _ in 0..ROUNDS {
        let fresh: Vec<Identity> = reached().into_iter().filter(|known| !stopped.contains(known)).collect();
        if fresh.is_empty() {
            break;
        }
        fresh.iter().for_each(|known| known.signal(Signal::SIGSTOP));
        stopped.extend(fresh);
    }
    stopped.iter().for_each(|known| known.signal(Signal::SIGKILL));
}

/// Returns `others` with their descendants, and the descendants of `children`, which are children of this process.
fn descendants(children: &[Pid], others: &[Identity]) -> Vec<Identity> {
    let mut found: Vec<Identity> = others.to_vec();
    for &child in children {
        found.extend(children_of(child).into_iter().filter_map(|pid| Identity::child(pid, child)));
    }
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        let children = children_of(parent.pid);
        // Otherwise these may be children of another process that has reused the pid.
        if !children.is_empty() && parent.is_current() {
            found.extend(children.into_iter().filter_map(|pid| Identity::child(pid, parent.pid)));
        }
        at += 1;
    }
    found
}

impl Identity {
    fn child(pid: Pid, parent: Pid) -> Option<Identity> {
        let stat = Stat::of(pid).filter(|stat| stat.parent == parent)?;
        Some(Identity { pid, started: stat.started })
    }

    fn is_current(&self) -> bool {
        Stat::of(self.pid).is_some_and(|stat| stat.started == self.started)
    }

    fn signal(&self, signal: Signal) {
        match Process::open(self.pid) {
            // An error means that it has exited.
            Ok(process) if self.is_current() => drop(process.signal(signal)),
            // Without a pidfd, signal it right after checking its start time.
            Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM) if self.is_current() => drop(kill(self.pid, signal)),
            _ => {}
        }
    }
}
