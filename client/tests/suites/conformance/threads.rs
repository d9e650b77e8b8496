//! `threads(n)`: a worker that runs several items at once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use farpool::{ErrorKind, Pool};

use crate::conformance::tasks::{even_only, nap, pid_after, square};
use crate::pools;

crate::runner::cases![
    items_run_on_all_threads_at_once,
    at_most_one_item_runs_per_thread,
    results_and_errors_match_their_items,
    items_and_results_of_zero_bytes_pass,
    the_lazy_verbs_use_all_threads,
    large_items_and_results_pass,
    chunks_stay_on_one_worker,
];

fn threaded(processes: usize, threads: usize) -> Pool {
    pools::pool(pools::builder().processes(processes).threads(threads))
}

fn items_run_on_all_threads_at_once() {
    let pool = threaded(2, 50);
    pool.map(square, 0..4).unwrap();
    let start = Instant::now();
    assert_eq!(pool.map(nap, [50; 400]).unwrap(), [50; 400]);
    // Four rounds of 50 ms; one after another, they would take ten seconds.
    assert!(start.elapsed() < Duration::from_millis(800), "took {:?}", start.elapsed());
    let pids: BTreeSet<u32> = pool.map(pid_after, [20; 100]).unwrap().into_iter().collect();
    assert_eq!(pids.len(), 2);
}

fn at_most_one_item_runs_per_thread() {
    static RUNNING: AtomicU64 = AtomicU64::new(0);
    fn company(milliseconds: u64) -> u64 {
        let running = RUNNING.fetch_add(1, Ordering::SeqCst) + 1;
        nap(milliseconds);
        RUNNING.fetch_sub(1, Ordering::SeqCst);
        running
    }
    let most = threaded(1, 4).map(company, [10; 60]).unwrap().into_iter().max();
    assert_eq!(most, Some(4));
}

fn results_and_errors_match_their_items() {
    let pool = threaded(2, 8);
    assert_eq!(pool.map(square, 0..5000).unwrap(), (0..5000).map(|n| n * n).collect::<Vec<_>>());
    let outcomes: Vec<_> = pool.imap(even_only, 0..200).collect();
    for (item, outcome) in (0..200_u64).zip(outcomes) {
        match outcome {
            Ok(n) => assert_eq!(n, item),
            Err(error) => {
                assert_eq!((error.kind(), error.item()), (ErrorKind::Panicked, Some(item)));
                assert!(error.message().contains(&format!("{item} is odd")), "{error}");
            }
        }
    }
}

fn items_and_results_of_zero_bytes_pass() {
    let pool = threaded(2, 3);
    assert_eq!(pool.map(|()| (), vec![(); 200]).unwrap().len(), 200);
    assert_eq!(pool.imap(|_: u64| (), 0..200).filter(Result::is_ok).count(), 200);
    pool.apply(|| (), ()).unwrap();
}

fn the_lazy_verbs_use_all_threads() {
    let pool = threaded(2, 50);
    pool.map(square, 0..4).unwrap();
    let start = Instant::now();
    assert_eq!(pool.imap(nap, [50; 400]).filter(Result::is_ok).count(), 400);
    assert_eq!(pool.imap_unordered(nap, [50; 400]).filter(Result::is_ok).count(), 400);
    assert!(start.elapsed() < Duration::from_millis(1600), "took {:?}", start.elapsed());
}

fn large_items_and_results_pass() {
    let pool = threaded(1, 4);
    let items: Vec<Vec<u8>> = (0..12).map(|n| vec![n; usize::from(n) << 19]).collect();
    assert!(pool.map(crate::conformance::tasks::identity::<Vec<u8>>, items.clone()).unwrap() == items);
}

fn chunks_stay_on_one_worker() {
    let pids = threaded(2, 4).job(pid_after).chunksize(5).map([2; 50]).unwrap();
    assert!(pids.chunks(5).all(|chunk| chunk.iter().all(|pid| *pid == chunk[0])), "{pids:?}");
}
