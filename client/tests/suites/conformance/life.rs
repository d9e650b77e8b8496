//! The life cycle of a pool: open, closed, joined, terminated, dropped, and shared.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use farpool::{ErrorKind, Pool};
use farpool_testkit::processes;

use crate::conformance::tasks::{nap, noted, square};
use crate::log::Log;
use crate::pools;

crate::runner::cases![
    close_rejects_new_calls_and_lets_jobs_finish,
    join_waits_for_the_workers_to_be_gone,
    joining_an_open_pool_is_an_error,
    close_and_join_may_be_called_twice_and_by_others,
    terminate_cancels_running_jobs,
    terminate_after_close_cancels_jobs,
    dropping_a_pool_ends_it,
    a_pool_that_is_idle_closes_at_once,
    threads_share_a_pool,
    several_pools_coexist,
    pools_leak_nothing,
    a_pool_may_be_dropped_on_another_thread,
];

fn close_rejects_new_calls_and_lets_jobs_finish() {
    let (pool, log) = (pools::of(2), Log::new("runs"));
    let items: Vec<_> = (0..20).map(|item| (log.path(), item)).collect();
    let running = pool.map_async(nap, [100; 4]);
    let waiting = pool.starmap_async(noted, items);
    pool.close();
    for error in [
        pool.apply(square, (1,)).unwrap_err(),
        pool.map(square, [1]).unwrap_err(),
        pool.apply_async(square, (1,)).get().unwrap_err(),
        pool.map_async(square, [1]).get().unwrap_err(),
        pool.imap(square, [1]).next().unwrap().unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert!(error.to_string().contains("closed before the call"), "{error}");
    }
    pool.join().unwrap();
    assert_eq!(running.get().unwrap(), [100; 4]);
    assert_eq!(waiting.get().unwrap(), (0..20).collect::<Vec<_>>());
    assert_eq!(log.lines().len(), 20);
}

fn join_waits_for_the_workers_to_be_gone() {
    let pool = pools::of(3);
    pool.map(square, 0..10).unwrap();
    assert!(!processes::started_by_this_case().is_empty());
    pool.close();
    pool.join().unwrap();
    processes::assert_none_left();
}

fn joining_an_open_pool_is_an_error() {
    let pool = pools::of(1);
    let error = pool.join().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("close() or terminate() first"), "{error}");
    assert_eq!(pool.map(square, [2]).unwrap(), [4]);
}

fn close_and_join_may_be_called_twice_and_by_others() {
    let pool = pools::of(1);
    let running = pool.apply_async(nap, (200,));
    pool.close();
    pool.close();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| pool.join().unwrap());
        }
    });
    pool.join().unwrap();
    assert_eq!(running.get().unwrap(), 200);
}

fn terminate_cancels_running_jobs() {
    let pool = pools::of(2);
    let running = pool.map_async(nap, [60_000; 10]);
    let waiting = pool.apply_async(square, (1,));
    let start = Instant::now();
    pool.terminate();
    for error in [running.get().unwrap_err(), waiting.get().unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }
    pool.join().unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "took {:?}", start.elapsed());
    processes::assert_none_left();
    assert_eq!(pool.map(square, [1]).unwrap_err().kind(), ErrorKind::Closed);
}

fn terminate_after_close_cancels_jobs() {
    let pool = pools::of(1);
    let running = pool.apply_async(nap, (60_000,));
    pool.close();
    pool.terminate();
    pool.join().unwrap();
    assert_eq!(running.get().unwrap_err().kind(), ErrorKind::Cancelled);
}

fn dropping_a_pool_ends_it() {
    let pool = pools::of(2);
    let running = pool.map_async(nap, [60_000; 2]);
    let start = Instant::now();
    drop(pool);
    assert!(start.elapsed() < Duration::from_secs(1), "took {:?}", start.elapsed());
    processes::assert_none_left();
    assert_eq!(running.get().unwrap_err().kind(), ErrorKind::Cancelled);
}

fn a_pool_that_is_idle_closes_at_once() {
    let pool = pools::of(2);
    pool.map(square, 0..10).unwrap();
    let start = Instant::now();
    pool.close();
    pool.join().unwrap();
    assert!(start.elapsed() < Duration::from_millis(500), "took {:?}", start.elapsed());
}

fn threads_share_a_pool() {
    let pool = pools::of(2);
    thread::scope(|scope| {
        for thread in 0..8_u64 {
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..30 {
                    let n = 1000 * thread + round;
                    assert_eq!(pool.apply(square, (n,)).unwrap(), n * n);
                    assert_eq!(pool.map(square, n..n + 20).unwrap(), (n..n + 20).map(|n| n * n).collect::<Vec<_>>());
                    assert_eq!(pool.apply_async(square, (n,)).get().unwrap(), n * n);
                    let first = pool.imap(square, n..).next().unwrap();
                    assert_eq!(first.unwrap(), n * n);
                }
            });
        }
    });
}

fn several_pools_coexist() {
    let pools: Vec<Pool> = (1..=3).map(pools::of).collect();
    let running: Vec<_> = pools.iter().map(|pool| pool.map_async(nap, [20; 6])).collect();
    for (pool, result) in pools.iter().zip(running) {
        assert_eq!(pool.apply(square, (3,)).unwrap(), 9);
        assert_eq!(result.get().unwrap(), [20; 6]);
    }
    // Ending one does not end another.
    let mut pools = pools.into_iter();
    drop(pools.next());
    assert!(pools.all(|pool| pool.map(square, [3]).unwrap() == [9]));
}

fn pools_leak_nothing() {
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    drop(pools::of(1));
    let before = (descriptors(), threads());
    for _ in 0..20 {
        let pool = pools::of(2);
        assert_eq!(pool.map(square, [1, 2]).unwrap(), [1, 4]);
    }
    processes::assert_none_left();
    // The thread of the previous pool may still be exiting.
    let (descriptors, threads) = (descriptors(), threads());
    assert!(descriptors <= before.0 + 4 && threads <= before.1 + 1, "{before:?}, then {:?}", (descriptors, threads));
}

fn a_pool_may_be_dropped_on_another_thread() {
    let pool = Arc::new(pools::of(2));
    let other = Arc::clone(&pool);
    let worker = thread::spawn(move || other.map(nap, [50; 2]).unwrap());
    drop(pool);
    assert_eq!(worker.join().unwrap(), [50; 2]);
    processes::assert_none_left();
}
