//! Items that run too long.

use farpool::ErrorKind;
use farpool_testkit::processes;
use nix::sys::signal::Signal;

use crate::cluster;
use crate::failures::checks::{check_error, check_words, millis, only_failed, pool, seconds, still_works, within};
use crate::failures::fork_server;
use crate::failures::tasks::{FOREVER, Fault, log_and_fault, nap, pid_after, square};
use crate::log::Log;
use crate::pools;

crate::runner::cases![
    an_endless_loop,
    an_endless_loop_that_ignores_sigterm,
    a_stopped_worker,
    a_worker_stopped_before_it_begins,
    a_chunk_continues_after_an_item_that_timed_out,
    one_of_a_workers_threads_times_out,
    every_verb_times_out,
    a_timed_out_item_is_not_retried,
    many_time_out,
];

const TIMEOUT: std::time::Duration = millis(250);

/// Checks a map in which one item never ends because of this fault.
fn check(fault: Fault) {
    let (pool, log) = (pool(2), Log::new("runs"));
    let fork_server = || (!cluster::is_on_cluster()).then(fork_server::pid);
    let before = fork_server();
    let one = |(path, item, fault)| log_and_fault(path, item, fault);
    let items = (0..20).map(|item| (log.path(), item, (item == 6).then_some(fault)));
    let outcomes = within(seconds(10), || pool.job(one).timeout(TIMEOUT).imap(items).collect());
    let errors = only_failed(outcomes, &[6]);
    check_error(&errors[0], ErrorKind::TimedOut, 6, 1, &["longer than its timeout of 250ms", "raise .timeout(..)"]);
    for item in 0..20 {
        assert_eq!(log.count(item), 1, "item {item} ran a wrong number of times");
    }
    still_works(&pool);
    assert_eq!(fork_server(), before, "the fork server was restarted");
}

fn an_endless_loop() {
    check(Fault::Spin);
}

fn an_endless_loop_that_ignores_sigterm() {
    check(Fault::SpinIgnoringSigterm);
}

fn a_stopped_worker() {
    check(Fault::Stop);
}

fn a_worker_stopped_before_it_begins() {
    let pool = pool(1);
    let pid = pool.apply(pid_after, (0,)).unwrap();
    processes::send(pid, Signal::SIGSTOP).unwrap();
    let error = within(seconds(10), || pool.job(square).timeout(TIMEOUT).apply((1,)).unwrap_err());
    check_error(&error, ErrorKind::TimedOut, 0, 1, &["timeout of 250ms"]);
    still_works(&pool);
}

fn a_chunk_continues_after_an_item_that_timed_out() {
    let (pool, log) = (pool(2), Log::new("runs"));
    let one = |(path, item, fault)| log_and_fault(path, item, fault);
    let items = (0..10).map(|item| (log.path(), item, (item % 5 == 1).then_some(Fault::Spin)));
    let outcomes = pool.job(one).timeout(TIMEOUT).chunksize(5).imap(items).collect();
    for (error, item) in only_failed(outcomes, &[1, 6]).iter().zip([1, 6]) {
        check_error(error, ErrorKind::TimedOut, item, 1, &["timeout"]);
    }
    assert_eq!(log.lines().len(), 10, "no item ran twice");
}

/// The items on the other threads are killed with it, and run again.
fn one_of_a_workers_threads_times_out() {
    let pool = pools::builder().processes(1).threads(4).build().unwrap();
    let naps = [100, FOREVER, 100, 10, 10, 100, 10, 10];
    let outcomes: Vec<_> = pool.job(nap).timeout(millis(500)).imap(naps).collect();
    for (item, outcome) in (0..).zip(outcomes) {
        match outcome {
            Ok(nap) => assert_eq!(nap, naps[item as usize]),
            Err(error) => check_error(&error, ErrorKind::TimedOut, 1, 1, &["timeout of 500ms"]),
        }
    }
    still_works(&pool);
}

fn every_verb_times_out() {
    let pool = pool(2);
    let job = pool.job(nap).timeout(millis(100));
    let errors = [
        job.apply((FOREVER,)).unwrap_err(),
        job.apply_async((FOREVER,)).get().unwrap_err(),
        job.map([FOREVER]).unwrap_err(),
        job.map_async([FOREVER]).get().unwrap_err(),
        job.starmap([(FOREVER,)]).unwrap_err(),
        job.imap([FOREVER]).next().unwrap().unwrap_err(),
        job.imap_unordered([FOREVER]).next().unwrap().unwrap_err(),
    ];
    for error in errors {
        check_error(&error, ErrorKind::TimedOut, 0, 1, &["100ms"]);
    }
    still_works(&pool);
}

fn a_timed_out_item_is_not_retried() {
    let (pool, log) = (pool(1), Log::new("runs"));
    let job = pool.job(log_and_fault).timeout(TIMEOUT).retries(5).retry_panics(true);
    let error = job.apply((log.path(), 1, Some(Fault::Spin))).unwrap_err();
    check_words(&error, &["1 attempt"]);
    assert_eq!(log.lines().len(), 1);
}

fn many_time_out() {
    let pool = pool(4);
    let naps = (0..24).map(|item| if item % 2 == 0 { FOREVER } else { 1 });
    let outcomes: Vec<_> = within(seconds(20), || pool.job(nap).timeout(millis(100)).imap(naps).collect());
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 12);
    let errors = outcomes.into_iter().filter_map(Result::err);
    assert!(errors.map(|error| error.kind()).eq([ErrorKind::TimedOut; 12]));
    still_works(&pool);
}
