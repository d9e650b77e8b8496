//! `Pool::share`: a value that goes to each host once, and is decoded once in each worker.

use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use farpool::{ErrorKind, Shared};
use farpool_testkit::waiting;
use serde::{Deserialize, Deserializer, Serialize};

use crate::pools;

crate::runner::cases![
    tasks_read_a_shared_value,
    a_shared_value_is_decoded_once_in_each_worker,
    a_shared_value_outlives_its_handle_for_calls_that_were_begun,
    a_value_that_is_dropped_while_its_call_begins_reaches_the_call,
    values_are_freed_while_a_lazy_job_waits,
    many_values_are_shared_and_dropped,
    shared_values_reach_workers_that_start_later,
    workers_with_threads_read_shared_values,
    a_shared_value_of_another_pool_or_type_is_an_error,
    a_value_that_cannot_be_encoded_is_an_error,
    closed_pools_share_nothing,
    a_pool_with_shared_values_closes,
];

fn sum_to((values, end): (Shared<Vec<u64>>, usize)) -> u64 {
    values[..end].iter().sum()
}

fn tasks_read_a_shared_value() {
    let pool = pools::of(3);
    let values: Vec<u64> = (0..1_000_000).collect();
    let shared = pool.share(values.clone()).unwrap();
    assert_eq!(shared[999], 999);
    for _ in 0..2 {
        let sums = pool.map(sum_to, (0..100).map(|end| (shared.clone(), 10_000 * end))).unwrap();
        let expected: Vec<u64> = (0..100).map(|end| values[..10_000 * end].iter().sum()).collect();
        assert_eq!(sums, expected);
    }
    let empty = pool.share(Vec::new()).unwrap();
    assert_eq!(pool.apply(sum_to, ((empty, 0),)).unwrap(), 0);
}

/// Counts how often it was decoded in this process.
#[derive(Debug, Serialize)]
struct Counted(u64);

static DECODED: AtomicU64 = AtomicU64::new(0);

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DECODED.fetch_add(1, Ordering::SeqCst);
        u64::deserialize(deserializer).map(Counted)
    }
}

fn a_shared_value_is_decoded_once_in_each_worker() {
    fn look(value: Shared<Counted>) -> (u64, u64) {
        (value.0, DECODED.load(Ordering::SeqCst))
    }
    let pool = pools::of(2);
    let shared = pool.share(Counted(7)).unwrap();
    let found = pool.job(look).chunksize(1).map((0..100).map(|_| shared.clone())).unwrap();
    assert_eq!(found, [(7, 1); 100]);
}

fn a_shared_value_outlives_its_handle_for_calls_that_were_begun() {
    fn slow_sum((values, end): (Shared<Vec<u64>>, usize)) -> u64 {
        std::thread::sleep(std::time::Duration::from_millis(5));
        sum_to((values, end))
    }
    let pool = pools::of(2);
    let shared = pool.share((0..100).collect::<Vec<u64>>()).unwrap();
    let calls =
        pool.job(slow_sum).chunksize(1).map_async((0..100).map(|end| (shared.clone(), end)).collect::<Vec<_>>());
    let single = pool.apply_async(slow_sum, ((shared.clone(), 3),));
    drop(shared);
    assert_eq!(calls.get().unwrap(), (0..100).map(|end: u64| end * end.saturating_sub(1) / 2).collect::<Vec<_>>());
    assert_eq!(single.get().unwrap(), 3);
}

fn a_value_that_is_dropped_while_its_call_begins_reaches_the_call() {
    let pool = pools::of(2);
    for _ in 0..50 {
        let shared = pool.share(vec![1_u64, 2]).unwrap();
        assert_eq!(pool.apply(sum_to, ((shared, 2),)).unwrap(), 3);
        let lazily = (0..10).map(|end| (pool.share((0..10).collect::<Vec<u64>>()).unwrap(), end));
        assert_eq!(pool.map(sum_to, lazily).unwrap(), [0, 0, 1, 3, 6, 10, 15, 21, 28, 36]);
        let lazily = (0..10).map(|end| (pool.share((0..10).collect::<Vec<u64>>()).unwrap(), end));
        assert_eq!(pool.imap(sum_to, lazily.collect::<Vec<_>>()).map(Result::unwrap).sum::<u64>(), 120);
        assert_eq!(pool.apply_async(sum_to, ((pool.share(vec![4]).unwrap(), 1),)).get().unwrap(), 4);
    }
}

