//! Initializers that fail: the pool fails, with the reason, instead of respawning for ever.

use farpool::{Builder, Error, ErrorKind};
use farpool_testkit::processes;
use farpool_testkit::waiting;

use crate::failures::checks::{has_words, millis, seconds, within};
use crate::failures::tasks::{FOR_EVER, Way, nap, square};
use crate::log::{self, Log};
use crate::pools;

crate::runner::cases![
    an_initializer_that_panics,
    an_initializer_that_exits,
    an_initializer_that_is_killed,
    an_initializer_that_never_returns,
    an_initializer_that_never_returns_and_is_deaf,
    an_initializer_that_fails_in_a_later_worker,
    an_initializer_that_takes_its_time,
    an_initializer_that_panics_where_a_call_waits,
];

fn options(processes: usize) -> Builder {
    pools::builder().processes(processes).initializer_timeout(millis(300))
}

fn prepare(path: String, way: Option<Way>) {
    log::note(&path, "ran");
    match way {
        Some(way) => way.take(),
        None => panic!("the table is missing"),
    }
}

/// Every call ends in the reason, in bounded time; nothing is left, and nothing was started for ever.
fn check(way: Option<Way>, words: &[&str]) {
    let log = Log::new("initializers");
    let told = |error: Error| {
        assert_eq!(error.kind(), ErrorKind::InitializerFailed, "{error}");
        has_words(&error, words);
        has_words(&error, &["host ", "fix the initializer"]);
    };
    // Opening a pool may fail already, if that is quick.
    let pool = match within(seconds(5), || options(2).initializer(prepare, (log.path(), way)).build()) {
        Ok(pool) => pool,
        Err(error) => return told(error),
    };
    within(seconds(5), || {
        told(pool.map(square, 0..10).unwrap_err());
        told(pool.apply(square, (1,)).unwrap_err());
        told(pool.map_async(square, [1]).get().unwrap_err());
        told(pool.imap(square, 0..).next().unwrap().unwrap_err());
    });
    // The processes go by themselves, though the pool is still there.
    waiting::until_gone(seconds(3), processes::started_by_this_case);
    assert!(log.lines().len() <= 2, "the initializer ran {} times", log.lines().len());
    pool.close();
    told(pool.join().unwrap_err());
}

fn an_initializer_that_panics() {
    check(None, &["panicked at ", "initializers.rs", "the table is missing"]);
}

fn an_initializer_that_exits() {
    check(Some(Way::Exit(3)), &["exited with code 3", "in its initializer"]);
}

fn an_initializer_that_is_killed() {
    check(Some(Way::Kill), &["signal 9 (SIGKILL)", "in its initializer"]);
}

fn an_initializer_that_never_returns() {
    check(Some(Way::Stop), &["the initializer did not return within 300ms", "raise initializer_timeout"]);
}

fn an_initializer_that_never_returns_and_is_deaf() {
    check(Some(Way::SpinDeaf), &["did not return within 300ms"]);
}

fn an_initializer_that_fails_in_a_later_worker() {
    fn only_once(path: String) {
        log::note(&path, "ran");
        let runs = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(runs == 1, "run {runs} of the initializer");
    }
    let log = Log::new("initializers");
    let pool = options(1).max_tasks_per_child(5).initializer(only_once, (log.path(),)).build().unwrap();
    let outcomes: Vec<_> = within(seconds(10), || pool.job(square).chunksize(1).imap(0..50).collect());
    // What was done before counts; the job as a whole has failed.
    let error = outcomes.last().unwrap().as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InitializerFailed, "{error}");
    has_words(error, &["run 2 of the initializer"]);
    assert!(outcomes.len() <= 6, "{outcomes:?}");
    assert!(outcomes.iter().rev().skip(1).all(Result::is_ok), "{outcomes:?}");
}

fn an_initializer_that_takes_its_time() {
    let slow = |milliseconds| {
        nap(milliseconds);
    };
    let pool = options(2).initializer_timeout(seconds(30)).initializer(slow, (500,)).build().unwrap();
    assert_eq!(within(seconds(10), || pool.map(square, 0..3).unwrap()), [0, 1, 4]);
}

/// Calls that wait already when it fails are told as well, on whatever thread.
fn an_initializer_that_panics_where_a_call_waits() {
    let late = |()| {
        nap(200);
        panic!("too late");
    };
    let pool = options(2).initializer_timeout(seconds(30)).initializer(late, ((),)).build().unwrap();
    let waiting: Vec<_> = (0..4).map(|_| pool.map_async(nap, [FOR_EVER; 3])).collect();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert_eq!(pool.map(square, 0..3).unwrap_err().kind(), ErrorKind::InitializerFailed));
        }
    });
    for result in waiting {
        has_words(&result.get().unwrap_err(), &["too late"]);
    }
}
