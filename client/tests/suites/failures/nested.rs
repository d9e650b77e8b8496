//! Failures in pools inside of tasks.

use farpool::ErrorKind;
use farpool_testkit::processes;
use farpool_testkit::waiting;

use crate::cluster;
use crate::failures::checks::{check_error, check_words, pool, seconds, still_works, within};
use crate::failures::tasks::{Fault, hang, square};
use crate::report_pipe::ReportPipe;

crate::runner::cases![
    a_death_in_an_inner_pool_affects_only_that_pool,
    an_outer_workers_death_ends_its_inner_pool,
    terminate_reaches_inner_pools,
    an_inner_pool_that_is_never_closed,
];

fn a_death_in_an_inner_pool_affects_only_that_pool() {
    let nested = |n: u64| {
        let inner = pool(2);
        let error = inner.job(|fault: Fault| fault.trigger()).retries(0).apply((Fault::Kill,)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WorkerDied);
        inner.map(square, [n]).unwrap()[0]
    };
    let pool = pool(2);
    assert_eq!(pool.map(nested, 0..4).unwrap(), [0, 1, 4, 9]);
    let error = pool.apply(|| pool_error().to_string(), ()).unwrap();
    assert!(error.contains("SIGKILL"), "{error}");
}

fn pool_error() -> farpool::Error {
    pool(1).job(|fault: Fault| fault.trigger()).retries(0).apply((Fault::Kill,)).unwrap_err()
}

/// Opens a pool in which all items report and hang.
fn nest(path: String) {
    pool(2).map(hang, [path.clone(), path]).unwrap();
}

fn an_outer_workers_death_ends_its_inner_pool() {
    let (pool, mut line) = (pool(1), ReportPipe::new("pids"));
    let outer = pool.job(nest).retries(0).apply_async((line.path(),));
    let inner = line.next_number();
    line.next();
    // The inner worker's parent is its fork server, whose parent is the outer worker.
    let parent = |pid| processes::Process::of(pid).unwrap().parent;
    let outer_worker = parent(parent(inner));
    processes::send(outer_worker, nix::sys::signal::Signal::SIGKILL).unwrap();
    check_error(&outer.get().unwrap_err(), ErrorKind::WorkerDied, 0, 1, &["SIGKILL"]);
    waiting::until_gone(seconds(5), || processes::Process::of(inner).into_iter().collect());
    still_works(&pool);
}

fn terminate_reaches_inner_pools() {
    let (pool, mut line) = (pool(2), ReportPipe::new("pids"));
    let outer = pool.map_async(nest, [line.path(), line.path()]);
    (0..4).for_each(|_| drop(line.next()));
    pool.terminate();
    within(seconds(1), || pool.join().unwrap());
    inner_pools_are_gone();
    let error = outer.get().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    check_words(&error, &["terminated"]);
}

/// Waits until inner pools are gone: on one machine with the processes of their clients; on a cluster once the coordinator
/// notices.
fn inner_pools_are_gone() {
    if cluster::is_on_cluster() {
        waiting::until_gone(seconds(5), processes::started_by_this_case);
    }
    processes::assert_none_left();
}

fn an_inner_pool_that_is_never_closed() {
    let forgetful = |n: u64| {
        let inner = pool(1);
        let result = inner.apply(square, (n,)).unwrap();
        std::mem::forget(inner);
        result
    };
    let pool = pool(2);
    assert_eq!(pool.map(forgetful, 0..3).unwrap(), [0, 1, 4]);
    pool.close();
    pool.join().unwrap();
    inner_pools_are_gone();
}
