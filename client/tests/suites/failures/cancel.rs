//! Jobs that are cancelled, dropped or terminated.

use farpool::ErrorKind;
use farpool_testkit::processes::{self, Process};
use farpool_testkit::waiting;

use crate::failures::checks::{millis, pool, seconds, still_works, within};
use crate::failures::tasks::{FOREVER, Fault, hang, nap, pid_after, square};
use crate::log::{self, Log};
use crate::report_pipe::{self, ReportPipe};

crate::runner::cases![
    cancel_kills_running_items_of_its_job_only,
    cancel_revokes_items_that_have_not_begun,
    cancel_revokes_items_behind_another_job,
    cancel_in_the_middle_of_the_input,
    cancel_while_a_large_item_is_being_sent,
    a_dropped_imap_frees_its_workers,
    imaps_are_dropped_repeatedly,
    terminate_kills_any_running_item,
    terminate_from_another_thread_while_a_map_waits,
    drop_while_jobs_are_being_fed,
];

fn worker(pid: u32) -> Vec<Process> {
    Process::of(pid).into_iter().collect()
}

fn cancel_kills_running_items_of_its_job_only() {
    let (pool, mut line) = (pool(2), ReportPipe::new("pids"));
    let doomed = pool.apply_async(hang, (line.path(),));
    let pid = line.next_number();
    let other = pool.map_async(nap, [100; 6]);
    doomed.cancel();
    let error = within(seconds(1), || doomed.get().unwrap_err());
    assert_eq!((error.kind(), error.item()), (ErrorKind::Cancelled, None));
    waiting::until_gone(seconds(1), || worker(pid));
    assert_eq!(other.get().unwrap(), [100; 6]);
    still_works(&pool);
}

fn cancel_revokes_items_that_have_not_begun() {
    fn noted(path: String, started: String) {
        log::note(&path, "ran");
        report_pipe::report(&started, 1);
        nap(50);
    }
    let (pool, log, mut line) = (pool(2), Log::new("runs"), ReportPipe::new("started"));
    for chunksize in [1, 50] {
        let items: Vec<_> = (0..200).map(|_| (log.path(), line.path())).collect();
        let doomed = pool.job(noted).chunksize(chunksize).starmap_async(items);
        line.next();
        doomed.cancel();
        assert_eq!(doomed.get().unwrap_err().kind(), ErrorKind::Cancelled);
        still_works(&pool);
        let runs = log.lines().len();
        assert!(runs <= 12, "{runs} items ran though the job was cancelled");
    }
}

