//! The cases: the process that dies, and the times that are measured.

use std::collections::BTreeSet;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use std::{env, thread};

use farpool::Pool;
use farpool_testkit::daemon::Daemon;
use farpool_testkit::machine::monotonic_ns;
use farpool_testkit::processes::{self, Process};
use nix::sys::signal::Signal;

use crate::cluster::{AGENTS, Cluster, SLOTS};
use crate::notes::{Notes, nap};

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// The meaning of the seconds that a run returns.
    pub(crate) measures: &'static [&'static str],
    pub(crate) run: fn() -> Vec<f64>,
}

const ALL_OF_IT: &str = "300 items of 20 ms, all of it";
const UNDISTURBED: &str = "the same undisturbed";

pub(crate) const CASES: &[Case] = &[
    Case { name: "worker", what: "a worker", measures: &["its item begins again"], run: worker },
    Case {
        name: "agent",
        what: "an agent",
        measures: &["first outcome of an item that it ran", ALL_OF_IT, UNDISTURBED],
        run: agent,
    },
    Case {
        name: "silent",
        what: "a host, without a word",
        measures: &["the first of its items begins elsewhere", ALL_OF_IT, UNDISTURBED],
        run: silent,
    },
    Case {
        name: "coordinator",
        what: "the coordinator, back at once",
        measures: &["longest time without an outcome", ALL_OF_IT, UNDISTURBED],
        run: coordinator,
    },
    Case {
        name: "cut",
        what: "the connections of the client and an agent",
        measures: &["longest time without an outcome", ALL_OF_IT, UNDISTURBED],
        run: cut,
    },
    Case { name: "client", what: "a client", measures: &["its workers are gone"], run: client_dies },
];

const ITEMS: u64 = 300;
const NAP_MS: u64 = 20;
/// Number of outcomes that have arrived when something dies.
const BEFORE: usize = 60;
/// The variable that tells this program to be the client that is killed.
const CLIENT: &str = "FARPOOL_RECOVERY_CLIENT";

fn worker() -> Vec<f64> {
    let cluster = Cluster::start();
    let (pool, notes) = (cluster.pool(), Notes::new(&cluster.folder));
    let items: Vec<_> = (0..6).map(|item| (notes.path(), item, 300)).collect();
    let map = pool.job(nap).chunksize(1).starmap_async(items);
    let first = notes.wait(|notes| notes.first().copied());
    let killed = kill(first.pid);
    let again = notes.wait(|notes| notes.iter().filter(|note| note.item == first.item).nth(1).copied());
    map.get().expect("the job failed");
    vec![since(killed, again.at_ns)]
}

fn agent() -> Vec<f64> {
    let mut cluster = Cluster::start();
    disturbed(&mut cluster, |cluster| {
        let had = workers_of(cluster, 0);
        cluster.agents[0].kill();
        had
    })
}

fn silent() -> Vec<f64> {
    let mut cluster = Cluster::start();
    let pool = cluster.pool();
    let undisturbed = undisturbed(&cluster, &pool);
    let (notes, begun) = (Notes::new(&cluster.folder), Instant::now());
    let items: Vec<_> = (0..ITEMS).map(|item| (notes.path(), item, NAP_MS)).collect();
    let map = pool.job(nap).chunksize(1).starmap_async(items);
    notes.wait(|notes| (notes.len() >= BEFORE).then_some(()));
    let silent = workers_of(&cluster, 0);
    cluster.agents[0].signal(Signal::SIGSTOP);
    let stopped = monotonic_ns();
    // Items that had begun there begin again elsewhere.
    let again = notes.wait(|notes| {
        let mut seen = BTreeSet::new();
        notes.iter().find(|note| !seen.insert(note.item) && !silent.contains(&note.pid)).copied()
    });
    map.get().expect("the job failed");
    let all = begun.elapsed().as_secs_f64();
    cluster.agents.iter_mut().for_each(|agent| agent.signal(Signal::SIGCONT));
    vec![since(stopped, again.at_ns), all, undisturbed]
}

