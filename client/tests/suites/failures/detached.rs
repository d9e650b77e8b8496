//! Detached jobs: whatever is killed, restarted or cut off, each item's outcome is there, once; or there is no job at all.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use farpool::{Detached, DetachedState, ErrorKind, Pool};
use farpool_testkit::cable::Cable;
use farpool_testkit::waiting;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::cluster::{self, Cluster};
use crate::failures::checks::{has_words, millis, seconds, serves_on, within};
use crate::failures::client::Client;
use crate::failures::forks::{drop_in_fork, ended_well, forked, in_a_fork, leave};
use crate::failures::tasks::nap;
use crate::log::{self, Log};
use crate::pools;
use crate::runner;

crate::runner::cases![
    the_client_is_killed_and_the_coordinator_restarted,
    the_coordinator_is_restarted_while_outcomes_are_read,
    the_coordinator_is_restarted_while_the_job_is_sent,
    the_connection_is_cut_while_the_job_is_sent,
    the_client_is_killed_while_the_job_is_sent,
    an_agent_is_killed,
    items_run_at_most_once,
    a_job_is_cancelled,
    items_that_fail,
    items_that_count_as_failed,
    what_cannot_be_sent_leaves_nothing,
    names_and_types,
    a_type_that_has_changed,
    a_job_waits_for_its_agents,
    a_coordinator_without_a_journal,
    a_disk_that_does_not_take_the_job,
    a_fork_reads_anew_and_disturbs_nobody,
    an_input_that_forks_while_the_job_is_sent,
];

/// A coordinator that keeps jobs, without an agent.
fn bare() -> Cluster {
    let journal = runner::scratch().join("journal");
    cluster::empty_with(&["--journal", journal.to_str().expect("paths of tests are text")])
}

/// The same with two agents of two slots.
fn cluster() -> Cluster {
    let mut cluster = bare();
    cluster.add_agent(2, &[]);
    cluster.add_agent(2, &[]);
    cluster
}

fn pool(address: &str) -> Pool {
    pools::builder().address(address).build().expect("the pool opens")
}

fn attach(cluster: &Cluster, name: &str) -> Detached<u64> {
    farpool::attach_to(cluster.address(), name).expect("it is there")
}

fn noted_nap(path: String, item: u64) -> u64 {
    log::note(&path, item);
    nap(20);
    item * item
}

fn items(path: String, count: u64) -> impl Iterator<Item = (String, u64)> {
    (0..count).map(move |item| (path.clone(), item))
}

fn squares(count: u64) -> Vec<u64> {
    (0..count).map(|n| n * n).collect()
}

/// Detaches a job of so many items, says so, and waits to be killed.
pub(crate) fn detaches(address: &str, path: &str, items: u64) {
    let pool = pool(address);
    let job = pool.job(noted_nap).chunksize(1).label("naps");
    let job = job.detach("nightly").starmap(self::items(path.to_owned(), items)).unwrap();
    // What agents have of a client's own pool they keep for a while, should the coordinator be lost together with the client.
    drop(pool);
    println!("{} is detached", job.name());
    nap(crate::failures::tasks::FOR_EVER);
}

/// The same, and it hangs before the last item.
pub(crate) fn detaches_not_all(address: &str, path: &str, items: u64) {
    let pool = pool(address);
    let items = self::items(path.to_owned(), items).inspect(move |(_, item)| {
        if *item == items - 1 {
            println!("nearly all");
            nap(crate::failures::tasks::FOR_EVER);
        }
    });
    pool.job(noted_nap).detach("nightly").starmap(items).unwrap();
}

/// A job of so many items whose client was killed when it had detached it.
fn orphan(cluster: &Cluster, log: &Log, items: u64) {
    let mut client = Client::start("detaches", &[cluster.address(), &log.path(), &items.to_string()]);
    assert_eq!(within(seconds(20), || client.line()), "nightly is detached");
    client.signal(Signal::SIGKILL);
    client.end();
}