/// Quick items were given to the only worker ahead of time. None of them begins, and the worker survives.
fn cancel_revokes_items_behind_another_job() {
    fn noted(path: String, item: u64) -> u64 {
        log::note(&path, item);
        item
    }
    let (pool, log) = (pool(1), Log::new("runs"));
    pool.map(square, 0..20_000).unwrap();
    let pid = pool.apply(pid_after, (0,)).unwrap();
    let other = pool.apply_async(pid_after, (300,));
    let doomed = pool.starmap_async(noted, (0..50).map(|item| (log.path(), item)).collect::<Vec<_>>());
    doomed.cancel();
    assert_eq!(doomed.get().unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(other.get().unwrap(), pid);
    assert_eq!(pool.apply(pid_after, (0,)).unwrap(), pid, "the worker was replaced");
    assert!(log.lines().is_empty(), "cancelled items ran: {:?}", log.lines());
}

fn cancel_in_the_middle_of_the_input() {
    let pool = pool(2);
    let (sender, receiver) = std::sync::mpsc::channel();
    let doomed = pool.map_async(square, receiver);
    (0..1000).for_each(|n| sender.send(n).unwrap());
    doomed.cancel();
    assert_eq!(within(seconds(2), || doomed.get().unwrap_err()).kind(), ErrorKind::Cancelled);
    // The thread that pulls the input notices at the next item.
    while sender.send(1).is_ok() {
        std::thread::yield_now();
    }
    still_works(&pool);
}

/// A half-sent item cannot be revoked: it is killed when it begins, and nothing wakes the agent for that.
fn cancel_while_a_large_item_is_being_sent() {
    fn swallow(item: Vec<u8>) -> usize {
        hang_with(item.len())
    }
    fn hang_with(bytes: usize) -> usize {
        while std::hint::black_box(bytes) > 0 {
            nap(FOREVER);
        }
        bytes
    }
    let pool = pool(1);
    pool.apply(square, (2,)).unwrap();
    for mebibytes in [3, 20, 100] {
        let doomed = pool.apply_async(swallow, (vec![1; mebibytes << 20],));
        doomed.cancel();
        assert_eq!(doomed.get().unwrap_err().kind(), ErrorKind::Cancelled);
        within(seconds(5), || still_works(&pool));
    }
}

fn a_dropped_imap_frees_its_workers() {
    let pool = pool(2);
    for first in [0, 1] {
        let mut outcomes = pool.imap(nap, std::iter::once(1).chain(std::iter::repeat(FOREVER)));
        assert!(outcomes.by_ref().take(first).all(|outcome| outcome.is_ok()));
        drop(outcomes);
        within(seconds(5), || still_works(&pool));
    }
    let mut outcomes = pool.imap_unordered(nap, [FOREVER, 1, 1, 1, 1, 1, 1, FOREVER]);
    assert_eq!(outcomes.next().unwrap().unwrap(), 1);
    drop(outcomes);
    within(seconds(5), || still_works(&pool));
}

fn imaps_are_dropped_repeatedly() {
    let pool = pool(2);
    for taken in 0..200 {
        let outcomes = pool.imap(square, 0..);
        assert_eq!(outcomes.take(taken).filter(Result::is_ok).count(), taken);
    }
    still_works(&pool);
}

fn terminate_kills_any_running_item() {
    for fault in [Fault::Spin, Fault::SpinIgnoringSigterm, Fault::Stop] {
        let hangs = |(path, fault): (String, Fault)| {
            report_pipe::report(&path, 1);
            fault.trigger();
        };
        let (pool, mut line) = (pool(2), ReportPipe::new(&format!("{fault:?}")));
        let doomed = pool.job(hangs).chunksize(1).map_async(vec![(line.path(), fault); 10]);
        line.next();
        line.next();
        let queued = pool.apply_async(square, (1,));
        pool.terminate();
        within(seconds(1), || pool.join().unwrap());
        processes::assert_none_left();
        assert_eq!(doomed.get().unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(queued.get().unwrap_err().kind(), ErrorKind::Cancelled);
    }
}

fn terminate_from_another_thread_while_a_map_waits() {
    let (pool, mut line) = (pool(2), ReportPipe::new("pids"));
    let path = line.path();
    std::thread::scope(|scope| {
        let map = scope.spawn(|| pool.map(hang, [path.clone()]).unwrap_err());
        let imap = scope.spawn(|| pool.imap(hang, [path.clone()]).next().unwrap().unwrap_err());
        line.next();
        line.next();
        pool.terminate();
        for waiting in [map, imap] {
            assert_eq!(waiting.join().unwrap().kind(), ErrorKind::Cancelled);
        }
    });
    within(seconds(1), || pool.join().unwrap());
}

fn drop_while_jobs_are_being_fed() {
    for round in 0..10 {
        let pool = pool(2);
        let jobs: Vec<_> = (0..3).map(|_| pool.map_async(square, 0..200_000)).collect();
        jobs[0].wait(millis(round * 2));
        within(seconds(2), || drop(pool));
        processes::assert_none_left();
        for job in jobs {
            match within(seconds(5), || job.get()) {
                Ok(results) => assert_eq!(results.len(), 200_000),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}"),
            }
        }
    }
}
