//! Number of attempts of an item.

use farpool::{ErrorKind, Pool};
use farpool_testkit::processes;

use crate::failures::checks::{check_error, only_failed, pool, seconds, still_works, within};
use crate::failures::tasks::{Fault, die_at_first, log_and_fault, square};
use crate::log::{self, Log};
use crate::pools;
use crate::report_pipe::ReportPipe;

crate::runner::cases![
    retries_limit_the_attempts,
    an_item_that_dies_at_first_succeeds_in_the_end,
    only_poison_is_retried,
    a_chunk_is_not_retried_for_one_of_its_items,
    queued_items_of_a_dead_worker_keep_their_order,
    panics_are_retried_on_request,
    a_death_uses_up_an_attempt_of_each_running_item,
    most_of_a_map_is_poison,
];

fn retries_limit_the_attempts() {
    let pool = pool(2);
    for retries in [0, 1, 5] {
        let log = Log::new("runs");
        let error = pool.job(log_and_fault).retries(retries).apply((log.path(), 0, Some(Fault::Kill))).unwrap_err();
        check_error(&error, ErrorKind::WorkerDied, 0, retries + 1, &["SIGKILL"]);
        assert_eq!(log.lines().len(), retries as usize + 1);
    }
    still_works(&pool);
}

fn an_item_that_dies_at_first_succeeds_in_the_end() {
    let (pool, log) = (pool(2), Log::new("runs"));
    let items = (0..30).map(|item| (log.path(), item, usize::from(item == 11) * 2));
    assert_eq!(pool.starmap(die_at_first, items).unwrap(), (0..30).collect::<Vec<_>>());
    assert_eq!((log.count(11), log.lines().len()), (3, 32));
    assert_eq!(pool.apply(die_at_first, (log.path(), 50, 1)).unwrap(), 50);
    assert_eq!(pool.apply_async(die_at_first, (log.path(), 51, 1)).get().unwrap(), 51);
}

/// Runs items, some of which always die, and checks how often each ran and which failed.
fn check_poison(pool: &Pool, items: u64, is_poison: fn(u64) -> bool, chunksize: Option<u64>) {
    let log = Log::new("runs");
    let one = |(path, item, fault)| log_and_fault(path, item, fault);
    let job = chunksize.into_iter().fold(pool.job(one).retries(1), |job, items| job.chunksize(items));
    let input = (0..items).map(|item| (log.path(), item, is_poison(item).then_some(Fault::Kill)));
    let outcomes = within(seconds(30), || job.imap(input).collect());
    let poison: Vec<u64> = (0..items).filter(|&item| is_poison(item)).collect();
    for (error, item) in only_failed(outcomes, &poison).iter().zip(&poison) {
        check_error(error, ErrorKind::WorkerDied, *item, 2, &["SIGKILL"]);
    }
    for item in 0..items {
        assert_eq!(log.count(item), if is_poison(item) { 2 } else { 1 }, "item {item} ran a wrong number of times");
    }
    still_works(pool);
}

fn only_poison_is_retried() {
    let pool = pool(3);
    check_poison(&pool, 300, |item| item % 50 == 17, None);
    check_poison(&pool, 20, |item| item > 17, None);
}

fn a_chunk_is_not_retried_for_one_of_its_items() {
    let pool = pool(2);
    check_poison(&pool, 60, |item| item == 13, Some(10));
    check_poison(&pool, 60, |item| item % 10 == 0, Some(10));
    check_poison(&pool, 60, |item| item % 10 == 9, Some(10));
    check_poison(&pool, 8, |item| item == 2 || item == 3, Some(8));
}

fn most_of_a_map_is_poison() {
    check_poison(&pool(2), 40, |item| item % 4 != 0, None);
    check_poison(&pool(2), 20, |_| true, None);
}

fn panics_are_retried_on_request() {
    fn at_last(path: String, item: u64, panics: usize) -> u64 {
        log::note(&path, item);
        let runs = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(runs > panics, "run {runs} panics");
        item
    }
    let pool = pool(2);
    for (retry, retries, panics, attempts) in
        [(false, 2, 1, Err(1)), (true, 2, 2, Ok(3)), (true, 2, 9, Err(3)), (true, 0, 1, Err(1))]
    {
        let log = Log::new("runs");
        let outcome = pool.job(at_last).retry_panics(retry).retries(retries).apply((log.path(), 8, panics));
        let runs = match (&outcome, attempts) {
            (Ok(8), Ok(runs)) => runs,
            (Err(error), Err(runs)) => {
                check_error(error, ErrorKind::Panicked, 0, runs, &[&format!("run {runs} panics")]);
                runs
            }
            _ => panic!("{outcome:?}"),
        };
        assert_eq!(log.lines().len(), runs as usize);
    }
}

/// The only worker dies with many items given to it ahead of time: the next worker runs them in input order.
fn queued_items_of_a_dead_worker_keep_their_order() {
    let (pool, log) = (pool(1), Log::new("runs"));
    assert_eq!(pool.job(square).chunksize(1).map(0..20_000).unwrap().len(), 20_000);
    let items = (0..300).map(|item| (log.path(), item, (item == 100).then_some(Fault::Kill)));
    let error = pool.job(log_and_fault).chunksize(1).retries(0).starmap(items).unwrap_err();
    check_error(&error, ErrorKind::WorkerDied, 100, 1, &["SIGKILL"]);
    let ran: Vec<u64> = log.lines().iter().map(|line| line.parse().unwrap()).collect();
    assert_eq!(ran, (0..300).collect::<Vec<_>>());
}

fn a_death_uses_up_an_attempt_of_each_running_item() {
    fn report_and_wait(path: String, quick: bool) {
        if !quick {
            crate::failures::tasks::hang(path);
        }
    }
    let pool = pools::builder().processes(1).threads(3).build().unwrap();
    for (retries, attempts) in [(0, 1), (1, 2)] {
        let mut line = ReportPipe::new(&format!("pids-{retries}"));
        let path = line.path();
        let one = |(path, quick)| report_and_wait(path, quick);
        let input: Vec<_> = (0..8).map(|item| (path.clone(), item > 2)).collect();
        let outcomes = std::thread::scope(|scope| {
            let running = scope.spawn(|| pool.job(one).retries(retries).imap(input).collect::<Vec<_>>());
            for _ in 0..attempts {
                let pids = [(); 3].map(|()| line.next_number());
                assert_eq!(pids, [pids[0]; 3], "all three run in one worker");
                processes::send(pids[0], nix::sys::signal::Signal::SIGKILL).unwrap();
            }
            running.join().unwrap()
        });
        for (item, outcome) in (0..).zip(outcomes) {
            match outcome {
                Ok(()) => assert!(item > 2),
                Err(error) => check_error(&error, ErrorKind::WorkerDied, item, attempts, &["SIGKILL"]),
            }
        }
    }
    still_works(&pool);
}
