//! A task that panics: its item fails, and the worker survives.

use std::panic::{self, AssertUnwindSafe};

use farpool::ErrorKind;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::failures::checks::{check_error, only_failed, pool, seconds, still_works, within};
use crate::failures::tasks::{identity, pid_after};

crate::runner::cases![
    the_worker_survives,
    unusual_payloads_are_reported,
    a_panic_while_panicking_kills_the_worker,
    a_panic_in_serde_fails_the_item,
    a_panic_in_the_clients_serde_reaches_the_caller,
    backtraces_are_included_if_enabled,
    panics_of_a_tasks_threads_do_not_fail_the_task,
    every_item_panics,
];

fn the_worker_survives() {
    let pool = pool(1);
    let before = pool.apply(pid_after, (0,)).unwrap();
    let outcomes = pool.imap(
        |item: u64| {
            assert!(item != 7, "item {item} is refused");
            item
        },
        0..20,
    );
    let errors = only_failed(outcomes.collect(), &[7]);
    check_error(&errors[0], ErrorKind::Panicked, 7, 1, &["panicked at ", "panics.rs", "item 7 is refused"]);
    assert_eq!(errors[0].pid(), Some(before));
    assert_eq!(pool.apply(pid_after, (0,)).unwrap(), before, "the worker was replaced");
}

fn unusual_payloads_are_reported() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("the payload panics when it is dropped");
        }
    }
    let pool = pool(1);
    let pid = pool.apply(pid_after, (0,)).unwrap();
    let number = pool.apply(|| -> () { panic::panic_any(5_u64) }, ()).unwrap_err();
    check_error(&number, ErrorKind::Panicked, 0, 1, &["panicked", "a payload that is not text"]);
    let bomb = pool.apply(|| -> () { panic::panic_any(Bomb) }, ()).unwrap_err();
    check_error(&bomb, ErrorKind::Panicked, 0, 1, &["panicked"]);
    let resumed = pool.apply(|| -> () { panic::resume_unwind(Box::new("resumed")) }, ()).unwrap_err();
    check_error(&resumed, ErrorKind::Panicked, 0, 1, &["resumed"]);
    let long = pool.apply(|| -> () { panic!("{}", "long ".repeat(100_000)) }, ()).unwrap_err();
    check_error(&long, ErrorKind::Panicked, 0, 1, &["long long", "(cut)"]);
    assert_eq!(pool.apply(pid_after, (0,)).unwrap(), pid);
}

fn a_panic_while_panicking_kills_the_worker() {
    struct Guard;
    impl Drop for Guard {
        fn drop(&mut self) {
            panic!("once more, while unwinding");
        }
    }
    let pool = pool(2);
    let twice = |()| -> () {
        let _guard = Guard;
        panic!("once");
    };
    let error = pool.job(twice).retries(0).map([()]).unwrap_err();
    check_error(&error, ErrorKind::WorkerDied, 0, 1, &["signal 6 (SIGABRT)", "panicked at "]);
    still_works(&pool);
}

/// Panics at the stage that its number names.
#[derive(Clone, Copy, Debug)]
struct Touchy(u8);

const NEVER: Touchy = Touchy(0);
const IN_THE_WORKERS_DECODE: Touchy = Touchy(1);
const IN_THE_WORKERS_ENCODE: Touchy = Touchy(2);
const IN_THE_CLIENTS_DECODE: Touchy = Touchy(3);

impl Serialize for Touchy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(self.0 != 2 || is_client(), "encoding panics");
        (self.0, std::process::id()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Touchy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (number, _) = <(u8, u32)>::deserialize(deserializer)?;
        assert!(number != 1 || is_client(), "decoding panics");
        assert!(number != 3 || !is_client(), "decoding panics in the client");
        Ok(Touchy(number))
    }
}

/// Returns whether this is the case's own process, and not a worker.
fn is_client() -> bool {
    !std::fs::read_to_string("/proc/self/comm").unwrap().starts_with("farpool-")
}

fn a_panic_in_serde_fails_the_item() {
    let pool = pool(1);
    let pid = pool.apply(pid_after, (0,)).unwrap();
    for (touchy, words) in [(IN_THE_WORKERS_DECODE, "decoding panics"), (IN_THE_WORKERS_ENCODE, "encoding panics")] {
        let error = pool.map(identity::<Touchy>, [NEVER, touchy, NEVER]).unwrap_err();
        check_error(&error, ErrorKind::Panicked, 1, 1, &[words]);
    }
    assert_eq!(pool.apply(pid_after, (0,)).unwrap(), pid);
}

fn a_panic_in_the_clients_serde_reaches_the_caller() {
    let pool = pool(2);
    let items = [NEVER, IN_THE_CLIENTS_DECODE, NEVER];
    let caught = |call: &dyn Fn()| {
        let panic = panic::catch_unwind(AssertUnwindSafe(call)).unwrap_err();
        assert!(panic.downcast_ref::<&str>().is_some_and(|text| text.contains("in the client")));
        assert_eq!(within(seconds(10), || pool.map(identity::<u8>, [1, 2]).unwrap()), [1, 2]);
    };
    caught(&|| drop(pool.map(identity::<Touchy>, items)));
    caught(&|| drop(pool.map_async(identity::<Touchy>, items).get()));
    caught(&|| _ = pool.imap(identity::<Touchy>, items).count());
    // On the callback thread there is no caller, so the outcome is an error.
    let outcome = pool.map_async(identity::<Touchy>, items).callback(|_| ()).get();
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Codec);
    assert!(error.to_string().contains("decoding panics in the client"), "{error}");
    still_works(&pool);
}

fn backtraces_are_included_if_enabled() {
    let without = pool(1).apply(|| -> () { panic!("here") }, ()).unwrap_err();
    assert_eq!(without.backtrace(), None);
    // SAFETY: this case's process has no other thread that reads the environment now.
    unsafe { std::env::set_var("RUST_BACKTRACE", "1") };
    let with = pool(1).apply(|| -> () { panic!("here") }, ()).unwrap_err();
    assert!(with.backtrace().is_some_and(|backtrace| backtrace.contains("panic")), "{with}");
    assert!(with.to_string().contains("backtrace:"), "{with}");
}

fn panics_of_a_tasks_threads_do_not_fail_the_task() {
    let pool = pool(1);
    let spawns = || std::thread::spawn(|| panic!("a thread of this test panics on purpose")).join().is_err();
    assert!(pool.apply(spawns, ()).unwrap());
    let catches = || panic::catch_unwind(|| panic!("caught by the task itself")).is_err();
    assert!(pool.apply(catches, ()).unwrap());
    // A panic that the task has caught is not reported as the reason for its later death.
    let dies_later = || -> bool {
        let caught = panic::catch_unwind(|| panic!("caught by the task itself")).is_err();
        std::process::exit(i32::from(caught))
    };
    let error = pool.job(dies_later).retries(0).apply(()).unwrap_err();
    check_error(&error, ErrorKind::WorkerDied, 0, 1, &["exited with code 1"]);
}

fn every_item_panics() {
    let pool = pool(2);
    let outcomes: Vec<_> = pool.imap(|n: u64| -> u64 { panic!("item {n}") }, 0..3000).collect();
    assert_eq!(outcomes.len(), 3000);
    for (item, outcome) in (0..).zip(outcomes) {
        check_error(&outcome.unwrap_err(), ErrorKind::Panicked, item, 1, &[&format!("item {item}")]);
    }
    still_works(&pool);
}
