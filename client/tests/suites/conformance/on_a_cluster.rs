//! Features that exist only on a cluster: several hosts, shared between pools, and a program that is sent to them.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::time::{Duration, Instant};

use farpool::{ErrorKind, Pool};
use farpool_testkit::processes;

use crate::cluster::{self, Cluster};
use crate::conformance::tasks::{bytes, nap, noted, pid_after, square};
use crate::log::Log;
use crate::pools;

crate::runner::cases![
    the_default_is_all_slots,
    a_program_is_sent_to_agents_that_lack_it,
    workers_have_the_chosen_environment,
    workers_start_in_the_clients_directory,
    labels_select_the_agents,
    slots_are_shared_between_pools,
    a_warm_worker_of_an_idle_pool_is_replaced,
    nested_pools_finish_on_one_slot,
    awaited_nested_pools_finish_on_one_slot,
    a_program_that_a_task_starts_borrows_its_slot,
    each_item_has_its_own_token,
    a_stopped_consumer_stops_results,
    a_pool_outlives_its_coordinator,
];

fn the_default_is_all_slots() {
    let pool = pools::pool(pools::builder());
    assert_eq!(pool.processes(), cluster::AGENTS * cluster::SLOTS);
    let pids = pool.job(pid_after).chunksize(1).map(vec![300; pool.processes()]).unwrap();
    assert_eq!(BTreeSet::from_iter(pids).len(), pool.processes());
}

/// Opens a pool on a cluster that this case has started itself.
fn pool_at(cluster: &Cluster, processes: usize) -> Pool {
    pools::builder().address(cluster.address()).processes(processes).build().expect("cannot open the pool")
}

fn a_program_is_sent_to_agents_that_lack_it() {
    let mut cluster = cluster::without_programs(&[]);
    cluster.add_agent(2, &[]);
    cluster.add_agent(2, &[]);
    let pool = pool_at(&cluster, 4);
    assert_eq!(pool.map(square, 0..1000).unwrap(), (0..1000).map(|n| n * n).collect::<Vec<_>>());
    drop(pool);
    // The next pool finds the program there.
    let pool = pool_at(&cluster, 2);
    let start = Instant::now();
    assert_eq!(pool.map(square, [3]).unwrap(), [9]);
    assert!(start.elapsed() < Duration::from_secs(1), "took {:?}", start.elapsed());
    drop(pool);
    cluster.stop().unwrap();
}

fn workers_have_the_chosen_environment() {
    fn variables() -> BTreeMap<String, String> {
        env::vars().collect()
    }
    let pool = pools::pool(pools::builder().processes(1).env("CHOSEN", "by the client"));
    let mut there = pool.apply(variables, ()).unwrap();
    assert_eq!(there.remove("CHOSEN").as_deref(), Some("by the client"));
    assert_eq!(there.remove(processes::TAG), Some(processes::own_tag()));
    assert_eq!(there.remove(cluster::ADDRESS), env::var(cluster::ADDRESS).ok());
    assert!(there.remove("FARPOOL_HOST").is_some());
    assert!(there.remove("FARPOOL_ITEM").is_some());
    assert!(there.is_empty(), "{there:?}");
}

fn workers_start_in_the_clients_directory() {
    let here = pools::of(1).apply(|| env::current_dir().unwrap(), ()).unwrap();
    assert_eq!(here, env::current_dir().unwrap());
}

