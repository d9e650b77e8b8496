//! A task that ends its worker: only its item is affected.

use farpool::{ErrorKind, Pool};

use crate::failures::checks::{check_error, only_failed, pool, seconds, still_works, within};
use crate::failures::tasks::{Fault, identity, log_and_fault};
use crate::log::Log;
use crate::pools;

crate::runner::cases![
    a_task_that_exits,
    a_task_that_exits_without_an_error,
    a_task_that_aborts,
    a_task_that_kills_its_worker,
    a_task_that_accesses_invalid_memory,
    a_task_that_overflows_its_stack,
    a_task_that_allocates_beyond_the_memory_limit,
    an_allocation_beyond_the_memory_limit_can_fail,
    death_in_the_last_item_and_in_the_first,
];

const ITEMS: u64 = 40;
const POISON: u64 = 20;

/// Checks a map in which one item dies this way, three times; all others run once and have their results.
fn check(pool: &Pool, fault: Fault, words: &[&str], last_words: &str) {
    let log = Log::new("runs");
    let items = (0..ITEMS).map(|item| (log.path(), item, (item == POISON).then_some(fault)));
    let error = within(seconds(20), || pool.starmap(log_and_fault, items).unwrap_err());
    check_error(&error, ErrorKind::WorkerDied, POISON, 3, words);
    assert!(error.stderr().unwrap_or_default().contains(last_words), "{error}");
    for item in 0..ITEMS {
        let runs = if item == POISON { 3 } else { 1 };
        assert_eq!(log.count(item), runs, "item {item} ran a wrong number of times");
    }
    // The lazy verbs also return the results of the others.
    let log = Log::new("runs");
    let items = (0..ITEMS).map(|item| (log.path(), item, (item == POISON).then_some(fault)));
    let one = |(path, item, fault)| log_and_fault(path, item, fault);
    let outcomes = pool.job(one).retries(0).imap(items).collect();
    let errors = only_failed(outcomes, &[POISON]);
    check_error(&errors[0], ErrorKind::WorkerDied, POISON, 1, words);
    assert_eq!(log.lines().len() as u64, ITEMS);
    still_works(pool);
}

fn a_task_that_exits() {
    check(&pool(2), Fault::Exit(3), &["the worker exited with code 3", "did the task call exit?"], "");
}

fn a_task_that_exits_without_an_error() {
    check(&pool(2), Fault::Exit(0), &["the worker exited with code 0"], "");
}

fn a_task_that_aborts() {
    check(&pool(2), Fault::Abort, &["signal 6 (SIGABRT)", "it aborted"], "");
}

fn a_task_that_kills_its_worker() {
    check(&pool(2), Fault::Kill, &["signal 9 (SIGKILL)", "killed by another process"], "");
}

fn a_task_that_accesses_invalid_memory() {
    check(&pool(2), Fault::Segfault, &["signal 11 (SIGSEGV)"], "");
}

fn a_task_that_overflows_its_stack() {
    check(&pool(2), Fault::Overflow, &["signal 6 (SIGABRT)", "a stack overflow"], "has overflowed its stack");
}

/// Limit on the address space, of which a worker's program and rings take a part.
const LIMIT: u64 = 512 << 20;

fn limited() -> Pool {
    pools::builder().processes(2).memory_limit(LIMIT).build().unwrap()
}

fn a_task_that_allocates_beyond_the_memory_limit() {
    let words = ["signal 6 (SIGABRT)", &format!("memory beyond the limit of {LIMIT} bytes")];
    check(&limited(), Fault::Allocate, &words, "memory allocation of 16777216 bytes failed");
}

fn an_allocation_beyond_the_memory_limit_can_fail() {
    let pool = limited();
    let refused = |bytes: usize| Vec::<u8>::new().try_reserve(bytes).is_err();
    assert_eq!(pool.map(refused, [1 << 20, LIMIT as usize, 64 << 20]).unwrap(), [false, true, false]);
    // The client itself is not limited.
    assert!(!refused(LIMIT as usize));
    assert_eq!(pool.apply(identity::<Vec<u8>>, (vec![1; 8 << 20],)).unwrap().len(), 8 << 20);
}

fn death_in_the_last_item_and_in_the_first() {
    let (pool, log) = (pool(2), Log::new("runs"));
    for (items, poison) in [(1, 0), (2, 0), (2, 1), (30, 0), (30, 29)] {
        let input = (0..items).map(|item| (log.path(), item, (item == poison).then_some(Fault::Kill)));
        let error = pool.starmap(log_and_fault, input).unwrap_err();
        check_error(&error, ErrorKind::WorkerDied, poison, 3, &["SIGKILL"]);
    }
    still_works(&pool);
}
