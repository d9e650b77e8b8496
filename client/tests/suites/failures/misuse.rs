//! Invalid arguments, and pools that are used after their end.

use std::time::Duration;

use farpool::{Builder, Error, ErrorKind, Job, Pool};
use farpool_testkit::processes;

use crate::failures::checks::{check_words, pool, seconds, still_works, within};
use crate::failures::tasks::square;
use crate::log::{self, Log};
use crate::pools;

crate::runner::cases![
    pools_with_invalid_options,
    calls_with_invalid_options,
    a_closed_pool,
    a_terminated_pool,
    addresses_of_clusters,
];

fn pools_with_invalid_options() {
    let zero = Duration::ZERO;
    let new = || pools::builder().processes(1);
    let wrong: [(Builder, &str); 9] = [
        (new().processes(0), "at least 1 process"),
        (new().processes(usize::MAX), "processes must be at most"),
        (new().max_tasks_per_child(0), "max_tasks_per_child must be at least 1"),
        (new().threads(0), "threads must be at least 1"),
        (new().threads(usize::MAX), "threads must be at most"),
        (new().memory_limit(0), "memory_limit must be at least 1"),
        (new().payload_limit(0), "payload_limit must be from 1"),
        (new().payload_limit(3 << 30), "payload_limit must be from 1"),
        (new().initializer_timeout(zero), "initializer_timeout must be above zero"),
    ];
    for (options, words) in wrong {
        let error = options.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        check_words(&error, &[words]);
    }
    assert_eq!(Pool::new(0).unwrap_err().kind(), ErrorKind::InvalidArgument);
    processes::assert_none_left();
}

/// Returns the error of each verb of a job.
fn all_verbs<F>(job: &Job<'_, F>, path: &str) -> [Error; 8]
where
    F: Fn(String) -> u64 + Copy + Send + Sync + 'static,
{
    let item = || path.to_owned();
    [
        job.apply((item(),)).unwrap_err(),
        job.apply_async((item(),)).get().unwrap_err(),
        job.map([item()]).unwrap_err(),
        job.map_async([item()]).get().unwrap_err(),
        job.starmap([(item(),)]).unwrap_err(),
        job.starmap_async([(item(),)]).get().unwrap_err(),
        job.imap([item()]).next().unwrap().unwrap_err(),
        job.imap_unordered([item()]).next().unwrap().unwrap_err(),
    ]
}

fn noted(path: String) -> u64 {
    log::note(&path, "ran");
    1
}

fn calls_with_invalid_options() {
    let (pool, log) = (pool(1), Log::new("runs"));
    let job = || pool.job(noted);
    let wrong = [
        (job().chunksize(0), "chunksize must be at least 1"),
        (job().buffersize(0), "buffersize must be at least 1"),
        (job().timeout(Duration::ZERO), "timeout must be above zero"),
        (job().chunksize(5).buffersize(4), "buffersize must be at least the chunksize, and 4 is less than 5"),
    ];
    for (job, words) in wrong {
        for error in all_verbs(&job, &log.path()) {
            assert_eq!((error.kind(), error.item(), error.attempts()), (ErrorKind::InvalidArgument, None, 0));
            check_words(&error, &[words]);
        }
    }
    assert!(log.lines().is_empty(), "nothing runs");
    still_works(&pool);
}

fn check_over(pool: &Pool, words: &str) {
    let log = Log::new("runs");
    for error in all_verbs(&pool.job(noted), &log.path()) {
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        check_words(&error, &[words, "open another pool"]);
    }
    within(seconds(2), || pool.join().unwrap());
    for error in all_verbs(&pool.job(noted), &log.path()) {
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    }
    assert!(log.lines().is_empty());
    processes::assert_none_left();
}

fn a_closed_pool() {
    let pool = pool(2);
    pool.map(square, 0..3).unwrap();
    pool.close();
    check_over(&pool, "the pool was closed before the call");
}

fn a_terminated_pool() {
    let pool = pool(2);
    pool.terminate();
    check_over(&pool, "the pool was terminated before the call");
}

fn addresses_of_clusters() {
    let local = || Pool::builder().processes(1).local();
    for (address, kind, words) in [
        ("http://127.0.0.1:1", ErrorKind::Unavailable, "is farpool-coordinator running there?"),
        ("https://127.0.0.1:1", ErrorKind::InvalidArgument, "use http"),
        ("127.0.0.1", ErrorKind::InvalidArgument, "has no port"),
    ] {
        let error = local().address(address).build().unwrap_err();
        assert_eq!(error.kind(), kind);
        check_words(&error, &[words, address]);
        // SAFETY: this case's process has no other thread that reads the environment now.
        unsafe { std::env::set_var("FARPOOL_ADDRESS", address) };
        let error = Pool::new(1).unwrap_err();
        assert_eq!(error.kind(), kind);
        check_words(&error, &[words, address]);
        still_works(&local().build().unwrap());
    }
    // SAFETY: as above.
    unsafe { std::env::set_var("FARPOOL_ADDRESS", "") };
    still_works(&Pool::new(1).unwrap());
}
