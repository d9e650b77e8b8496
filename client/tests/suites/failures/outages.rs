//! Connections are cut and coordinators are restarted in the middle of jobs: nothing is lost, and nothing is delivered twice.

use std::time::Instant;

use farpool::{AsyncResult, ErrorKind, Pool, Shared};
use farpool_testkit::cable::Cable;
use farpool_testkit::waiting;

use crate::cluster::{self, Cluster};
use crate::failures::checks::{check_words, millis, seconds, still_works, within};
use crate::failures::tasks::{hang, nap, square};
use crate::log::{self, Log};
use crate::pools;
use crate::report_pipe::ReportPipe;

crate::runner::cases![
    the_clients_connection_is_cut_in_the_middle_of_a_map,
    an_agents_connection_is_cut_in_the_middle_of_a_map,
    the_coordinator_is_restarted_in_the_middle_of_a_map,
    the_coordinator_is_restarted_in_the_middle_of_an_imap,
    the_coordinator_is_restarted_during_many_calls,
    the_coordinator_is_restarted_during_several_jobs,
    the_coordinator_is_restarted_repeatedly,
    the_coordinator_is_restarted_and_items_run_at_most_once,
    the_coordinator_is_restarted_while_items_use_a_shared_value,
    a_client_disconnected_for_too_long_starts_afresh,
    a_coordinator_that_does_not_return,
    terminate_while_the_coordinator_is_down,
    values_are_shared_while_the_coordinator_is_down,
];

/// Starts a coordinator with two agents of two slots.
fn cluster() -> Cluster {
    let mut cluster = cluster::empty();
    cluster.add_agent(2, &[]);
    cluster.add_agent(2, &[]);
    cluster
}

fn pool(address: &str) -> Pool {
    pools::builder().address(address).build().expect("cannot open the pool")
}

fn noted_nap(path: String, item: u64) -> u64 {
    log::note(&path, item);
    nap(20);
    item * item
}

fn items(log: &Log, count: u64) -> Vec<(String, u64)> {
    (0..count).map(|item| (log.path(), item)).collect()
}

fn squares(count: u64) -> Vec<u64> {
    (0..count).map(|n| n * n).collect()
}

/// Checks that every result arrived, and that no more than `again` items ran twice.
fn check(results: Vec<u64>, log: &Log, again: usize) {
    let count = results.len();
    assert_eq!(results, squares(count as u64));
    let runs = log.lines().len();
    assert!((count..=count + again).contains(&runs), "{count} items ran {runs} times");
}

fn finish(pool: Pool, cluster: Cluster) {
    still_works(&pool);
    drop(pool);
    cluster.stop().unwrap();
}

fn the_clients_connection_is_cut_in_the_middle_of_a_map() {
    let cluster = cluster();
    let proxy = Cable::to(cluster.socket());
    let (pool, log) = (pool(&proxy.address()), Log::new("runs"));
    let map = pool.job(noted_nap).starmap_async(items(&log, 300));
    for cut in 1..=5 {
        waiting::until(|| log.lines().len() >= 40 * cut && proxy.cut() > 0);
    }
    // It reconnected each time before it was declared lost.
    check(within(seconds(20), || map.get().unwrap()), &log, 0);
    finish(pool, cluster);
}

fn an_agents_connection_is_cut_in_the_middle_of_a_map() {
    let mut cluster = cluster::empty();
    let proxy = Cable::to(cluster.socket());
    cluster.add_agent_through(&proxy.address(), 2, &[]);
    cluster.add_agent(2, &[]);
    let (pool, log) = (pool(cluster.address()), Log::new("runs"));
    let map = pool.job(noted_nap).starmap_async(items(&log, 300));
    for cut in 1..=5 {
        waiting::until(|| log.lines().len() >= 40 * cut);
        proxy.cut();
    }
    check(within(seconds(20), || map.get().unwrap()), &log, 0);
    finish(pool, cluster);
}

/// Items that ran when the coordinator was killed keep running, and count: nothing runs twice.
fn the_coordinator_is_restarted_in_the_middle_of_a_map() {
    let mut cluster = cluster();
    let (pool, log) = (pool(cluster.address()), Log::new("runs"));
    let map = pool.job(noted_nap).chunksize(1).starmap_async(items(&log, 300));
    waiting::until(|| log.lines().len() >= 50);
    cluster.restart_coordinator();
    check(within(seconds(20), || map.get().unwrap()), &log, 0);
    finish(pool, cluster);
}