/// A lazy job that has not begun keeps no value.
fn values_are_freed_while_a_lazy_job_waits() {
    fn mapped(_: ()) -> usize {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        maps.lines().filter(|line| line.contains("memfd:farpool-shared")).count()
    }
    let pool = pools::of(1);
    let mut later = pool.imap(sum_to, [(pool.share(vec![5, 6]).unwrap(), 2)]);
    assert_eq!(pool.map(sum_to, [(pool.share(vec![1]).unwrap(), 1)]).unwrap(), [1]);
    // The value of the lazy job stays.
    waiting::until(|| pool.map(mapped, [()]).unwrap() == [1]);
    assert_eq!(later.next().unwrap().unwrap(), 11);
}

fn many_values_are_shared_and_dropped() {
    fn is_here(value: Shared<u64>) -> u64 {
        *value
    }
    let pool = pools::of(2);
    for round in 0..30 {
        let values: Vec<_> = (0..20).map(|value| pool.share(100 * round + value).unwrap()).collect();
        let found = pool.map(is_here, values.clone()).unwrap();
        assert_eq!(found, (0..20).map(|value| 100 * round + value).collect::<Vec<_>>());
    }
    // More at once than fit into a worker's socket.
    let values: Vec<_> = (0..1000).map(|value| pool.share(value).unwrap()).collect();
    assert_eq!(pool.map(is_here, values.clone()).unwrap(), (0..1000).collect::<Vec<_>>());
    drop(values);
    // Their memory is freed, and no descriptor stays open.
    fn open_files() -> usize {
        std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
    }
    fn mapped() -> usize {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        maps.lines().filter(|line| line.contains("memfd:farpool-shared")).count()
    }
    waiting::until(|| pool.map(|()| (open_files() < 20, mapped()), [(); 4]).unwrap() == [(true, 0); 4]);
}

fn shared_values_reach_workers_that_start_later() {
    fn die_or_sum((values, end): (Shared<Vec<u64>>, usize)) -> u64 {
        if end == 3 {
            process::abort();
        }
        sum_to((values, end))
    }
    let pool = pools::of(2);
    let shared = pool.share((0..100).collect::<Vec<u64>>()).unwrap();
    for _ in 0..3 {
        let died = pool.job(die_or_sum).retries(1).map([(shared.clone(), 3)]).unwrap_err();
        assert_eq!(died.kind(), ErrorKind::WorkerDied, "{died}");
        assert_eq!(pool.map(die_or_sum, [(shared.clone(), 4), (shared.clone(), 5)]).unwrap(), [6, 10]);
    }
}

fn workers_with_threads_read_shared_values() {
    let pool = pools::pool(pools::builder().processes(2).threads(4));
    let shared = pool.share((0..100_000).collect::<Vec<u64>>()).unwrap();
    let sums = pool.job(sum_to).chunksize(1).map((0..200).map(|end| (shared.clone(), end))).unwrap();
    assert_eq!(sums[199], 199 * 198 / 2);
}

fn a_shared_value_of_another_pool_or_type_is_an_error() {
    let (pool, other) = (pools::of(1), pools::of(1));
    let shared = other.share(vec![1_u64]).unwrap();
    let error = pool.map(sum_to, [(shared.clone(), 1)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Codec, "{error}");
    assert!(error.to_string().contains("it belongs to another pool"), "{error}");
    assert_eq!(other.map(sum_to, [(shared, 1)]).unwrap(), [1]);
}

fn a_value_that_cannot_be_encoded_is_an_error() {
    #[derive(Debug, Deserialize)]
    struct Secret;
    impl Serialize for Secret {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("it is secret"))
        }
    }
    let pool = pools::of(1);
    let error = pool.share(Secret).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Codec);
    assert!(error.to_string().contains("it is secret"), "{error}");
}

fn closed_pools_share_nothing() {
    let pool = pools::of(1);
    let shared = pool.share(vec![1_u64, 2]).unwrap();
    let begun = pool.map_async(sum_to, [(shared.clone(), 2)]);
    pool.close();
    assert_eq!(pool.share(1).unwrap_err().kind(), ErrorKind::Closed);
    drop(shared);
    assert_eq!(begun.get().unwrap(), [3]);
    pool.join().unwrap();
}

fn a_pool_with_shared_values_closes() {
    let pool = pools::of(2);
    let shared = pool.share(vec![1_u64]).unwrap();
    assert_eq!(pool.map(sum_to, [(shared.clone(), 1)]).unwrap(), [1]);
    pool.close();
    pool.join().unwrap();
    drop(shared);
}
