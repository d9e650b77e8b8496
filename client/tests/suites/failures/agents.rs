//! Daemons of a cluster are lost in the middle of a map.

use farpool::{ErrorKind, Pool};
use farpool_testkit::processes;
use farpool_testkit::waiting;
use nix::sys::signal::Signal;

use crate::cluster::{self, Cluster};
use crate::failures::checks::{check_words, millis, seconds, still_works, within};
use crate::failures::tasks::{hang, nap, square};
use crate::log::{self, Log};
use crate::pools;
use crate::report_pipe::ReportPipe;

crate::runner::cases![
    an_agent_is_killed_in_the_middle_of_a_map,
    an_agent_is_lost_with_at_most_once_items,
    an_agent_is_stopped_and_continues,
    a_coordinator_stops_responding,
];

fn cluster() -> (Cluster, [u32; 2], Pool) {
    let mut cluster = cluster::empty();
    let agents = [cluster.add_agent(2, &[]), cluster.add_agent(2, &[])];
    let pool = pools::builder().address(cluster.address()).build().expect("cannot open the pool");
    (cluster, agents, pool)
}

fn noted_nap(path: String, item: u64) -> u64 {
    log::note(&path, item);
    nap(20);
    item
}

fn an_agent_is_killed_in_the_middle_of_a_map() {
    let (mut cluster, agents, pool) = cluster();
    let log = Log::new("runs");
    let items: Vec<_> = (0..200).map(|item| (log.path(), item)).collect();
    let running = pool.job(noted_nap).chunksize(1).starmap_async(items);
    waiting::until(|| log.lines().len() >= 20);
    cluster.signal(agents[0], Signal::SIGKILL);
    cluster.wait_for_agent(agents[0]);
    assert_eq!(within(seconds(20), || running.get().unwrap()), (0..200).collect::<Vec<_>>());
    // Only items that ran there ran again.
    let again = log.lines().len() - 200;
    assert!(again <= 2, "{again} items ran again");
    still_works(&pool);
    drop(pool);
    cluster.stop().unwrap();
}

fn an_agent_is_lost_with_at_most_once_items() {
    let (mut cluster, agents, pool) = cluster();
    let mut line = ReportPipe::new("pids");
    let doomed = pool.job(hang).retries(0).chunksize(1).map_async(vec![line.path(); 4]);
    let pids = [(); 4].map(|()| line.next_number());
    cluster.signal(agents[1], Signal::SIGKILL);
    cluster.wait_for_agent(agents[1]);
    // Items at the other agent keep running: the error is returned when all have ended.
    doomed.cancel();
    assert_eq!(doomed.get().unwrap_err().kind(), ErrorKind::Cancelled);
    waiting::until_gone(seconds(5), || pids.iter().filter_map(|pid| processes::Process::of(*pid)).collect());
    let mut outcomes = pool.job(hang).retries(0).chunksize(1).imap(vec![line.path(); 2]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            line.next_number();
            line.next_number();
            cluster.signal(agents[0], Signal::SIGKILL);
        });
        for item in 0..2 {
            let error = outcomes.next().unwrap().unwrap_err();
            assert_eq!(
                (error.kind(), error.item(), error.attempts()),
                (ErrorKind::AgentLost, Some(item), 1),
                "{error}"
            );
            check_words(&error, &["raise .retries(n)"]);
        }
    });
    drop(outcomes);
    cluster.wait_for_agent(agents[0]);
    drop(pool);
    cluster.stop().unwrap();
}

/// Its workers keep running, and another agent runs the same items: each item has one outcome.
fn an_agent_is_stopped_and_continues() {
    let mut cluster = cluster::empty_with(&["--heartbeat-timeout", "1s"]);
    let stopped = cluster.add_agent(2, &[]);
    cluster.add_agent(2, &[]);
    let pool = pools::builder().address(cluster.address()).build().expect("cannot open the pool");
    let log = Log::new("runs");
    let items: Vec<_> = (0..300).map(|item| (log.path(), item)).collect();
    let running = pool.job(noted_nap).starmap_async(items);
    waiting::until(|| log.lines().len() >= 50);
    cluster.signal(stopped, Signal::SIGSTOP);
    std::thread::sleep(seconds(3));
    cluster.signal(stopped, Signal::SIGCONT);
    assert_eq!(within(seconds(20), || running.get().unwrap()), (0..300).collect::<Vec<_>>());
    still_works(&pool);
    drop(pool);
    waiting::until_gone(seconds(5), || cluster.workers());
    cluster.stop().unwrap();
}

/// Peers cannot distinguish this from a network that is cut.
fn a_coordinator_stops_responding() {
    let mut cluster = cluster::empty();
    for _ in 0..2 {
        cluster.add_agent(2, &["--orphan-timeout", "1s"]);
    }
    let options = pools::builder().address(cluster.address()).reconnect_timeout(millis(500));
    let (pool, mut line) = (pools::pool(options), ReportPipe::new("pids"));
    let doomed = pool.map_async(hang, vec![line.path(); 4]);
    line.next_number();
    cluster.signal(cluster.coordinator(), Signal::SIGSTOP);
    for error in [within(seconds(8), || doomed.get().unwrap_err()), pool.apply(square, (1,)).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let words = format!("the connection to {} was lost while a job was open: ", cluster.address());
        check_words(&error, &[&words]);
    }
    pool.close();
    within(seconds(1), || pool.join().unwrap_err());
    within(seconds(1), || drop(pool));
    waiting::until_gone(seconds(12), || cluster.workers());
}