/// Agents keep the value, an agent that was restarted gets it again, and it stays although its handle is gone.
fn the_coordinator_is_restarted_while_items_use_a_shared_value() {
    fn noted_sum((path, values, item): (String, Shared<Vec<u64>>, usize)) -> u64 {
        log::note(&path, item as u64);
        nap(20);
        values[item] + values[item]
    }
    let mut cluster = cluster();
    let (pool, log) = (pool(cluster.address()), Log::new("runs"));
    let shared = pool.share((0..100_000).collect::<Vec<u64>>()).unwrap();
    let items: Vec<_> = (0..300).map(|item| (log.path(), shared.clone(), item)).collect();
    let map = pool.job(noted_sum).chunksize(1).map_async(items);
    waiting::until(|| log.lines().len() >= 50);
    cluster.restart_coordinator();
    waiting::until(|| log.lines().len() >= 100);
    drop(shared);
    cluster.restart_coordinator();
    cluster.add_agent(2, &[]);
    assert_eq!(within(seconds(20), || map.get().unwrap()), (0..300).map(|n| 2 * n).collect::<Vec<_>>());
    assert_eq!(log.lines().len(), 300);
    finish(pool, cluster);
}

fn the_coordinator_is_restarted_in_the_middle_of_an_imap() {
    let mut cluster = cluster();
    let pool = pool(cluster.address());
    let mut results = pool.job(square).buffersize(50).imap(0..);
    for item in 0..2000 {
        if item % 700 == 600 {
            cluster.restart_coordinator();
        }
        assert_eq!(within(seconds(20), || results.next().unwrap().unwrap()), item * item);
    }
    drop(results);
    finish(pool, cluster);
}

fn the_coordinator_is_restarted_during_many_calls() {
    let mut cluster = cluster();
    let (pool, log) = (pool(cluster.address()), Log::new("runs"));
    let call = |item| pool.apply_async(noted_nap, (log.path(), item));
    let mut calls: Vec<AsyncResult<u64>> = (0..100).map(call).collect();
    waiting::until(|| log.lines().len() >= 20);
    cluster.kill_coordinator();
    // No coordinator knows these yet.
    calls.extend((100..150).map(call));
    cluster.start_coordinator();
    calls.extend((150..200).map(call));
    let results = calls.into_iter().map(|call| within(seconds(20), || call.get().unwrap())).collect();
    check(results, &log, 0);
    finish(pool, cluster);
}

fn the_coordinator_is_restarted_during_several_jobs() {
    let mut cluster = cluster();
    let pools = [pool(cluster.address()), pool(cluster.address())];
    let logs = ["a", "b", "c", "d"].map(Log::new);
    let options = [(1, 2), (7, 2), (3, 1)];
    let maps: Vec<_> = options
        .into_iter()
        .zip(&logs)
        .map(|((chunksize, retries), log)| {
            let pool = &pools[chunksize as usize % 2];
            pool.job(noted_nap).chunksize(chunksize).retries(retries).starmap_async(items(log, 100))
        })
        .collect();
    // This job ends before, and is not resent.
    let early = pools[0].job(noted_nap).priority(5).starmap_async(items(&logs[3], 4));
    check(within(seconds(20), || early.get().unwrap()), &logs[3], 0);
    waiting::until(|| logs.iter().map(|log| log.lines().len()).sum::<usize>() >= 60);
    cluster.restart_coordinator();
    for (map, log) in maps.into_iter().zip(&logs) {
        check(within(seconds(20), || map.get().unwrap()), log, 0);
    }
    let [first, second] = pools;
    drop(second);
    finish(first, cluster);
}

fn the_coordinator_is_restarted_repeatedly() {
    let mut cluster = cluster();
    let (pool, log) = (pool(cluster.address()), Log::new("runs"));
    let map = pool.job(noted_nap).starmap_async(items(&log, 400));
    for pause in [300, 10, 0, 700, 100, 1, 400] {
        cluster.kill_coordinator();
        std::thread::sleep(millis(pause));
        cluster.start_coordinator();
        std::thread::sleep(millis(pause));
    }
    check(within(seconds(40), || map.get().unwrap()), &log, 0);
    finish(pool, cluster);
}

fn the_coordinator_is_restarted_and_items_run_at_most_once() {
    let mut cluster = cluster();
    let (pool, log) = (pool(cluster.address()), Log::new("runs"));
    let map = pool.job(noted_nap).retries(0).chunksize(1).starmap_async(items(&log, 200));
    waiting::until(|| log.lines().len() >= 50);
    cluster.restart_coordinator();
    // All agents are still running their items.
    check(within(seconds(20), || map.get().unwrap()), &log, 0);
    assert!((0..200).all(|item| log.count(item) == 1));
    finish(pool, cluster);
}

