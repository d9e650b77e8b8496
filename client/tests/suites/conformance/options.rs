//! Every option of `job(f)`, alone and together.

use std::cell::Cell;
use std::fs;
use std::time::Duration;

use farpool::ErrorKind;

use crate::conformance::tasks::{even_only, nap, noted, square, whereabouts};
use crate::log::{Log, note};
use crate::pools;

crate::runner::cases![
    a_chunk_runs_on_one_worker_one_item_after_another,
    chunks_of_large_items_stay_together,
    chunks_stay_together_whatever_the_child_limit,
    the_lazy_verbs_keep_chunks_together,
    buffersize_bounds_what_is_pulled_ahead,
    an_item_within_its_timeout_is_not_killed,
    items_that_count_as_failed_are_retried,
    retries_can_be_stopped,
    a_label_shows_in_errors,
    one_job_serves_several_verbs,
    priorities_choose_among_jobs,
    labels_that_every_host_has_can_be_required,
];

/// Checks where items ran: those of a chunk run one after another on one worker.
fn check_chunks(chunksize: usize, whereabouts: &[(u32, u64)]) {
    for chunk in whereabouts.chunks(chunksize) {
        let (pid, first) = chunk[0];
        let expected: Vec<(u32, u64)> = (first..).map(|serial| (pid, serial)).take(chunk.len()).collect();
        assert_eq!(chunk, expected, "a chunk of {chunksize} was split");
    }
}

fn a_chunk_runs_on_one_worker_one_item_after_another() {
    let pool = pools::of(3);
    for chunksize in [1, 2, 7, 50, 1000] {
        let job = pool.job(whereabouts::<u64>).chunksize(chunksize);
        check_chunks(chunksize as usize, &job.map(0..500).unwrap());
        check_chunks(chunksize as usize, &job.map_async(0..500).get().unwrap());
        check_chunks(chunksize as usize, &job.starmap((0..500).map(|n| (n,))).unwrap());
    }
}

/// The chunks are larger than a worker's buffers.
fn chunks_of_large_items_stay_together() {
    let pool = pools::of(2);
    let items = |size: usize, count: usize| (0..count).map(move |_| vec![0_u8; size]);
    check_chunks(40, &pool.job(whereabouts::<Vec<u8>>).chunksize(40).map(items(100 << 10, 120)).unwrap());
    check_chunks(5, &pool.job(whereabouts::<Vec<u8>>).chunksize(5).map(items(3 << 20, 15)).unwrap());
}

fn chunks_stay_together_whatever_the_child_limit() {
    let pool = pools::pool(pools::builder().processes(2).max_tasks_per_child(3));
    check_chunks(5, &pool.job(whereabouts::<u64>).chunksize(5).map(0..50).unwrap());
}

fn the_lazy_verbs_keep_chunks_together() {
    let pool = pools::of(2);
    let job = pool.job(whereabouts::<u64>).chunksize(6);
    check_chunks(6, &job.imap(0..100).collect::<Result<Vec<_>, _>>().unwrap());
    let mut unordered = job.imap_unordered(0..100).collect::<Result<Vec<_>, _>>().unwrap();
    // Each worker has run complete chunks, and one has run the rest.
    unordered.sort_unstable();
    let pids: std::collections::BTreeSet<u32> = unordered.iter().map(|&(pid, _)| pid).collect();
    let shares = pids.iter().map(|of| unordered.iter().filter(|(pid, _)| pid == of).count());
    assert!(shares.filter(|share| !share.is_multiple_of(6)).count() <= 1, "{unordered:?}");
}

fn buffersize_bounds_what_is_pulled_ahead() {
    let pool = pools::of(2);
    for buffersize in [1, 2, 5, 64] {
        let pulled = Cell::new(0);
        let input = (0..300_u64).inspect(|_| pulled.set(pulled.get() + 1));
        let mut taken = 0;
        for outcome in pool.job(square).buffersize(buffersize).imap(input) {
            outcome.unwrap();
            taken += 1;
            assert!(pulled.get() <= taken + buffersize, "{} pulled, {taken} taken", pulled.get());
        }
        assert_eq!((taken, pulled.get()), (300, 300));
    }
}

fn an_item_within_its_timeout_is_not_killed() {
    let pool = pools::of(2);
    let patient = pool.job(nap).timeout(Duration::from_secs(20));
    assert_eq!(patient.map([1, 20, 3]).unwrap(), [1, 20, 3]);
    // The time that an item waits for its turn does not count.
    let many = pool.job(nap).timeout(Duration::from_millis(900)).chunksize(30);
    assert_eq!(many.map([40; 30]).unwrap(), [40; 30]);
    let forever = pool.job(nap).timeout(Duration::MAX);
    assert_eq!(forever.apply((1,)).unwrap(), 1);
}