fn coordinator() -> Vec<f64> {
    let mut cluster = Cluster::start();
    disturbed(&mut cluster, |cluster| {
        cluster.restart_coordinator();
        BTreeSet::new()
    })
}

fn cut() -> Vec<f64> {
    let mut cluster = Cluster::start();
    disturbed(&mut cluster, |cluster| {
        cluster.cables[0].cut();
        cluster.cables[AGENTS].cut();
        BTreeSet::new()
    })
}

fn client_dies() -> Vec<f64> {
    let cluster = Cluster::start();
    let mut command = Command::new(env::current_exe().expect("cannot find this program's path"));
    command.env(CLIENT, "").env("FARPOOL_ADDRESS", cluster.address());
    let mut client = Daemon::start("client", command);
    wait_until(|| cluster.workers().len() == AGENTS * SLOTS);
    let killed = monotonic_ns();
    client.kill();
    wait_until(|| cluster.workers().is_empty());
    vec![since(killed, monotonic_ns())]
}

/// Returns whether this process is the client that is killed.
pub(crate) fn is_client() -> bool {
    env::var_os(CLIENT).is_some()
}

pub(crate) fn client() -> ExitCode {
    let pool = Pool::builder().build().expect("cannot open the pool");
    let napped = pool.job(thread::sleep).chunksize(1).map(vec![Duration::from_secs(60); AGENTS * SLOTS]);
    if napped.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs items and kills something in the middle. Returns how long there was no outcome, of its items or of any; how long all
/// items took; and how long they take undisturbed.
fn disturbed(cluster: &mut Cluster, kill: impl FnOnce(&mut Cluster) -> BTreeSet<u32>) -> Vec<f64> {
    let pool = cluster.pool();
    let undisturbed = undisturbed(cluster, &pool);
    let (notes, begun) = (Notes::new(&cluster.folder), Instant::now());
    let items: Vec<_> = (0..ITEMS).map(|item| (notes.path(), item, NAP_MS)).collect();
    let outcomes = pool.job(|(path, item, took)| nap(path, item, took)).chunksize(1).imap_unordered(items);
    let mut outcomes = outcomes.map(|outcome| (outcome.expect("the job failed").0, monotonic_ns()));
    outcomes.by_ref().take(BEFORE).for_each(drop);
    let killed = monotonic_ns();
    let dead = kill(cluster);
    let after: Vec<(u64, u64)> = outcomes.collect();
    let all = begun.elapsed().as_secs_f64();
    let notes = notes.all();
    let began = |item: u64, among_dead: bool| {
        notes.iter().any(|note| note.item == item && dead.contains(&note.pid) == among_dead)
    };
    let again = after.iter().find(|(item, _)| began(*item, true) && began(*item, false));
    let silence = || {
        let times: Vec<u64> = std::iter::once(killed).chain(after.iter().map(|(_, at_ns)| *at_ns)).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
    };
    let without = again.map_or_else(silence, |(_, at_ns)| at_ns - killed);
    vec![since(0, without), all, undisturbed]
}

fn undisturbed(cluster: &Cluster, pool: &Pool) -> f64 {
    let (notes, begun) = (Notes::new(&cluster.folder), Instant::now());
    let items: Vec<_> = (0..ITEMS).map(|item| (notes.path(), item, NAP_MS)).collect();
    pool.job(nap).chunksize(1).starmap(items).expect("the job failed");
    begun.elapsed().as_secs_f64()
}

fn workers_of(cluster: &Cluster, agent: usize) -> BTreeSet<u32> {
    let agent = cluster.agents[agent].pid();
    let is_there = |worker: &Process| Process::of(worker.parent).is_some_and(|parent| parent.parent == agent);
    cluster.workers().into_iter().filter(is_there).map(|worker| worker.pid).collect()
}

fn kill(pid: u32) -> u64 {
    let now = monotonic_ns();
    processes::send(pid, Signal::SIGKILL).expect("the process has exited");
    now
}

fn since(start: u64, end: u64) -> f64 {
    Duration::from_nanos(end.saturating_sub(start)).as_secs_f64()
}

fn wait_until(is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "the condition never becomes true");
        thread::sleep(Duration::from_millis(1));
    }
}
