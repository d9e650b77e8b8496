//! Initializers that fail: the pool fails with the reason, instead of respawning forever.

use farpool::{Builder, Error, ErrorKind};
use farpool_testkit::processes;
use farpool_testkit::waiting;

use crate::failures::checks::{check_words, millis, seconds, within};
use crate::failures::tasks::{FOREVER, Fault, nap, square};
use crate::log::{self, Log};
use crate::pools;

crate::runner::cases![
    an_initializer_that_panics,
    an_initializer_that_exits,
    an_initializer_that_is_killed,
    an_initializer_that_never_returns,
    an_initializer_that_never_returns_and_ignores_sigterm,
    an_initializer_that_fails_in_a_later_worker,
    a_slow_initializer,
    an_initializer_that_panics_while_a_call_waits,
];

fn options(processes: usize) -> Builder {
    pools::builder().processes(processes).initializer_timeout(millis(300))
}

fn prepare(path: String, fault: Option<Fault>) {
    log::note(&path, "ran");
    match fault {
        Some(fault) => fault.trigger(),
        None => panic!("the table is missing"),
    }
}

/// Checks that every call fails with the reason in bounded time, that a bounded number of workers was started, and that none is
/// left.
fn check(fault: Option<Fault>, words: &[&str]) {
    let log = Log::new("initializers");
    let check_init_error = |error: Error| {
        assert_eq!(error.kind(), ErrorKind::InitializerFailed, "{error}");
        check_words(&error, words);
        check_words(&error, &["host ", "fix the initializer"]);
    };
    // Opening the pool may already fail, if the initializer fails quickly.
    let pool = match within(seconds(5), || options(2).initializer(prepare, (log.path(), fault)).build()) {
        Ok(pool) => pool,
        Err(error) => return check_init_error(error),
    };
    within(seconds(5), || {
        check_init_error(pool.map(square, 0..10).unwrap_err());
        check_init_error(pool.apply(square, (1,)).unwrap_err());
        check_init_error(pool.map_async(square, [1]).get().unwrap_err());
        check_init_error(pool.imap(square, 0..).next().unwrap().unwrap_err());
    });
    // The processes exit by themselves, though the pool still exists.
    waiting::until_gone(seconds(3), processes::started_by_this_case);
    assert!(log.lines().len() <= 2, "the initializer ran {} times", log.lines().len());
    pool.close();
    check_init_error(pool.join().unwrap_err());
}

fn an_initializer_that_panics() {
    check(None, &["panicked at ", "initializers.rs", "the table is missing"]);
}

fn an_initializer_that_exits() {
    check(Some(Fault::Exit(3)), &["exited with code 3", "in its initializer"]);
}

fn an_initializer_that_is_killed() {
    check(Some(Fault::Kill), &["signal 9 (SIGKILL)", "in its initializer"]);
}

fn an_initializer_that_never_returns() {
    check(Some(Fault::Stop), &["the initializer did not return within 300ms", "raise initializer_timeout"]);
}

fn an_initializer_that_never_returns_and_ignores_sigterm() {
    check(Some(Fault::SpinIgnoringSigterm), &["did not return within 300ms"]);
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
    // Earlier results count; the job as a whole has failed.
    let error = outcomes.last().unwrap().as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InitializerFailed, "{error}");
    check_words(error, &["run 2 of the initializer"]);
    assert!(outcomes.len() <= 6, "{outcomes:?}");
    assert!(outcomes.iter().rev().skip(1).all(Result::is_ok), "{outcomes:?}");
}

fn a_slow_initializer() {
    let slow = |milliseconds| {
        nap(milliseconds);
    };
    let pool = options(2).initializer_timeout(seconds(30)).initializer(slow, (500,)).build().unwrap();
    assert_eq!(within(seconds(10), || pool.map(square, 0..3).unwrap()), [0, 1, 4]);
}

/// Calls that already wait when it fails get the error, too, on any thread.
fn an_initializer_that_panics_while_a_call_waits() {
    let late = |()| {
        nap(200);
        panic!("too late");
    };
    let pool = options(2).initializer_timeout(seconds(30)).initializer(late, ((),)).build().unwrap();
    let waiting: Vec<_> = (0..4).map(|_| pool.map_async(nap, [FOREVER; 3])).collect();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert_eq!(pool.map(square, 0..3).unwrap_err().kind(), ErrorKind::InitializerFailed));
        }
    });
    for result in waiting {
        check_words(&result.get().unwrap_err(), &["too late"]);
    }
}
