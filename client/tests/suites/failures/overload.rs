//! Clients that push far more than the coordinator may hold: it makes them wait, and loses nothing.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::{env, fs};

use farpool::{AsyncResult, Error, ErrorKind, Shared};
use farpool_testkit::waiting;
use nix::sys::signal::Signal;

use crate::cluster::{self, Cluster};
use crate::failures::checks::{check_words, seconds, still_works, within};
use crate::failures::operators;
use crate::failures::tasks::{FOREVER, nap};
use crate::{pools, runner};

crate::runner::cases![
    twenty_clients_push_far_more_than_fits,
    the_coordinator_is_restarted_while_clients_push_more_than_fits,
    a_client_with_more_than_fits_outlives_its_coordinator,
    an_item_beyond_half_of_the_memory,
    shared_values_beyond_the_memory,
    millions_of_items_fail_at_once,
];

const MIB: usize = 1 << 20;
const CLIENTS: u64 = 20;
/// After a restart, clients take turns to resend everything, which takes time.
const FEWER_CLIENTS: u64 = 12;
/// Items of one mebibyte, with results of the same size: 1.9 GiB in all.
const ITEMS: u64 = 48;
const MEMORY_MIB: u64 = 64;
/// In addition for each client: what is in transit to and from it, twice in memory while it is decoded.
const ROOM_MIB: u64 = 16;

/// All bytes of an item are the same, so that making and checking them takes little time.
fn negative(item: Vec<u8>) -> Vec<u8> {
    assert!(item == vec![item[0]; item.len()], "the item has changed on its way");
    vec![!item[0]; item.len()]
}

fn peak_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

fn cluster() -> Cluster {
    let mut cluster = cluster::empty_with(&["--memory", &format!("{MEMORY_MIB}MiB")]);
    cluster.add_agent(2, &[]);
    cluster.add_agent(2, &[]);
    cluster
}

/// Runs one client's items; counts the results.
fn push(address: &str, client: u64, done: &AtomicU64) {
    let pool = pools::builder().address(address).build().unwrap();
    let fill = |item: u64| (client * 7 + item * 3) as u8;
    let items = (0..ITEMS).map(|item| vec![fill(item); MIB]);
    let mut results = 0;
    for (item, result) in (0..).zip(pool.job(negative).buffersize(ITEMS).imap(items)) {
        let result = result.unwrap();
        assert!(result == vec![!fill(item); MIB], "{client}: {item}");
        results += 1;
        done.fetch_add(1, Ordering::Relaxed);
    }
    assert_eq!(results, ITEMS);
}

fn twenty_clients_push_far_more_than_fits() {
    let (cluster, done) = (cluster(), AtomicU64::new(0));
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (address, done) = (cluster.address(), &done);
            scope.spawn(move || push(address, client, done));
        }
    });
    let peak = peak_mib(cluster.coordinator());
    assert!(peak < MEMORY_MIB + CLIENTS * ROOM_MIB, "the coordinator has had {peak} MiB");
    operators::until(&cluster, operators::nothing_is_left);
    cluster.stop().unwrap();
}

/// The variable that names a file: until it exists, no item runs.
const START: &str = "FARPOOL_TEST_START";

fn negative_after_the_start(item: Vec<u8>) -> Vec<u8> {
    let start = PathBuf::from(env::var_os(START).unwrap());
    waiting::until(|| start.exists());
    nap(20);
    negative(item)
}

/// Items that were never sent need not be resent before the pool resumes.
fn a_client_with_more_than_fits_outlives_its_coordinator() {
    const JOBS: u8 = 32;
    const ITEMS: usize = 12;
    let mut cluster = cluster();
    let start = runner::scratch().join("start");
    let pool = pools::builder().address(cluster.address()).env(START, start.to_str().unwrap()).build().unwrap();
    let maps = (0..JOBS).map(|job| pool.map_async(negative_after_the_start, vec![vec![job; MIB]; ITEMS]));
    let maps: Vec<_> = maps.collect();
    operators::until(&cluster, |status| status["held_bytes"].as_u64() >= Some(MEMORY_MIB * MIB as u64 / 10 * 9));
    fs::write(start, "").unwrap();
    waiting::until(|| maps.iter().any(AsyncResult::ready));
    cluster.restart_coordinator();
    for (job, map) in (0..JOBS).zip(maps) {
        let results = within(seconds(60), || map.get().unwrap());
        assert!(results.len() == ITEMS && results.iter().all(|result| *result == vec![!job; MIB]), "{job}");
    }
    let peak = peak_mib(cluster.coordinator());
    assert!(peak < 3 * MEMORY_MIB + ROOM_MIB, "the coordinator has had {peak} MiB");
    still_works(&pool);
    drop(pool);
    operators::until(&cluster, operators::nothing_is_left);
    cluster.stop().unwrap();
}