fn the_client_is_killed_and_the_coordinator_restarted() {
    let (mut cluster, log) = (cluster(), Log::new("runs"));
    orphan(&cluster, &log, 300);
    waiting::until(|| log.lines().len() >= 50);
    cluster.restart_coordinator();
    let job = attach(&cluster, "nightly");
    // Several read it, one of them in the middle of it.
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
    // They stay, over a restart too, until the job is discarded.
    cluster.restart_coordinator();
    assert_eq!(within(seconds(20), || job.get().unwrap()), squares(300));
    job.discard().unwrap();
    let error = job.get().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    has_words(&error, &["nightly", "farpool results"]);
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

/// An input that takes its time, and what is done in the middle of it.
fn interrupted(pool: &Pool, mut interrupt: impl FnMut()) -> Detached<u64> {
    let items = (0..60_000_u64).inspect(move |item| {
        if item % 10_000 == 5000 {
            interrupt();
        }
    });
    // Large enough that the job does not fit into what may be on its way.
    let job = pool.job(|(item, _): (u64, Vec<u8>)| item * item).detach("nightly");
    job.map(items.map(|item| (item, vec![7; 1000]))).unwrap()
}

fn the_coordinator_is_restarted_while_the_job_is_sent() {
    let mut cluster = cluster();
    let pool = pool(cluster.address());
    let job = interrupted(&pool, || cluster.restart_coordinator());
    assert_eq!(within(seconds(30), || job.get().unwrap()), squares(60_000));
    // It has come back too: otherwise agents would wait for it.
    serves_on(&pool);
    drop(pool);
    cluster.stop().unwrap();
}

fn the_connection_is_cut_while_the_job_is_sent() {
    let cluster = cluster();
    let proxy = Cable::to(cluster.socket());
    let pool = pool(&proxy.address());
    // Its program has come: that is cut off elsewhere.
    serves_on(&pool);
    let job = interrupted(&pool, || {
        proxy.cut();
    });
    proxy.cut();
    assert_eq!(within(seconds(30), || job.get().unwrap()), squares(60_000));
    serves_on(&pool);
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
    // The coordinator waits a while for the client; the name need not.
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

fn a_job_is_cancelled() {
    let (mut cluster, log) = (cluster(), Log::new("runs"));
    orphan(&cluster, &log, 3000);
    waiting::until(|| log.lines().len() >= 50);
    let job = attach(&cluster, "nightly");
    let waiter = thread::spawn({
        let job = job.clone();
        move || job.get().unwrap_err()
    });
    job.cancel().unwrap();
    let error = within(seconds(20), || waiter.join().unwrap());
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    waiting::until_gone(seconds(5), || cluster.workers());
    cluster.restart_coordinator();
    let status = job.status().unwrap();
    assert_eq!(status.state, DetachedState::Cancelled);
    assert!(status.done > 0 && status.done < 3000, "{status:?}");
    let mut there = 0;
    for (item, outcome) in (0..).zip(job.iter().unwrap()) {
        match outcome {
            Ok(result) => {
                assert_eq!(result, item * item);
                there += 1;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}"),
        }
    }
    assert_eq!(there, status.done);
    // Again, which changes nothing.
    job.cancel().unwrap();
    cluster.stop().unwrap();
}

fn picky(item: u64) -> u64 {
    match item {
        3 => panic!("three"),
        5 => std::process::exit(7),
        _ => item * item,
    }
}

fn items_that_fail() {
    let mut cluster = cluster();
    let pool = pool(cluster.address());
    let job = pool.job(picky).retries(1).detach("picky").map(0..10_u64).unwrap();
    drop(pool);
    let error = within(seconds(20), || job.get().unwrap_err());
    assert_eq!((error.kind(), error.item()), (ErrorKind::Panicked, Some(3)), "{error}");
    cluster.restart_coordinator();
    let outcomes: Vec<_> = job.iter().unwrap().collect();
    let failed: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert_eq!((outcomes.len(), failed.len()), (10, 2));
    assert_eq!((failed[1].kind(), failed[1].item(), failed[1].attempts()), (ErrorKind::WorkerDied, Some(5), 2));
    has_words(failed[1], &["exited with code 7", "picky"]);
    assert_eq!(job.status().unwrap().failed, 2);
    cluster.stop().unwrap();
}

/// Item 3 counts as failed when it is run for the first time, and item 5 each time.
fn poor((log, item): (String, u64)) -> u64 {
    log::note(&log, item);
    let runs = fs::read_to_string(&log).unwrap().lines().filter(|line| *line == item.to_string()).count();
    if item == 5 || item == 3 && runs == 1 {
        farpool::count_as_failed();
    }
    100 * runs as u64 + item
}

fn items_that_count_as_failed() {
    let (mut cluster, log) = (cluster(), Log::new("runs"));
    let pool = pool(cluster.address());
    let items = (0..10_u64).map(|item| (log.path(), item)).collect::<Vec<_>>();
    let job = pool.job(poor).retries(2).retry_failed(true).detach("poor").map(items).unwrap();
    drop(pool);
    let expected = [100, 101, 102, 203, 104, 305, 106, 107, 108, 109];
    assert_eq!(within(seconds(20), || job.get().unwrap()), expected);
    let status = job.status().unwrap();
    assert_eq!((status.done, status.failed), (10, 1));
    cluster.restart_coordinator();
    assert_eq!((job.get().unwrap(), job.status().unwrap().failed), (expected.to_vec(), 1));
    assert_eq!([3, 4, 5].map(|item| log.count(item)), [2, 1, 3]);
    cluster.stop().unwrap();
}

fn what_cannot_be_sent_leaves_nothing() {
    let cluster = cluster();
    let pool = pools::pool(pools::builder().address(cluster.address()).payload_limit(10_000));
    let length = |bytes: Vec<u8>| bytes.len() as u64;
    let with_a_large_one = (0..50_000).map(|item| vec![0; if item == 49_999 { 20_000 } else { 10 }]);
    let error = pool.job(length).detach("nightly").map(with_a_large_one).unwrap_err();
    assert_eq!((error.kind(), error.item()), (ErrorKind::PayloadTooLarge, Some(49_999)));
    let panics = (0..50_000).map(|item| if item == 49_999 { panic!("the input panics") } else { vec![0; 10] });
    let job = pool.job(length).detach("nightly");
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job.map(panics).map(drop))).unwrap_err();
    // The name is free.
    let job = job.map([vec![0; 7]]).unwrap();
    assert_eq!(within(seconds(20), || job.get().unwrap()), [7]);
    drop(pool);
    cluster.stop().unwrap();
}

