//! Agents that were declared lost although they were alive, and reconnect: their late outcomes are dropped and counted, and items that
//! are no longer theirs are killed.

use std::fs;

use farpool::Pool;
use farpool_testkit::cable::Cable;
use farpool_testkit::processes;
use farpool_testkit::waiting;
use nix::sys::signal::Signal;

use crate::cluster::{self, Cluster};
use crate::failures::checks::{seconds, still_works, within};
use crate::failures::operators;
use crate::failures::tasks::{FOREVER, nap};
use crate::log::{self, Log};
use crate::pools;

crate::runner::cases![an_agent_is_stopped_for_too_long, an_agent_is_disconnected_for_too_long,];

/// The line of the log after which the first run of item 0 ends.
const LOST: &str = "the agent is lost";

/// Logs its worker's pid when it begins, and when it ends. The first run of item 0 ends when the log says that its
/// agent is lost, that of item 1 never.
fn slow_at_first(path: String, item: u64) -> u64 {
    let has = |begin: &str| fs::read_to_string(&path).unwrap().lines().any(|line| line.starts_with(begin));
    let first = !has(&format!("{item} begins"));
    log::note(&path, format!("{item} begins {}", std::process::id()));
    if first && item == 0 {
        waiting::until(|| has(LOST));
    } else if first {
        nap(FOREVER);
    }
    log::note(&path, format!("{item} ends {}", std::process::id()));
    item
}

/// Returns the worker of an item's first run.
fn first_worker(log: &Log, item: u64) -> Option<u32> {
    let begins = format!("{item} begins ");
    log.lines().iter().find_map(|line| line.strip_prefix(&begins)?.parse().ok())
}

/// An agent is lost with two items: one ends there, the other would never end. Another agent runs both.
fn check(
    mut cluster: Cluster,
    agent: impl FnOnce(&mut Cluster) -> u32,
    lose: impl FnOnce(&Cluster, u32),
    find: impl FnOnce(&Cluster, u32),
) {
    let lost = agent(&mut cluster);
    let pool = pools::builder().address(cluster.address()).build().expect("cannot open the pool");
    let log = Log::new("runs");
    let items = [(log.path(), 0), (log.path(), 1)];
    let map = pool.job(slow_at_first).chunksize(1).starmap_async(items);
    waiting::until(|| log.lines().len() == 2);
    let hangs = first_worker(&log, 1).expect("the item has not begun");
    cluster.add_agent(2, &[]);
    lose(&cluster, lost);
    log::note(&log.path(), LOST);
    assert_eq!(within(seconds(20), || map.get().unwrap()), [0, 1]);
    let ended = format!("0 ends {}", first_worker(&log, 0).expect("the item has not begun"));
    waiting::until(|| log.count(&ended) == 1);
    assert_eq!((log.count(format!("1 begins {hangs}")), log.lines().len()), (1, 8));
    assert!(processes::Process::of(hangs).is_some(), "the worker ended without being told to");
    let before = operators::status(&cluster);
    assert_eq!((operators::agents(&before).len(), &before["late_messages"]), (1, &0.into()), "{before}");

    find(&cluster, lost);
    // The agent returns and reports a late outcome; the item that hangs is killed while the pool is open.
    let counted = |status: &serde_json::Value| status["late_messages"].as_u64().is_some_and(|late| late >= 1);
    operators::until(&cluster, |status| operators::agents(status).len() == 2 && counted(status));
    waiting::until_gone(seconds(5), || processes::Process::of(hangs).into_iter().collect());
    is_used_again(&pool, &cluster);
    drop(pool);
    operators::until(&cluster, operators::nothing_is_left);
    cluster.stop().unwrap();
}

fn is_used_again(pool: &Pool, cluster: &Cluster) {
    operators::until(cluster, |status| status["pools"][0]["slots"] == 4);
    still_works(pool);
}

fn an_agent_is_stopped_for_too_long() {
    check(
        cluster::empty_with(&["--heartbeat-timeout", "1s"]),
        |cluster| cluster.add_agent(2, &[]),
        |cluster, agent| cluster.signal(agent, Signal::SIGSTOP),
        |cluster, agent| cluster.signal(agent, Signal::SIGCONT),
    );
}

fn an_agent_is_disconnected_for_too_long() {
    let cluster = cluster::empty_with(&["--reconnect-grace", "300ms"]);
    let cable = Cable::to(cluster.socket());
    check(
        cluster,
        |cluster| cluster.add_agent_through(&cable.address(), 2, &[]),
        |_, _| cable.unplug(),
        |_, _| cable.plug(),
    );
}
