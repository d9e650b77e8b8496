//! Daemons of a cluster that are lost in the middle of a map.

use farpool::{ErrorKind, Pool};
use nix::sys::signal::Signal;

use crate::checks::{has_words, seconds, serves_on, within};
use crate::cluster::Cluster;
use crate::line::Line;
use crate::log::{self, Log};
use crate::tasks::{hang, nap, square};
use crate::waiting;
use crate::{pools, processes};

crate::runner::cases![
    an_agent_killed_in_the_middle_of_a_map,
    an_agent_lost_with_items_that_may_not_run_again,
    a_coordinator_killed_in_the_middle_of_a_map,
    a_coordinator_that_falls_silent,
];

fn cluster() -> (Cluster, [u32; 2], Pool) {
    let mut cluster = Cluster::empty();
    let agents = [cluster.add_agent(2, &[]), cluster.add_agent(2, &[])];
    let pool = pools::builder().address(cluster.address()).build().expect("the pool opens");
    (cluster, agents, pool)
}

fn noted_nap(path: String, item: u64) -> u64 {
    log::note(&path, item);
    nap(20);
    item
}

fn an_agent_killed_in_the_middle_of_a_map() {
    let (mut cluster, agents, pool) = cluster();
    let log = Log::new("runs");
    let items: Vec<_> = (0..200).map(|item| (log.path(), item)).collect();
    let running = pool.job(noted_nap).chunksize(1).starmap_async(items);
    waiting::until(|| log.lines().len() >= 20);
    cluster.signal(agents[0], Signal::SIGKILL);
    cluster.wait_for_agent(agents[0]);
    assert_eq!(within(seconds(20), || running.get().unwrap()), (0..200).collect::<Vec<_>>());
    // Only what ran there ran again.
    let again = log.lines().len() - 200;
    assert!(again <= 2, "{again} items ran again");
    serves_on(&pool);
    drop(pool);
    cluster.stop().unwrap();
}

fn an_agent_lost_with_items_that_may_not_run_again() {
    let (mut cluster, agents, pool) = cluster();
    let mut line = Line::new("pids");
    let doomed = pool.job(hang).retries(0).chunksize(1).map_async(vec![line.path(); 4]);
    let pids = [(); 4].map(|()| line.next_number());
    cluster.signal(agents[1], Signal::SIGKILL);
    cluster.wait_for_agent(agents[1]);
    // Those at the other agent run on: the error is told when all have ended.
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
            has_words(&error, &["raise .retries(n)"]);
        }
    });
    drop(outcomes);
    cluster.wait_for_agent(agents[0]);
    drop(pool);
    cluster.stop().unwrap();
}

fn lost(pool: &Pool, doomed: farpool::AsyncResult<Vec<()>>, cluster: &Cluster) {
    for error in [within(seconds(7), || doomed.get().unwrap_err()), pool.apply(square, (1,)).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let words = format!("the connection to {} was lost while a job was open: ", cluster.address());
        has_words(&error, &[&words]);
    }
    pool.close();
    within(seconds(1), || pool.join().unwrap_err());
}

fn a_coordinator_killed_in_the_middle_of_a_map() {
    let (cluster, _, pool) = cluster();
    let mut line = Line::new("pids");
    let doomed = pool.map_async(hang, vec![line.path(); 4]);
    line.next_number();
    cluster.signal(cluster.coordinator(), Signal::SIGKILL);
    lost(&pool, doomed, &cluster);
    within(seconds(1), || drop(pool));
    // The agents notice too, and end what nobody waits for.
    waiting::until_gone(seconds(5), || cluster.workers());
}

/// As seen from here, that is the same as a network that is cut.
fn a_coordinator_that_falls_silent() {
    let (cluster, _, pool) = cluster();
    let mut line = Line::new("pids");
    let doomed = pool.map_async(hang, vec![line.path(); 4]);
    line.next_number();
    cluster.signal(cluster.coordinator(), Signal::SIGSTOP);
    lost(&pool, doomed, &cluster);
    within(seconds(1), || drop(pool));
    waiting::until_gone(seconds(10), || cluster.workers());
}
