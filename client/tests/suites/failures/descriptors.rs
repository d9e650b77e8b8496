//! A task that closes every file descriptor it can find.

use farpool::ErrorKind;
use serde::{Deserialize, Serialize};

use crate::failures::checks::{check_words, only_failed, pool, seconds, still_works, within};
use crate::failures::tasks::{FOREVER, nap};

crate::runner::cases![
    closes_all_and_returns,
    closes_all_and_keeps_running,
    closes_all_and_opens_others,
    closes_only_its_output,
    uses_many_descriptors,
];

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Afterwards {
    Return,
    KeepRunning,
    OpenOthers,
}

fn close_from(first: u32) {
    // SAFETY: this is unsound for the owners of the descriptors, and no task should do it. That is the point.
    unsafe { libc::close_range(first, u32::MAX, 0) };
}

fn close_all(item: u64, then: Option<Afterwards>) -> u64 {
    let Some(then) = then else { return item };
    close_from(0);
    match then {
        Afterwards::Return => {}
        Afterwards::KeepRunning => {
            nap(FOREVER);
        }
        Afterwards::OpenOthers => {
            let files: Vec<_> = (0..64).map_while(|_| std::fs::File::open("/dev/null").ok()).collect();
            std::mem::forget(files);
        }
    }
    item
}

/// Checks a task that closes descriptors. If the item's result was sent before the connection was noticed as lost, it counts;
/// otherwise the error names the reason. All other items have their results.
fn check(then: Afterwards, may_succeed: bool) {
    let pool = pool(2);
    let one = |(item, then)| close_all(item, then);
    let items = (0..20).map(|item| (item, (item == 5).then_some(then)));
    let outcomes: Vec<_> = within(seconds(10), || pool.imap(one, items).collect());
    if let Err(error) = &outcomes[5] {
        assert_eq!((error.kind(), error.attempts()), (ErrorKind::WorkerDied, 3));
        check_words(error, &["the worker", "connection", "close file descriptors that it did not open"]);
        only_failed(outcomes, &[5]);
    } else {
        assert!(may_succeed);
        only_failed(outcomes, &[]);
    }
    still_works(&pool);
}

fn closes_all_and_returns() {
    check(Afterwards::Return, true);
}

fn closes_all_and_keeps_running() {
    check(Afterwards::KeepRunning, false);
}

fn closes_all_and_opens_others() {
    check(Afterwards::OpenOthers, true);
}

/// Ordinary programs close these, and the protocol does not use them.
fn closes_only_its_output() {
    let pool = pool(1);
    let close = |()| {
        for fd in 0..3 {
            // SAFETY: as in `close_from`.
            unsafe { libc::close(fd) };
        }
        std::process::id()
    };
    let pid = pool.apply(close, ((),)).unwrap();
    let quiet = |()| {
        eprint!("nobody reads this");
        std::process::id()
    };
    assert_eq!(pool.map(quiet, [(); 100]).unwrap(), [pid; 100]);
    still_works(&pool);
}

fn uses_many_descriptors() {
    let pool = pool(1);
    let hoard =
        |()| std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).take(100_000).collect::<Vec<_>>().len();
    let count = pool.apply(hoard, ((),)).unwrap();
    assert!(count > 100);
    assert_eq!(pool.apply(hoard, ((),)).unwrap(), count);
}
