//! Failures while several threads use one pool: each caller gets its own.

use std::thread;

use farpool::{ErrorKind, Pool};

use crate::failures::checks::{check_error, only_failed, pool, still_works};
use crate::failures::tasks::{Fault, log_and_fault, square};
use crate::log::Log;

crate::runner::cases![deaths_in_one_job_do_not_affect_others, every_thread_has_its_own_poison];

fn poisoned(pool: &Pool, log: &Log, poison: u64) {
    let one = |(path, item, fault)| log_and_fault(path, item, fault);
    let items = (0..20).map(|item| (log.path(), item, (item == poison).then_some(Fault::Kill)));
    let outcomes = pool.job(one).retries(1).imap(items).collect();
    check_error(&only_failed(outcomes, &[poison])[0], ErrorKind::WorkerDied, poison, 2, &["SIGKILL"]);
}

fn deaths_in_one_job_do_not_affect_others() {
    let (pool, log) = (pool(3), Log::new("runs"));
    thread::scope(|scope| {
        scope.spawn(|| (0..5).for_each(|_| poisoned(&pool, &log, 7)));
        for _ in 0..2 {
            scope.spawn(|| {
                for n in 0..200 {
                    assert_eq!(pool.map(square, [n, n + 1]).unwrap(), [n * n, (n + 1) * (n + 1)]);
                }
            });
        }
    });
    assert_eq!((log.count(7), log.count(8)), (10, 5));
    still_works(&pool);
}

fn every_thread_has_its_own_poison() {
    let pool = pool(3);
    thread::scope(|scope| {
        for thread in 0..4 {
            let pool = &pool;
            scope.spawn(move || poisoned(pool, &Log::new(&format!("runs-{thread}")), 3 * thread));
        }
    });
    still_works(&pool);
}
