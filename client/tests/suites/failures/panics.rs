//! A task that panics: its item's error, and the worker lives on.

use std::panic::{self, AssertUnwindSafe};

use farpool::ErrorKind;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::failures::checks::{only_failed, pool, seconds, serves_on, told, within};
use crate::failures::tasks::{identity, pid_after};

crate::runner::cases![
    the_worker_lives_on,
    odd_payloads_are_told_too,
    a_panic_while_panicking_takes_the_worker,
    a_panic_in_serde_is_the_items,
    a_panic_in_the_clients_serde_reaches_the_caller,
    backtraces_come_along_where_they_are_wanted,
    panics_of_a_tasks_own_threads_are_no_panics_of_the_task,
    every_item_panics,
];

fn the_worker_lives_on() {
    let pool = pool(1);
    let before = pool.apply(pid_after, (0,)).unwrap();
    let outcomes = pool.imap(
        |item: u64| {
            assert!(item != 7, "item {item} is one too many");
            item
        },
        0..20,
    );
    let errors = only_failed(outcomes.collect(), &[7]);
    told(&errors[0], ErrorKind::Panicked, 7, 1, &["panicked at ", "panics.rs", "item 7 is one too many"]);
    assert_eq!(errors[0].pid(), Some(before));
    assert_eq!(pool.apply(pid_after, (0,)).unwrap(), before, "the worker was replaced");
}

fn odd_payloads_are_told_too() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("the payload panics when it is dropped");
        }
    }
    let pool = pool(1);
    let pid = pool.apply(pid_after, (0,)).unwrap();
    let number = pool.apply(|| -> () { panic::panic_any(5_u64) }, ()).unwrap_err();
    told(&number, ErrorKind::Panicked, 0, 1, &["panicked", "a payload that is not text"]);
    let bomb = pool.apply(|| -> () { panic::panic_any(Bomb) }, ()).unwrap_err();
    told(&bomb, ErrorKind::Panicked, 0, 1, &["panicked"]);
    let resumed = pool.apply(|| -> () { panic::resume_unwind(Box::new("resumed")) }, ()).unwrap_err();
    told(&resumed, ErrorKind::Panicked, 0, 1, &["resumed"]);
    let long = pool.apply(|| -> () { panic!("{}", "long ".repeat(100_000)) }, ()).unwrap_err();
    told(&long, ErrorKind::Panicked, 0, 1, &["long long", "(cut)"]);
    assert_eq!(pool.apply(pid_after, (0,)).unwrap(), pid);
}

fn a_panic_while_panicking_takes_the_worker() {
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
    told(&error, ErrorKind::WorkerDied, 0, 1, &["signal 6 (SIGABRT)", "panicked at "]);
    serves_on(&pool);
}

/// Panics on its way: where, its number says.
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

/// Whether this is the case's own process, and not a worker.
fn is_client() -> bool {
    !std::fs::read_to_string("/proc/self/comm").unwrap().starts_with("farpool-")
}

fn a_panic_in_serde_is_the_items() {
    let pool = pool(1);
    let pid = pool.apply(pid_after, (0,)).unwrap();
    for (touchy, words) in [(IN_THE_WORKERS_DECODE, "decoding panics"), (IN_THE_WORKERS_ENCODE, "encoding panics")] {
        let error = pool.map(identity::<Touchy>, [NEVER, touchy, NEVER]).unwrap_err();
        told(&error, ErrorKind::Panicked, 1, 1, &[words]);
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
    // In a callback's thread there is no caller: the outcome is an error.
    let outcome = pool.map_async(identity::<Touchy>, items).callback(|_| ()).get();
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Codec);
    assert!(error.to_string().contains("decoding panics in the client"), "{error}");
    serves_on(&pool);
}

fn backtraces_come_along_where_they_are_wanted() {
    let without = pool(1).apply(|| -> () { panic!("here") }, ()).unwrap_err();
    assert_eq!(without.backtrace(), None);
    // SAFETY: this case's process has no other thread that reads the environment now.
    unsafe { std::env::set_var("RUST_BACKTRACE", "1") };
    let with = pool(1).apply(|| -> () { panic!("here") }, ()).unwrap_err();
    assert!(with.backtrace().is_some_and(|backtrace| backtrace.contains("panic")), "{with}");
    assert!(with.to_string().contains("backtrace:"), "{with}");
}

fn panics_of_a_tasks_own_threads_are_no_panics_of_the_task() {
    let pool = pool(1);
    let spawns = || std::thread::spawn(|| panic!("a thread of this test panics on purpose")).join().is_err();
    assert!(pool.apply(spawns, ()).unwrap());
    let catches = || panic::catch_unwind(|| panic!("caught by the task itself")).is_err();
    assert!(pool.apply(catches, ()).unwrap());
    // What the task has caught is not told as the reason of what it dies of later.
    let dies_later = || -> bool {
        let caught = panic::catch_unwind(|| panic!("caught by the task itself")).is_err();
        std::process::exit(i32::from(caught))
    };
    let error = pool.job(dies_later).retries(0).apply(()).unwrap_err();
    told(&error, ErrorKind::WorkerDied, 0, 1, &["exited with code 1"]);
}

fn every_item_panics() {
    let pool = pool(2);
    let outcomes: Vec<_> = pool.imap(|n: u64| -> u64 { panic!("item {n}") }, 0..3000).collect();
    assert_eq!(outcomes.len(), 3000);
    for (item, outcome) in (0..).zip(outcomes) {
        told(&outcome.unwrap_err(), ErrorKind::Panicked, item, 1, &[&format!("item {item}")]);
    }
    serves_on(&pool);
}