/// The client refuses it: otherwise its message would end the session. The largest one that the coordinator accepts arrives.
/// One that is too large is refused; many that are not end with an error, or with their results if some are dropped in time.
fn shared_values_beyond_the_memory() {
    fn length(value: Shared<Vec<u8>>) -> usize {
        value.len()
    }
    const BYTES: usize = 6 << 20;
    let mut cluster = cluster::empty_with(&["--memory", "16MiB"]);
    cluster.add_agent(2, &[]);
    let pool = pools::builder().address(cluster.address()).build().expect("cannot open the pool");
    let error = pool.share(vec![1_u8; 9 << 20]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PayloadTooLarge, "{error}");
    check_words(&error, &["shared value", "the limit of the coordinator is 8388608", "--memory"]);
    for _ in 0..10 {
        let shared = pool.share(vec![1_u8; BYTES]).unwrap();
        assert_eq!(within(seconds(20), || pool.map(length, [shared]).unwrap()), [BYTES]);
    }
    let ended = within(seconds(60), || {
        let all: Vec<_> = (0..6).map(|_| pool.share(vec![1_u8; BYTES])).collect::<Result<_, _>>()?;
        pool.map(length, all)
    });
    match ended {
        Ok(lengths) => assert_eq!(lengths, [BYTES; 6]),
        Err(error) => check_words(&error, &["memory"]),
    }
    drop(pool);
    // Other clients go on.
    let other = pools::builder().address(cluster.address()).build().expect("cannot open the pool");
    still_works(&other);
    drop(other);
    cluster.stop().unwrap();
}

fn an_item_beyond_half_of_the_memory() {
    const LIMIT: usize = 8 << 20;
    let mut cluster = cluster::empty_with(&["--memory", "16MiB"]);
    cluster.add_agent(1, &[]);
    let pool = pools::builder().address(cluster.address()).build().unwrap();
    let is_too_large = |error: &Error| {
        assert_eq!((error.kind(), error.item()), (ErrorKind::PayloadTooLarge, Some(1)), "{error}");
        check_words(error, &["bytes", "the limit of the coordinator is 8388608", "--memory"]);
    };
    // Others travel in the message of the largest one.
    let items = || [vec![1; 200_000], vec![2; LIMIT + 1], vec![3; 200_000], vec![4; LIMIT - 4]];
    let outcomes: Vec<_> = pool.imap(negative, items()).collect();
    is_too_large(outcomes[1].as_ref().unwrap_err());
    for (at, fill, length) in [(0, !1, 200_000), (2, !3, 200_000), (3, !4, LIMIT - 4)] {
        assert!(*outcomes[at].as_ref().unwrap() == vec![fill; length]);
    }
    is_too_large(&pool.map(negative, [vec![1; 5], vec![2; LIMIT + 1]]).unwrap_err());
    assert_eq!(pool.apply(negative, (vec![2; LIMIT],)).unwrap_err().kind(), ErrorKind::PayloadTooLarge);
    still_works(&pool);
    drop(pool);
    cluster.stop().unwrap();
}

fn wait_if_first(item: u8) {
    if item == 0 {
        nap(FOREVER);
    }
}

/// Every item that a client has sent may have run at an agent that does not return, and must not run twice.
fn millions_of_items_fail_at_once() {
    const ITEMS: usize = 3_000_000;
    let mut cluster = cluster::empty_with(&["--memory", "64MiB", "--heartbeat-timeout", "1s"]);
    let agent = cluster.add_agent(1, &[]);
    let pool = pools::builder().address(cluster.address()).build().unwrap();
    let map = pool.job(wait_if_first).retries(0).map_async((0..ITEMS).map(|item| u8::from(item > 0)));
    operators::until(&cluster, |status| status["held_bytes"].as_u64() >= Some(5 * ITEMS as u64 * 9 / 10));
    cluster.signal(agent, Signal::SIGKILL);
    cluster.kill_coordinator();
    cluster.start_coordinator();
    cluster.wait_for_agent(agent);
    cluster.add_agent(1, &[]);
    let error = within(seconds(30), || map.get().unwrap_err());
    assert_eq!((error.kind(), error.item()), (ErrorKind::AgentLost, Some(0)), "{error}");
    let peak = peak_mib(cluster.coordinator());
    assert!(peak < MEMORY_MIB + ROOM_MIB, "the coordinator has had {peak} MiB");
    still_works(&pool);
    drop(pool);
    operators::until(&cluster, operators::nothing_is_left);
    cluster.stop().unwrap();
}

/// All clients resend the items without outcomes. None of them can resend everything while the others do, too.
fn the_coordinator_is_restarted_while_clients_push_more_than_fits() {
    let (mut cluster, done) = (cluster(), AtomicU64::new(0));
    let address = cluster.address().to_owned();
    thread::scope(|scope| {
        for client in 0..FEWER_CLIENTS {
            let (address, done) = (&address, &done);
            scope.spawn(move || push(address, client, done));
        }
        waiting::until(|| done.load(Ordering::Relaxed) >= FEWER_CLIENTS * 2);
        cluster.restart_coordinator();
    });
    operators::until(&cluster, operators::nothing_is_left);
    cluster.stop().unwrap();
}
