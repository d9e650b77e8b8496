//! Agents that join and leave while jobs run.

use std::collections::BTreeSet;
use std::time::Duration;

use farpool::Pool;
use nix::sys::signal::Signal;

use crate::cluster::{self, Cluster};
use crate::conformance::tasks::{nap, square};
use crate::log::{self, Log};
use crate::pools;

crate::runner::cases![
    new_agents_are_used_at_once,
    a_draining_agent_finishes_its_running_items,
    the_slots_of_a_pool_follow_its_agents,
];

fn pool(cluster: &Cluster) -> Pool {
    pools::builder().address(cluster.address()).build().expect("cannot open the pool")
}

fn pid_noted(path: String, item: u64) -> u32 {
    log::note(&path, item);
    nap(20);
    std::process::id()
}

fn new_agents_are_used_at_once() {
    let mut cluster = cluster::empty();
    cluster.add_agent(1, &[]);
    let (pool, log) = (pool(&cluster), Log::new("runs"));
    let items: Vec<_> = (0..200).map(|item| (log.path(), item)).collect();
    let running = pool.job(pid_noted).chunksize(1).starmap_async(items);
    while log.lines().len() < 10 {
        nap(1);
    }
    cluster.add_agent(3, &[]);
    let pids = running.get().unwrap();
    assert_eq!(pids.len(), 200);
    assert_eq!(BTreeSet::from_iter(pids).len(), 4);
    assert_eq!(log.lines().len(), 200);
    drop(pool);
    cluster.stop().unwrap();
}

fn a_draining_agent_finishes_its_running_items() {
    let mut cluster = cluster::empty();
    cluster.add_agent(2, &[]);
    let leaving = cluster.add_agent(2, &[]);
    let (pool, log) = (pool(&cluster), Log::new("runs"));
    let items: Vec<_> = (0..150).map(|item| (log.path(), item)).collect();
    // A second attempt would be an error.
    let running = pool.job(pid_noted).retries(0).chunksize(1).starmap_async(items);
    while log.lines().len() < 20 {
        nap(1);
    }
    cluster.signal(leaving, Signal::SIGTERM);
    cluster.wait_for_agent(leaving);
    assert_eq!(running.get().unwrap().len(), 150);
    assert_eq!(log.lines().len(), 150, "no item ran twice");
    assert_eq!(pool.map(square, [3]).unwrap(), [9]);
    drop(pool);
    cluster.stop().unwrap();
}

fn the_slots_of_a_pool_follow_its_agents() {
    let mut cluster = cluster::empty();
    let first = cluster.add_agent(2, &[]);
    let pool = pool(&cluster);
    assert_eq!(pool.processes(), 2);
    cluster.add_agent(3, &[]);
    let until = |slots: usize| {
        while pool.processes() != slots {
            nap(1);
        }
    };
    until(5);
    cluster.signal(first, Signal::SIGTERM);
    cluster.wait_for_agent(first);
    until(3);
    // The window of imap follows, too: three items run at once.
    let mut results = pool.imap(nap, std::iter::repeat(1));
    assert_eq!(results.by_ref().take(100).filter(|result| result.is_ok()).count(), 100);
    drop(results);
    assert!(pool.apply_async(nap, (1,)).wait(Duration::from_secs(5)));
    drop(pool);
    cluster.stop().unwrap();
}