fn names_and_types() {
    let cluster = cluster();
    let pool = pool(cluster.address());
    let job = pool.job(noted_nap).detach("nightly");
    let log = Log::new("runs");
    let detached = job.starmap(items(log.path(), 3)).unwrap();
    let error = job.starmap(items(log.path(), 3)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    has_words(&error, &["detach \"nightly\"", "--discard"]);
    let error = farpool::attach_to::<String>(cluster.address(), "nightly").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    has_words(&error, &["of type u64", "alloc::string::String"]);
    let error = farpool::attach_to::<u64>(cluster.address(), "weekly").unwrap_err();
    has_words(&error, &["attach \"weekly\"", "farpool results"]);
    assert_eq!(within(seconds(20), || detached.get().unwrap()), squares(3));
    for name in [String::new(), "a\nb".to_owned(), "x".repeat(10_000)] {
        let error = pool.job(noted_nap).detach(&*name).apply((log.path(), 1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
    // No item at all, and one.
    let none = pool.job(noted_nap).detach("none").starmap(items(log.path(), 0)).unwrap();
    assert_eq!(within(seconds(20), || none.get().unwrap()), squares(0));
    let one = pool.job(noted_nap).detach("one").apply((log.path(), 3)).unwrap();
    assert_eq!(within(seconds(20), || one.get().unwrap()), [9]);
    pool.close();
    let error = pool.job(noted_nap).detach("more").apply((log.path(), 3)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    drop(pool);
    cluster.stop().unwrap();
}

/// As a newer program would pick it up, whose type has the same name: two of one name, in blocks of one function.
fn a_type_that_has_changed() {
    let cluster = cluster();
    let pool = pool(cluster.address());
    {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Report {
            cents: u64,
            count: u64,
        }
        let report = |count: u64| Report { cents: 300, count };
        let job = pool.job(report).detach("nightly").map(0..3).unwrap();
        let job = farpool::attach_to::<Report>(cluster.address(), job.name()).unwrap();
        let expected: Vec<_> = (0..3).map(report).collect();
        assert_eq!(within(seconds(20), || job.get().unwrap()), expected);
    }
    {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Report {
            count: u64,
            cents: u64,
        }
        let job = farpool::attach_to::<Report>(cluster.address(), "nightly").unwrap();
        let error = job.get().unwrap_err();
        assert_eq!((error.kind(), error.item()), (ErrorKind::Codec, Some(0)), "{error}");
        has_words(&error, &["Report", "another build of the program"]);
        let outcomes: Vec<_> = job.iter().unwrap().collect();
        assert_eq!(outcomes.len(), 3);
        assert!(outcomes.iter().all(|outcome| outcome.as_ref().unwrap_err().kind() == ErrorKind::Codec));
    }
    drop(pool);
    cluster.stop().unwrap();
}

/// Its program, too, is at the coordinator before any agent needs it, whatever has become of the client.
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

fn a_coordinator_without_a_journal() {
    let cluster = cluster::empty();
    let pool = pool(cluster.address());
    let errors = [
        pool.job(noted_nap).detach("nightly").apply(("x".to_owned(), 1)).unwrap_err(),
        farpool::attach_to::<u64>(cluster.address(), "nightly").unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        has_words(&error, &["--journal"]);
    }
    drop(pool);
    cluster.stop().unwrap();
}

/// A handle is a name, which a fork may use. What is being read is the parent's.
/// How long the records of a segment of a journal are.
fn records(segment: &Path) -> Vec<u64> {
    let bytes = fs::read(segment).expect("there is a segment");
    let (mut rest, mut records) = (&bytes[32..], Vec::new());
    while let [_, _, _, _, _, _, _, _, a, b, c, d, ..] = *rest {
        let length = 16 + u32::from_le_bytes([a, b, c, d]) as usize;
        records.push(length as u64);
        rest = rest.get(length..).unwrap_or_default();
    }
    records
}

/// Whatever part of a job the disk does not take, its last byte alone or nearly all of it: the job is refused at once, and never runs, should
/// the coordinator be killed then. As if the disk were full, files of the coordinator cannot become longer.
fn a_disk_that_does_not_take_the_job() {
    let (mut cluster, log) = (bare(), Log::new("runs"));
    let segment = runner::scratch().join("journal/0000000001.farpool-journal");
    let pool = pool(cluster.address());
    let detach = |name: &str| pool.job(noted_nap).detach(name).starmap(items(log.path(), 1));
    for name in ["kept-0", "kept-1"] {
        detach(name).unwrap();
    }
    // Of each its pool, itself, the item, the end, and that the item may have been given out.
    waiting::until(|| records(&segment).len() == 10);
    let bytes = records(&segment)[5..9].iter().sum::<u64>();
    for (round, lacking) in [1, 28, 30, bytes / 2, bytes].into_iter().enumerate() {
        let limit = fs::metadata(&segment).expect("it is there").len() + bytes - lacking;
        let mut limiting = Command::new("prlimit");
        limiting.args([format!("--pid={}", cluster.coordinator()), format!("--fsize={limit}:")]);
        assert!(limiting.status().expect("util-linux is there").success());
        let error = within(seconds(1), || detach(&format!("lost-{round}")).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{lacking} of {bytes} bytes: {error}");
        has_words(&error, &["the journal in", "cannot be written to", "File too large"]);
        cluster.restart_coordinator();
    }
    drop(pool);
    cluster.add_agent(2, &[]);
    for name in ["kept-0", "kept-1"] {
        let job: Detached<u64> = farpool::attach_to(cluster.address(), name).unwrap();
        assert_eq!(within(seconds(20), || job.get().unwrap()), squares(1));
    }
    assert_eq!(log.lines().len(), 2, "what was refused has run");
    cluster.stop().unwrap();
}

fn a_fork_reads_anew_and_disturbs_nobody() {
    let cluster = cluster();
    let pool = pool(cluster.address());
    let job = pool.job(nap).detach("nightly").map(0..40).unwrap();
    let mut outcomes = job.iter().unwrap();
    assert_eq!(outcomes.next().unwrap().unwrap(), 0);
    let mut others = job.iter().unwrap();
    in_a_fork(|| {
        let error = outcomes.next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        has_words(&error, &["this process is a fork of it", "attach(..) to the job here"]);
        assert!(outcomes.next().is_none());
        drop_in_fork(&others);
        assert_eq!(job.get().unwrap(), (0..40).collect::<Vec<_>>());
        assert_eq!(attach(&cluster, "nightly").status().unwrap().state, DetachedState::Finished);
        drop_in_fork(&outcomes);
        drop_in_fork(&job);
    });
    assert_eq!(outcomes.map(Result::unwrap).collect::<Vec<_>>(), (1..40).collect::<Vec<_>>());
    assert_eq!(others.by_ref().map(Result::unwrap).count(), 40);
    job.discard().unwrap();
}

/// The child is in the call as well: it is refused, and does not take back what the parent goes on to send.
fn an_input_that_forks_while_the_job_is_sent() {
    let (cluster, parent) = (cluster(), std::process::id());
    let pool = pool(cluster.address());
    let mut child = None;
    let input = (0..60_000_u64).inspect(|item| {
        if *item == 30_000 {
            child = forked();
        }
    });
    let job = pool.job(crate::failures::tasks::square).detach("nightly").map(input);
    if std::process::id() != parent {
        let error = job.unwrap_err();
        leave(i32::from(error.kind() != ErrorKind::InvalidArgument));
    }
    ended_well(child.expect("it has forked"));
    let job = job.unwrap();
    assert_eq!(job.get().unwrap(), squares(60_000));
    job.discard().unwrap();
}
