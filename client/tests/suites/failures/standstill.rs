//! Workers that are stopped by a signal or a tracer.

use farpool::{ErrorKind, Pool};
use farpool_testkit::processes;
use farpool_testkit::waiting;
use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::cluster;
use crate::failures::checks::{check_error, millis, pool, seconds, still_works, within};
use crate::failures::tasks::{pid_after, square};
use crate::log::{self, Log};
use crate::pools;
use crate::report_pipe::{self, ReportPipe};

crate::runner::cases![
    items_of_a_stopped_worker_move,
    items_of_a_traced_worker_move,
    a_chunk_that_has_not_begun_moves_as_a_whole,
    running_items_of_a_stopped_worker_are_awaited,
    a_timeout_behind_an_item_without_one,
    the_only_worker_is_replaced_if_it_does_not_respond,
    a_large_item_half_sent_to_a_stopped_worker_moves,
    a_large_item_half_sent_to_a_stopped_worker_is_cancelled,
    a_pool_closes_with_a_stopped_worker,
];

/// Reports that it runs, and waits until the test opens and closes this pipe.
fn run_until_opened(started: String, gate: String) -> u32 {
    report_pipe::report(&started, std::process::id());
    std::fs::read(gate).unwrap();
    std::process::id()
}

fn noted(path: String, item: u64) -> (u32, u64) {
    log::note(&path, item);
    (std::process::id(), item)
}

/// Stops a process; returns when none of its threads runs.
fn stop(pid: u32) {
    processes::send(pid, Signal::SIGSTOP).unwrap();
    let runs = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap();
        !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
    };
    waiting::until(|| !std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().any(|task| runs(task.unwrap())));
}

/// A pool of two workers: one runs an item until the test ends it, and the other is idle.
struct BusyAndIdle {
    pool: Pool,
    busy: u32,
    idle: u32,
    runs: farpool::AsyncResult<u32>,
    gate: String,
}