fn labels_select_the_agents() {
    fn parent() -> u32 {
        processes::Process::of(processes::Process::of(std::process::id()).unwrap().parent).unwrap().parent
    }
    let mut cluster = cluster::empty();
    let plain = cluster.add_agent(2, &[]);
    let labelled = cluster.add_agent(2, &["--label", "gpu=a100", "--label", "disk=fast"]);
    let agents = |pool: &Pool, items: u64| -> BTreeSet<u32> {
        let ran = |milliseconds: u64| {
            nap(milliseconds);
            parent()
        };
        pool.job(ran).chunksize(1).map(vec![30; items as usize]).unwrap().into_iter().collect()
    };
    let pool = pools::builder().address(cluster.address()).require("gpu", "a100").build().unwrap();
    assert_eq!(pool.processes(), 2);
    assert_eq!(agents(&pool, 20), [labelled].into());
    drop(pool);
    let pool = pool_at(&cluster, 4);
    // The plain agent still has to fetch the program, which may take longer than these items.
    let mut ran = agents(&pool, 20);
    while ran.len() < 2 {
        ran.extend(agents(&pool, 20));
    }
    assert_eq!(ran, [plain, labelled].into());
    let job = pool.job(|(): ()| parent()).require("disk", "fast").require("os", env::consts::OS).chunksize(1);
    assert!(job.map([(); 50]).unwrap().iter().all(|agent| *agent == labelled));
    // No agent has this label, but one that has it may join.
    let mut waiting = pool.job(square).require("disk", "huge").apply_async((3,));
    assert_eq!(waiting.get_timeout(Duration::from_millis(300)).unwrap_err().kind(), ErrorKind::WaitTimedOut);
    assert_eq!(pool.map(square, [2]).unwrap(), [4]);
    cluster.add_agent(1, &["--label", "disk=huge"]);
    assert_eq!(waiting.get_timeout(Duration::from_secs(10)).unwrap(), 9);
    drop(pool);
    cluster.stop().unwrap();
}

/// Counts how many items of each of two pools have run when one of them has finished.
fn slots_are_shared_between_pools() {
    let mut cluster = cluster::empty();
    cluster.add_agent(2, &[]);
    let open = |weight| {
        let pool = pools::builder().address(cluster.address()).weight(weight).build().unwrap();
        pool.map(square, [1]).unwrap();
        pool
    };
    let (light, heavy) = (open(1), open(3));
    let (light_log, heavy_log) = (Log::new("light"), Log::new("heavy"));
    let noted_nap = |(path, item): (String, u64)| {
        nap(10);
        noted(path, item)
    };
    let path = light_log.path();
    let background = light.job(noted_nap).chunksize(1).map_async((0..10_000).map(move |item| (path.clone(), item)));
    let path = heavy_log.path();
    let items = (0..150).map(move |item| (path.clone(), item));
    heavy.job(noted_nap).chunksize(1).map(items).unwrap();
    let (heavy_runs, light_runs) = (heavy_log.lines().len() as f64, light_log.lines().len() as f64);
    // A third of the heavy pool's items, give or take those that had begun before.
    assert!((0.15..0.6).contains(&(light_runs / heavy_runs)), "{light_runs} to {heavy_runs}");
    background.cancel();
    drop((light, heavy));
    cluster.stop().unwrap();
}

fn a_warm_worker_of_an_idle_pool_is_replaced() {
    let mut cluster = cluster::empty();
    cluster.add_agent(1, &[]);
    let (one, two) = (pool_at(&cluster, 1), pool_at(&cluster, 1));
    for n in 0..10 {
        assert_eq!(one.apply(square, (n,)).unwrap(), n * n);
        assert_eq!(two.apply(square, (n,)).unwrap(), n * n);
    }
    drop((one, two));
    cluster.stop().unwrap();
}

fn nested_pools_finish_on_one_slot() {
    fn levels(depth: u64) -> u64 {
        if depth == 0 {
            return 1;
        }
        let pool = Pool::new(1).unwrap();
        pool.map(levels, [depth - 1; 2]).unwrap().into_iter().sum()
    }
    let mut cluster = cluster::empty();
    cluster.add_agent(1, &[]);
    let pool = pool_at(&cluster, 1);
    let mut result = pool.apply_async(levels, (3,));
    assert_eq!(result.get_timeout(Duration::from_secs(30)).unwrap(), 8);
    drop(pool);
    cluster.stop().unwrap();
}

/// Here the task awaits the inner results instead of blocking in farpool.
fn awaited_nested_pools_finish_on_one_slot() {
    fn levels(depth: u64) -> u64 {
        if depth == 0 {
            return 1;
        }
        let pool = Pool::new(1).unwrap();
        let inner = pool.map_async(levels, [depth - 1; 2]);
        runtime().block_on(inner).unwrap().into_iter().sum()
    }
    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().unwrap()
    }
    let mut cluster = cluster::empty();
    cluster.add_agent(1, &[]);
    let pool = pool_at(&cluster, 1);
    let mut result = pool.apply_async(levels, (3,));
    assert_eq!(result.get_timeout(Duration::from_secs(30)).unwrap(), 8);
    drop(pool);
    cluster.stop().unwrap();
}

