//! Failures while several threads use one pool: each caller is told of its own.

use std::thread;

use farpool::{ErrorKind, Pool};

use crate::failures::checks::{only_failed, pool, serves_on, told};
use crate::failures::tasks::{Way, perish, square};
use crate::log::Log;

crate::runner::cases![deaths_in_one_job_leave_others_alone, every_thread_has_a_poison_of_its_own];

fn poisoned(pool: &Pool, log: &Log, poison: u64) {
    let one = |(path, item, way)| perish(path, item, way);
    let items = (0..20).map(|item| (log.path(), item, (item == poison).then_some(Way::Kill)));
    let outcomes = pool.job(one).retries(1).imap(items).collect();
    told(&only_failed(outcomes, &[poison])[0], ErrorKind::WorkerDied, poison, 2, &["SIGKILL"]);
}

fn deaths_in_one_job_leave_others_alone() {
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
    serves_on(&pool);
}

fn every_thread_has_a_poison_of_its_own() {
    let pool = pool(3);
    thread::scope(|scope| {
        for thread in 0..4 {
            let pool = &pool;
            scope.spawn(move || poisoned(pool, &Log::new(&format!("runs-{thread}")), 3 * thread));
        }
    });
    serves_on(&pool);
}