fn a_label_shows_in_errors() {
    let pool = pools::of(1);
    let job = pool.job(even_only).label("evens");
    let errors = [
        job.apply((1,)).unwrap_err(),
        job.map([1]).unwrap_err(),
        job.apply_async((1,)).get().unwrap_err(),
        job.map_async([1]).get().unwrap_err(),
        job.imap([1]).next().unwrap().unwrap_err(),
        job.chunksize(0).map([1]).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.label(), Some("evens"));
        assert!(error.to_string().contains("\"evens\""), "{error}");
    }
}

/// Counts as failed until it runs for the `run`th time; returns how often it has run.
fn passes_at((log, run): (String, usize)) -> usize {
    note(&log, "run");
    let runs = fs::read_to_string(&log).unwrap().lines().count();
    if runs < run {
        farpool::count_as_failed();
    }
    runs
}

fn items_that_count_as_failed_are_retried() {
    let pool = pools::of(2);
    let run = |retries: u32, retry: bool, passes: usize| {
        let log = Log::new("runs");
        let job = pool.job(passes_at).retries(retries).retry_failed(retry);
        let mut outcomes = job.imap([(log.path(), passes)]);
        let outcome = outcomes.next().unwrap().unwrap();
        (outcome, outcomes.attempts(), log.lines().len())
    };
    assert_eq!(run(2, true, 3), (3, 3, 3), "the item passes at the last attempt");
    assert_eq!(run(5, true, 2), (2, 2, 2), "the item passes with attempts left");
    assert_eq!(run(2, true, 9), (3, 3, 3), "the last result is the outcome");
    assert_eq!(run(0, true, 9), (1, 1, 1), "the job has no retries");
    assert_eq!(run(2, false, 9), (1, 1, 1), "the job does not retry failed items");
}

fn retries_can_be_stopped() {
    let (pool, log) = (pools::of(1), Log::new("runs"));
    let input = (0..3).map(|_| (log.path(), 99));
    let mut outcomes = pool.job(passes_at).retries(1).retry_failed(true).buffersize(1).imap(input);
    assert_eq!((outcomes.next().unwrap().unwrap(), outcomes.attempts()), (2, 2));
    outcomes.stop_retries();
    assert_eq!((outcomes.next().unwrap().unwrap(), outcomes.attempts()), (3, 1));
    assert_eq!((outcomes.next().unwrap().unwrap(), outcomes.attempts()), (4, 1));
    assert!(outcomes.next().is_none());
    // Before any item has begun.
    let mut outcomes = pool.job(passes_at).retries(1).retry_failed(true).imap([(log.path(), 99)]);
    outcomes.stop_retries();
    assert_eq!((outcomes.next().unwrap().unwrap(), outcomes.attempts()), (5, 1));
}

fn one_job_serves_several_verbs() {
    let pool = pools::of(2);
    let job = pool.job(square).chunksize(2).retries(0).retry_panics(true).progress(false).label("squares");
    assert_eq!(job.apply((3,)).unwrap(), 9);
    assert_eq!(job.map([1, 2, 3]).unwrap(), [1, 4, 9]);
    assert_eq!(job.clone().imap([1, 2, 3]).map(Result::unwrap).collect::<Vec<_>>(), [1, 4, 9]);
    assert_eq!(job.buffersize(1).map([1]).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

fn priorities_choose_among_jobs() {
    let (pool, log) = (pools::of(1), Log::new("runs"));
    // Keeps the only worker busy until all the others wait.
    let first = pool.apply_async(nap, (300,));
    let jobs: Vec<_> = [(1, 0), (2, -5), (3, 7), (4, 2)]
        .into_iter()
        .map(|(item, priority)| pool.job(noted).priority(priority).apply_async((log.path(), item)))
        .collect();
    first.get().unwrap();
    jobs.into_iter().for_each(|job| _ = job.get().unwrap());
    assert_eq!(log.lines(), ["3", "4", "1", "2"]);
}

fn labels_that_every_host_has_can_be_required() {
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let options = pools::builder().processes(2).require("os", std::env::consts::OS).weight(7);
    let pool = pools::pool(options.require("arch", std::env::consts::ARCH));
    assert_eq!(pool.job(square).require("host", host).map([1, 2]).unwrap(), [1, 4]);
    let error = pool.job(square).require("", "x").map([1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}