/// The variable that makes the next case's program act as the client that its task starts.
const NESTED: &str = "FARPOOL_TEST_NESTED";
const OWN_NAME: &str = concat!(module_path!(), "::a_program_that_a_task_starts_borrows_its_slot");

/// A process that a task has started is a separate client, and knows its item only from its environment.
fn a_program_that_a_task_starts_borrows_its_slot() {
    fn outer(depth: u64) -> u64 {
        if depth == 0 {
            return 1;
        }
        let mut child = std::process::Command::new(env::current_exe().unwrap());
        child.env(crate::runner::CASE, OWN_NAME).env(NESTED, depth.to_string());
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim().parse().unwrap_or_else(|_| panic!("{text} {}", String::from_utf8_lossy(&output.stderr)))
    }
    if let Ok(depth) = env::var(NESTED) {
        let pool = Pool::new(1).unwrap();
        let inner = pool.map(outer, [depth.parse::<u64>().unwrap() - 1; 2]).unwrap();
        println!("{}", inner.iter().sum::<u64>());
        std::process::exit(0);
    }
    for threads in [1, 3] {
        let mut cluster = cluster::empty();
        cluster.add_agent(1, &[]);
        let builder = pools::builder().address(cluster.address()).processes(1).threads(threads);
        let pool = builder.build().expect("cannot open the pool");
        let mut result = pool.apply_async(outer, (2,));
        assert_eq!(result.get_timeout(Duration::from_secs(30)).unwrap(), 4);
        drop(pool);
        cluster.stop().unwrap();
    }
}

fn each_item_has_its_own_token() {
    fn token(_: u64) -> (String, u32) {
        // The environment that a process started by the task sees.
        let output = std::process::Command::new("env").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let own = text.lines().find_map(|line| line.strip_prefix("FARPOOL_ITEM=")).unwrap().to_owned();
        assert_eq!(env::var("FARPOOL_ITEM").as_ref(), Ok(&own));
        (own, std::process::id())
    }
    let pool = pools::of(4);
    let tokens = pool.job(token).chunksize(1).map(0..40).unwrap();
    let different: BTreeSet<_> = tokens.iter().map(|(token, _)| token).collect();
    assert_eq!(different.len(), 40, "{tokens:?}");
    // The agent and the secret belong to the worker.
    let prefixes: BTreeSet<_> = tokens.iter().map(|(token, pid)| (token.rsplit_once('.').unwrap().0, pid)).collect();
    let workers: BTreeSet<_> = tokens.iter().map(|(_, pid)| pid).collect();
    assert_eq!(prefixes.len(), workers.len(), "{tokens:?}");
}

/// When the consumer stops, more is in flight than a client holds.
fn a_stopped_consumer_stops_results() {
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
    };
    let pool = pools::of(2);
    let mut results = pool.job(bytes).buffersize(600).imap(std::iter::repeat_n(1 << 20, 800));
    let before = resident();
    assert_eq!(results.next().unwrap().unwrap().len(), 1 << 20);
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(200));
        let grown = resident() - before;
        assert!(grown < 150, "the client held {grown} MiB");
    }
    // Another job of the same client is not delayed.
    assert_eq!(pool.apply(square, (3,)).unwrap(), 9);
    assert_eq!(results.map(|result| result.unwrap().len()).sum::<usize>(), 799 << 20);
}

fn a_pool_outlives_its_coordinator() {
    let mut cluster = cluster::empty_with(&["--window", "1MiB"]);
    cluster.add_agent(2, &[]);
    let pool = pool_at(&cluster, 2);
    let pids = |pool: &Pool| BTreeSet::from_iter(pool.job(pid_after).chunksize(1).map([50; 4]).unwrap());
    let before = pids(&pool);
    cluster.restart_coordinator();
    // And so do its workers.
    assert_eq!(pids(&pool), before);
    drop(pool);
    cluster.stop().unwrap();
}
