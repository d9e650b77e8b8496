//! Whatever is killed, restarted or disconnected: each item has exactly one outcome, or there is no job at all.

use std::thread;

use farpool::{Detached, DetachedState, ErrorKind, Pool};
use farpool_testkit::cable::Cable;
use farpool_testkit::waiting;
use nix::sys::signal::Signal;

use super::{attach, bare, cluster, items, noted_nap, orphan, pool, squares};
use crate::failures::checks::{check_words, millis, seconds, still_works, within};
use crate::failures::client::Client;
use crate::log::Log;

crate::runner::cases![
    the_client_is_killed_and_the_coordinator_restarted,
    the_coordinator_is_restarted_while_outcomes_are_read,
    the_coordinator_is_restarted_while_the_job_is_sent,
    the_connection_is_cut_while_the_job_is_sent,
    the_client_is_killed_while_the_job_is_sent,
    an_agent_is_killed,
    items_run_at_most_once,
    a_job_waits_for_its_agents,
];

fn the_client_is_killed_and_the_coordinator_restarted() {
    let (mut cluster, log) = (cluster(), Log::new("runs"));
    orphan(&cluster, &log, 300);
    waiting::until(|| log.lines().len() >= 50);
    cluster.restart_coordinator();
    let job = attach(&cluster, "nightly");
    // There are several readers, one of them in the middle of reading.
    let other = thread::spawn({
        let job = job.clone();
        move || job.iter().unwrap().map(Result::unwrap).collect::<Vec<_>>()
    });
    assert_eq!(within(seconds(30), || job.get().unwrap()), squares(300));
    assert_eq!(other.join().unwrap(), squares(300));
    assert_eq!(log.lines().len(), 300);
    let status = job.status().unwrap();
    assert_eq!((status.state, status.items, status.done, status.failed), (DetachedState::Finished, 300, 300, 0));
    assert!(status.detached_at < status.ended_at && status.ended_at < status.expires_at, "{status:?}");
    // Outcomes stay until the job is discarded, even after a restart.
    cluster.restart_coordinator();
    assert_eq!(within(seconds(20), || job.get().unwrap()), squares(300));
    job.discard().unwrap();
    let error = job.get().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    check_words(&error, &["nightly", "farpool results"]);
    cluster.stop().unwrap();
}

fn the_coordinator_is_restarted_while_outcomes_are_read() {
    let (mut cluster, log) = (cluster(), Log::new("runs"));
    orphan(&cluster, &log, 300);
    let job = attach(&cluster, "nightly");
    let mut outcomes = job.iter().unwrap();
    for item in 0..300 {
        if item % 90 == 60 {
            cluster.restart_coordinator();
        }
        assert_eq!(within(seconds(20), || outcomes.next().unwrap().unwrap()), item * item);
    }
    assert!(outcomes.next().is_none());
    assert_eq!(log.lines().len(), 300);
    cluster.stop().unwrap();
}

/// Detaches a job with a slow input, and calls `interrupt` in the middle of it.
fn interrupted(pool: &Pool, mut interrupt: impl FnMut()) -> Detached<u64> {
    let items = (0..60_000_u64).inspect(move |item| {
        if item % 10_000 == 5000 {
            interrupt();
        }
    });
    // Large enough that the job exceeds what may be in flight.
    let job = pool.job(|(item, _): (u64, String)| item * item).detach("nightly");
    job.map(items.map(|item| (item, "7".repeat(1000)))).unwrap()
}

fn the_coordinator_is_restarted_while_the_job_is_sent() {
    let mut cluster = cluster();
    let pool = pool(cluster.address());
    let job = interrupted(&pool, || cluster.restart_coordinator());
    assert_eq!(within(seconds(30), || job.get().unwrap()), squares(60_000));
    // The pool has reconnected, too: otherwise agents would wait for it.
    still_works(&pool);
    drop(pool);
    cluster.stop().unwrap();
}

fn the_connection_is_cut_while_the_job_is_sent() {
    let cluster = cluster();
    let proxy = Cable::to(cluster.socket());
    let pool = pool(&proxy.address());
    // Its program has arrived: another case interrupts that.
    still_works(&pool);
    let job = interrupted(&pool, || {
        proxy.cut();
    });
    proxy.cut();
    assert_eq!(within(seconds(30), || job.get().unwrap()), squares(60_000));
    still_works(&pool);
    drop(pool);
    cluster.stop().unwrap();
}

fn the_client_is_killed_while_the_job_is_sent() {
    let (cluster, log) = (cluster(), Log::new("runs"));
    let mut client = Client::start("detaches not all", &[cluster.address(), &log.path(), "5000"]);
    assert_eq!(within(seconds(20), || client.line()), "nearly all");
    assert_eq!(attach(&cluster, "nightly").status().unwrap().state, DetachedState::Receiving);
    client.signal(Signal::SIGKILL);
    client.end();
    // The coordinator waits a while for the client, but discarding the job frees the name at once.
    let job = attach(&cluster, "nightly");
    assert_eq!(job.status().unwrap().state, DetachedState::Receiving);
    job.discard().unwrap();
    let pool = pool(cluster.address());
    let job = pool.job(noted_nap).detach("nightly").starmap(items(log.path(), 4)).unwrap();
    assert_eq!(within(seconds(20), || job.get().unwrap()), squares(4));
    assert_eq!(log.lines().len(), 4);
    drop(pool);
    cluster.stop().unwrap();
}

fn an_agent_is_killed() {
    let (mut cluster, log) = (cluster(), Log::new("runs"));
    let third = cluster.add_agent(2, &[]);
    orphan(&cluster, &log, 200);
    waiting::until(|| log.lines().len() >= 50);
    cluster.signal(third, Signal::SIGKILL);
    cluster.wait_for_agent(third);
    assert_eq!(within(seconds(30), || attach(&cluster, "nightly").get().unwrap()), squares(200));
    cluster.stop().unwrap();
}

fn items_run_at_most_once() {
    let (mut cluster, log) = (cluster(), Log::new("runs"));
    let pool = pool(cluster.address());
    let job = pool.job(noted_nap).retries(0).chunksize(1).detach("once").starmap(items(log.path(), 200)).unwrap();
    drop(pool);
    waiting::until(|| log.lines().len() >= 50);
    cluster.restart_coordinator();
    assert_eq!(within(seconds(30), || job.get().unwrap()), squares(200));
    assert!((0..200).all(|item| log.count(item) == 1));
    cluster.stop().unwrap();
}

/// Its program is at the coordinator before any agent needs it, so the client is not needed.
fn a_job_waits_for_its_agents() {
    let (mut cluster, log) = (bare(), Log::new("runs"));
    orphan(&cluster, &log, 20);
    cluster.restart_coordinator();
    let job = attach(&cluster, "nightly");
    assert_eq!(job.status().unwrap().state, DetachedState::Running);
    thread::sleep(millis(50));
    assert!(log.lines().is_empty());
    cluster.add_agent(2, &[]);
    assert_eq!(within(seconds(30), || job.get().unwrap()), squares(20));
    cluster.stop().unwrap();
}