impl BusyAndIdle {
    fn new() -> BusyAndIdle {
        let pool = pool(2);
        // A worker may start too late for the first round.
        let pids = loop {
            let pids = pool.job(pid_after).chunksize(1).map([50; 4]).unwrap();
            let pids = std::collections::BTreeSet::from_iter(pids);
            if pids.len() == 2 {
                break pids;
            }
        };
        let (mut started, gate) = (ReportPipe::new("started"), format!("{}/word", crate::runner::scratch().display()));
        nix::unistd::mkfifo(gate.as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let runs = pool.apply_async(run_until_opened, (started.path(), gate.clone()));
        let busy = started.next_number();
        let idle = pids.into_iter().find(|pid| *pid != busy).unwrap();
        BusyAndIdle { pool, busy, idle, runs, gate }
    }

    /// Checks that an item did not run in the idle worker. On a cluster, the two may be on different hosts, and a third worker
    /// has replaced it.
    fn ran_elsewhere(&self, pid: u32) {
        if cluster::is_on_cluster() {
            assert_ne!(pid, self.idle);
        } else {
            assert_eq!(pid, self.busy);
        }
    }

    /// Lets the busy worker finish its item.
    fn finish_item(&self) {
        // Opening it waits for the reader, and closing it ends the item.
        drop(std::fs::OpenOptions::new().write(true).open(&self.gate).unwrap());
    }
}

fn items_of_a_stopped_worker_move() {
    let (workers, log) = (BusyAndIdle::new(), Log::new("runs"));
    stop(workers.idle);
    // At-most-once items move, too: this one has not begun.
    let waits = workers.pool.job(noted).retries(0).apply_async((log.path(), 7));
    assert!(!waits.wait(millis(300)), "the only worker that could run it is stopped");
    workers.finish_item();
    let (pid, _) = within(seconds(5), || waits.get().unwrap());
    workers.ran_elsewhere(pid);
    processes::send(workers.idle, Signal::SIGCONT).unwrap();
    assert_eq!(workers.runs.get().unwrap(), workers.busy);
    still_works(&workers.pool);
    assert_eq!(log.lines(), ["7"], "the item ran once");
}

fn items_of_a_traced_worker_move() {
    let (workers, log) = (BusyAndIdle::new(), Log::new("runs"));
    let Some(traced) = Traced::attach(workers.idle) else {
        eprintln!("this process may not trace a worker: nothing is shown");
        return workers.finish_item();
    };
    let waits = workers.pool.job(noted).retries(0).apply_async((log.path(), 7));
    assert!(!waits.wait(millis(300)), "the only worker that could run it is stopped");
    workers.finish_item();
    let (pid, _) = within(seconds(5), || waits.get().unwrap());
    workers.ran_elsewhere(pid);
    drop(traced);
    still_works(&workers.pool);
    assert_eq!(log.lines(), ["7"], "the item ran once");
}

fn a_chunk_that_has_not_begun_moves_as_a_whole() {
    let (workers, log) = (BusyAndIdle::new(), Log::new("runs"));
    stop(workers.idle);
    let items: Vec<_> = (0..40).map(|item| (log.path(), item)).collect();
    let chunk = workers.pool.job(noted).retries(0).chunksize(40).starmap_async(items);
    assert!(!chunk.wait(millis(300)), "the only worker that could run it is stopped");
    workers.finish_item();
    let outcomes = within(seconds(5), || chunk.get().unwrap());
    processes::send(workers.idle, Signal::SIGCONT).unwrap();
    let pid = outcomes[0].0;
    assert!(outcomes.iter().all(|(other, _)| *other == pid), "{outcomes:?}");
    workers.ran_elsewhere(pid);
    still_works(&workers.pool);
    let order: Vec<u64> = log.lines().iter().map(|line| line.parse().unwrap()).collect();
    assert_eq!(order, (0..40).collect::<Vec<_>>(), "the items ran once, one after another");
}

/// However long it takes: only a timeout could end it.
fn running_items_of_a_stopped_worker_are_awaited() {
    let workers = BusyAndIdle::new();
    stop(workers.busy);
    let until = std::time::Instant::now() + millis(2500);
    while std::time::Instant::now() < until {
        assert_eq!(workers.pool.map(square, 0..10).unwrap().len(), 10);
        assert!(!workers.runs.ready());
    }
    processes::send(workers.busy, Signal::SIGCONT).unwrap();
    workers.finish_item();
    assert_eq!(within(seconds(5), || workers.runs.get().unwrap()), workers.busy);
    still_works(&workers.pool);
}

/// Both items are next on a worker with several threads, and the second one times out first.
fn a_timeout_behind_an_item_without_one() {
    let pool = pools::builder().processes(1).threads(4).build().unwrap();
    let pid = pool.apply(pid_after, (0,)).unwrap();
    stop(pid);
    let untimed = pool.apply_async(square, (3,));
    let error = within(seconds(5), || pool.job(square).timeout(millis(250)).apply((1,)).unwrap_err());
    check_error(&error, ErrorKind::TimedOut, 0, 1, &["timeout of 250ms"]);
    assert_eq!(within(seconds(5), || untimed.get().unwrap()), 9);
    still_works(&pool);
}

fn the_only_worker_is_replaced_if_it_does_not_respond() {
    let (pool, log) = (pool(1), Log::new("runs"));
    let pid = pool.apply(pid_after, (0,)).unwrap();
    stop(pid);
    let untimed = pool.job(noted).retries(0).apply_async((log.path(), 1));
    let timed = pool.job(noted).retries(0).timeout(millis(250)).apply_async((log.path(), 2));
    let outcomes = within(seconds(5), || [untimed.get().unwrap(), timed.get().unwrap()]);
    assert!(outcomes.iter().all(|(other, _)| *other != pid), "{outcomes:?}");
    still_works(&pool);
    assert_eq!(log.lines(), ["1", "2"]);
    // It was asked to exit, which it cannot do.
    waiting::until_gone(seconds(8), || processes::Process::of(pid).into_iter().collect());
}

/// Returns more than its ring holds.
fn large() -> Vec<u8> {
    vec![7; 20 << 20]
}

fn length(item: Vec<u8>) -> (u32, usize) {
    (std::process::id(), item.len())
}

fn a_large_item_half_sent_to_a_stopped_worker_moves() {
    let workers = BusyAndIdle::new();
    stop(workers.idle);
    let waits = workers.pool.job(length).retries(0).apply_async((large(),));
    assert!(!waits.wait(millis(300)), "the only worker that could run it is stopped");
    workers.finish_item();
    let (pid, length) = within(seconds(8), || waits.get().unwrap());
    assert_eq!(length, large().len());
    workers.ran_elsewhere(pid);
    // The part that the worker has received is ignored, and harmless.
    processes::send(workers.idle, Signal::SIGCONT).unwrap();
    still_works(&workers.pool);
}

fn a_large_item_half_sent_to_a_stopped_worker_is_cancelled() {
    let pool = pool(1);
    let pid = pool.apply(pid_after, (0,)).unwrap();
    stop(pid);
    let cancelled = pool.apply_async(length, (large(),));
    assert!(!cancelled.wait(millis(50)));
    cancelled.cancel();
    assert_eq!(cancelled.get().unwrap_err().kind(), ErrorKind::Cancelled);
    // Nothing can be given to it after that.
    let timed = pool.job(square).timeout(millis(250));
    assert_eq!(within(seconds(5), || timed.apply((3,)).unwrap()), 9);
    still_works(&pool);
}

fn a_pool_closes_with_a_stopped_worker() {
    let workers = BusyAndIdle::new();
    stop(workers.idle);
    let waits = workers.pool.apply_async(square, (3,));
    workers.finish_item();
    assert_eq!(within(seconds(5), || waits.get().unwrap()), 9);
    workers.pool.close();
    within(seconds(10), || workers.pool.join().unwrap());
}

/// A process that this thread traces, and that is therefore stopped.
struct Traced(libc::pid_t);

impl Traced {
    /// Attaches to a process; `None` if that is not permitted.
    fn attach(pid: u32) -> Option<Traced> {
        let pid = libc::pid_t::try_from(pid).expect("not a process id");
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: it attaches to another process and touches no memory of this one.
        match Errno::result(unsafe { libc::ptrace(libc::PTRACE_ATTACH, pid, none, none) }) {
            Err(Errno::EPERM) => return None,
            attached => attached.unwrap(),
        };
        let status = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap();
        assert!(matches!(status, nix::sys::wait::WaitStatus::Stopped(..)), "{status:?}");
        Some(Traced(pid))
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: as above. An error means that it has exited.
        let _ = unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, none, none) };
    }
}
