//! What is checked again and again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use farpool::{Error, ErrorKind, Pool};

use crate::failures::tasks::{pid_after, square};
use crate::pools;

/// A pool of so many processes.
pub(crate) fn pool(processes: usize) -> Pool {
    pools::of(processes)
}

/// The pool answers, with as many workers as it was opened with.
pub(crate) fn serves_on(pool: &Pool) {
    assert_eq!(pool.map(square, 0..100).unwrap(), (0..100).map(|n| n * n).collect::<Vec<_>>());
    let whole = || {
        let pids = pool.job(pid_after).chunksize(1).map(vec![10; 2 * pool.processes()]).unwrap();
        BTreeSet::from_iter(pids).len() == pool.processes()
    };
    // A worker that was just replaced may be late for the first round.
    assert!((0..20).any(|_| whole()), "the pool has lost a worker for good");
}

/// The error is of this kind and about this item, its story has these words, and it says where and how often.
#[track_caller]
pub(crate) fn told(error: &Error, kind: ErrorKind, item: u64, attempts: u32, words: &[&str]) {
    assert_eq!((error.kind(), error.item(), error.attempts()), (kind, Some(item), attempts), "{error}");
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    assert_eq!(error.host(), Some(&*host), "{error}");
    assert!(error.pid().is_some_and(|pid| pid != std::process::id()), "{error}");
    has_words(error, words);
}

/// The error's story has these words.
#[track_caller]
pub(crate) fn has_words(error: &Error, words: &[&str]) {
    let story = error.to_string();
    for word in words {
        assert!(story.contains(word), "{word:?} is missing in: {story}");
    }
}

/// The outcomes of an imap: only these items have failed, and all others are their own squares.
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

/// Runs `work`, which must not take longer than this.
#[track_caller]
pub(crate) fn within<T>(limit: Duration, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let outcome = work();
    assert!(start.elapsed() < limit, "it took {:?}, the limit is {limit:?}", start.elapsed());
    outcome
}

/// Seconds.
pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Milliseconds.
pub(crate) const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