/// The coordinator has closed the pool and killed its items, and answers that it does not know the pool.
fn a_client_disconnected_for_too_long_starts_afresh() {
    let cluster = cluster();
    let proxy = Cable::to(cluster.socket());
    let (pool, log) = (pool(&proxy.address()), Log::new("runs"));
    let map = pool.job(noted_nap).chunksize(1).starmap_async(items(&log, 200));
    let once: Vec<_> = (1000..1100).map(|item| (log.path(), item)).collect();
    let once = pool.job(noted_nap).retries(0).priority(3).chunksize(1).starmap_async(once);
    waiting::until(|| log.lines().len() >= 20);
    proxy.unplug();
    waiting::until_gone(seconds(10), || cluster.workers());
    proxy.plug();
    let error = within(seconds(20), || once.get().unwrap_err());
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::AgentLost, 1), "{error}");
    check_words(&error, &["may have run", "retries"]);
    assert_eq!(within(seconds(20), || map.get().unwrap()), squares(200));
    assert!((1000..1100).all(|item| log.count(item) <= 1));
    finish(pool, cluster);
}

fn a_coordinator_that_does_not_return() {
    let mut cluster = cluster::empty();
    cluster.add_agent(2, &["--orphan-timeout", "1s"]);
    let options = pools::builder().address(cluster.address()).reconnect_timeout(seconds(1));
    let (pool, mut line) = (pools::pool(options), ReportPipe::new("pids"));
    let doomed = pool.map_async(hang, vec![line.path(); 4]);
    line.next_number();
    let start = Instant::now();
    cluster.kill_coordinator();
    let words = format!("the connection to {} was lost while a job was open: ", cluster.address());
    for error in [within(seconds(4), || doomed.get().unwrap_err()), pool.apply(square, (1,)).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        check_words(&error, &[&words, "within 1s", "refused"]);
    }
    assert!(start.elapsed() >= seconds(1));
    within(seconds(1), || drop(pool));
    // The agent waits for a coordinator, too, and then kills orphaned workers.
    waiting::until_gone(seconds(5), || cluster.workers());
}

fn terminate_while_the_coordinator_is_down() {
    let mut cluster = cluster::empty();
    cluster.add_agent(2, &["--orphan-timeout", "1s"]);
    let (pool, mut line) = (pool(cluster.address()), ReportPipe::new("pids"));
    let doomed = pool.map_async(hang, vec![line.path(); 4]);
    line.next_number();
    cluster.kill_coordinator();
    std::thread::sleep(millis(100));
    pool.terminate();
    within(seconds(1), || pool.join().unwrap());
    assert_eq!(doomed.get().unwrap_err().kind(), ErrorKind::Cancelled);
    waiting::until_gone(seconds(5), || cluster.workers());
    // The client does not reopen the pool.
    cluster.start_coordinator();
    let other = self::pool(cluster.address());
    finish(other, cluster);
}

/// Items that were begun before the outage use a value that is shared during it.
fn values_are_shared_while_the_coordinator_is_down() {
    fn first((values, item): (Shared<Vec<u64>>, u64)) -> u64 {
        values[0] + item
    }
    let mut cluster = cluster::empty();
    cluster.add_agent(2, &["--orphan-timeout", "2s"]);
    cluster.add_agent(2, &["--orphan-timeout", "2s"]);
    let pool = pool(cluster.address());
    let (send, input) = std::sync::mpsc::channel();
    let mut sums = pool.job(first).buffersize(1).imap_unordered(input);
    let share = |item: u64| (pool.share(vec![item; 50_000]).unwrap(), item);
    send.send(share(0)).unwrap();
    assert_eq!(within(seconds(20), || sums.next().unwrap().unwrap()), 0);
    cluster.kill_coordinator();
    (1..20).for_each(|item| send.send(share(item)).unwrap());
    drop(send);
    std::thread::scope(|scope| {
        let rest = scope.spawn(|| sums.map(Result::unwrap).sum::<u64>());
        cluster.start_coordinator();
        assert_eq!(within(seconds(30), || rest.join().unwrap()), 2 * 190);
    });
    let kept = pool.share(vec![1_u64]).unwrap();
    cluster.kill_coordinator();
    pool.close();
    // A value that is kept is no reason to wait for the coordinator.
    within(seconds(5), || pool.join().unwrap());
    drop(kept);
    waiting::until_gone(seconds(10), || cluster.workers());
}
