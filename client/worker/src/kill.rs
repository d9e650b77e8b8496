//! What a kill reaches: the worker, its process group and its descendants; never another worker.
//!
//! Tasks may move their worker, and what they start, to other process groups and sessions. What they cannot change is who
//! descends from whom, for as long as those between live: so these are stopped before any is killed.

use std::collections::{HashMap, HashSet};

use farpool_link::process::{Process, Stat, children_of};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgid};

/// How often what is about to be killed is looked for once more. Who has been stopped starts nobody, so each round but the
/// last finds a further generation, or what was started just before.
const ROUNDS: usize = 64;

/// The workers of a fork server: children of it that were not reaped, so that their numbers are their own.
#[derive(Default)]
pub(crate) struct Workers {
    pids: HashMap<u32, Pid>,
    /// What has been asked to end with a worker, to be killed with it, even if it outlives its ancestors.
    asked: HashMap<u32, Vec<Known>>,
}

/// A process that is no child of ours, known by more than its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Known {
    pid: Pid,
    started: u64,
}

impl Workers {
    /// A worker has been started.
    pub(crate) fn insert(&mut self, number: u32, pid: Pid) {
        self.pids.insert(number, pid);
    }

    /// The number of the worker that is this process.
    pub(crate) fn number_of(&self, pid: Pid) -> Option<u32> {
        self.pids.iter().find(|(_, of)| **of == pid).map(|(number, _)| *number)
    }

    /// Signals a worker and all that certainly belongs to it.
    pub(crate) fn signal(&mut self, number: u32, signal: Signal) {
        let Some(&worker) = self.pids.get(&number) else { return };
        if signal == Signal::SIGKILL {
            return self.kill(number, worker);
        }
        // Errors mean that these have ended.
        let mut reached = descendants(&[worker], &self.left_behind(worker));
        if !self.group_is_shared(worker) {
            let _ = killpg(worker, signal);
            reached.retain(|known| getpgid(Some(known.pid)) != Ok(worker));
        }
        if getpgid(Some(worker)) != Ok(worker) {
            let _ = kill(worker, signal);
        }
        reached.iter().for_each(|known| known.signal(signal));
        let asked = self.asked.entry(number).or_default();
        asked.extend(reached);
    }

    /// A worker has ended and is about to be reaped: nothing of its process group is left, nor of what was to end with it.
    pub(crate) fn ended(&mut self, number: u32) {
        let Some(&worker) = self.pids.get(&number) else { return };
        if self.asked.contains_key(&number) {
            self.kill(number, worker);
        } else {
            self.kill_group(worker);
        }
        self.pids.remove(&number);
        self.asked.remove(&number);
    }

    /// Kills everything that descends from this process.
    pub(crate) fn kill_all(&mut self) {
        let own = Pid::this();
        stop_and_kill(|| descendants(&[own], &[]));
        self.pids.clear();
        self.asked.clear();
    }

    fn kill(&mut self, number: u32, worker: Pid) {
        let asked = self.asked.entry(number).or_default().clone();
        let _ = kill(worker, Signal::SIGSTOP);
        stop_and_kill(|| {
            let roots: Vec<Known> = asked.iter().copied().chain(self.left_behind(worker)).collect();
            descendants(&[worker], &roots)
        });
        self.kill_group(worker);
        let _ = kill(worker, Signal::SIGKILL);
    }

    fn kill_group(&self, worker: Pid) {
        if self.group_is_shared(worker) {
            let left_behind = self.left_behind(worker);
            stop_and_kill(|| descendants(&[], &left_behind));
        } else {
            // An error means that nothing is left of it.
            let _ = killpg(worker, Signal::SIGKILL);
        }
    }

    /// Whether another worker has joined the process group of this one.
    fn group_is_shared(&self, worker: Pid) -> bool {
        self.pids.values().any(|&other| other != worker && getpgid(Some(other)) == Ok(worker))
    }

    /// Processes of a worker's group that have outlived their parents and thus become children of this process.
    fn left_behind(&self, worker: Pid) -> Vec<Known> {
        let own = Pid::this();
        let children = children_of(own).into_iter().filter(|child| self.number_of(*child).is_none());
        let in_group = |child: &Pid| getpgid(Some(*child)) == Ok(worker);
        children.filter(in_group).filter_map(|child| Known::child(child, own)).collect()
    }
}

/// Stops all that `reached` finds until it finds nothing new, then kills it.
fn stop_and_kill(reached: impl Fn() -> Vec<Known>) {
    let mut stopped: HashSet<Known> = HashSet::new();
    for _ in 0..ROUNDS {
        let fresh: Vec<Known> = reached().into_iter().filter(|known| !stopped.contains(known)).collect();
        if fresh.is_empty() {
            break;
        }
        fresh.iter().for_each(|known| known.signal(Signal::SIGSTOP));
        stopped.extend(fresh);
    }
    stopped.iter().for_each(|known| known.signal(Signal::SIGKILL));
}

/// `others`, the descendants of these, and those of `children`, which are children of this process.
fn descendants(children: &[Pid], others: &[Known]) -> Vec<Known> {
    let mut found: Vec<Known> = others.to_vec();
    for &child in children {
        found.extend(children_of(child).into_iter().filter_map(|pid| Known::child(pid, child)));
    }
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        let children = children_of(parent.pid);
        // Otherwise these may be children of another process that has the number now.
        if !children.is_empty() && parent.is_there() {
            found.extend(children.into_iter().filter_map(|pid| Known::child(pid, parent.pid)));
        }
        at += 1;
    }
    found
}

impl Known {
    fn child(pid: Pid, parent: Pid) -> Option<Known> {
        let stat = Stat::of(pid).filter(|stat| stat.parent == parent)?;
        Some(Known { pid, started: stat.started })
    }

    fn is_there(&self) -> bool {
        Stat::of(self.pid).is_some_and(|stat| stat.started == self.started)
    }

    fn signal(&self, signal: Signal) {
        match Process::open(self.pid) {
            // An error means that it has ended.
            Ok(process) if self.is_there() => drop(process.signal(signal)),
            // Without a descriptor for it, at least as soon as it was seen to be there.
            Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM) if self.is_there() => drop(kill(self.pid, signal)),
            _ => {}
        }
    }
}
