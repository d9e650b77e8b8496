//! Checks shared by many cases.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use farpool::{Error, ErrorKind, Pool};

use crate::failures::tasks::{pid_after, square};
use crate::pools;

/// Opens a pool with this many processes.
pub(crate) fn pool(processes: usize) -> Pool {
    pools::of(processes)
}

/// Checks that the pool still works, with as many workers as it was opened with.
pub(crate) fn still_works(pool: &Pool) {
    assert_eq!(pool.map(square, 0..100).unwrap(), (0..100).map(|n| n * n).collect::<Vec<_>>());
    let whole = || {
        let pids = pool.job(pid_after).chunksize(1).map(vec![10; 2 * pool.processes()]).unwrap();
        BTreeSet::from_iter(pids).len() == pool.processes()
    };
    // A worker that was just replaced may be late for the first round.
    assert!((0..20).any(|_| whole()), "the pool has lost a worker for good");
}

/// Checks the error's kind, item, attempts and words, and that it names the host and the worker.
#[track_caller]
pub(crate) fn check_error(error: &Error, kind: ErrorKind, item: u64, attempts: u32, words: &[&str]) {
    assert_eq!((error.kind(), error.item(), error.attempts()), (kind, Some(item), attempts), "{error}");
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    assert_eq!(error.host(), Some(&*host), "{error}");
    assert!(error.pid().is_some_and(|pid| pid != std::process::id()), "{error}");
    check_words(error, words);
}

/// Checks that the error's message contains these words.
#[track_caller]
pub(crate) fn check_words(error: &Error, words: &[&str]) {
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "{word:?} is missing in: {message}");
    }
}

/// Checks that only these items have failed, and that the result of every other item is its index. Returns the errors.
#[track_caller]
pub(crate) fn only_failed(outcomes: Vec<Result<u64, Error>>, failed: &[u64]) -> Vec<Error> {
    let mut errors = Vec::new();
    for (item, outcome) in (0..).zip(outcomes) {
        match outcome {
            Ok(result) => assert_eq!(result, item, "another item's result"),
            Err(error) => errors.push(error),
        }
    }
    let items: Vec<u64> = errors.iter().filter_map(Error::item).collect();
    assert_eq!(items, failed);
    errors
}

/// Runs `work`, and fails if it takes longer than this.
#[track_caller]
pub(crate) fn within<T>(limit: Duration, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let outcome = work();
    assert!(start.elapsed() < limit, "took {:?}, the limit is {limit:?}", start.elapsed());
    outcome
}

pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
