//! The fork server itself is killed, or stopped.

use farpool::ErrorKind;
use farpool_testkit::processes;
use farpool_testkit::waiting;
use nix::sys::signal::Signal;

use crate::failures::checks::{check_error, pool, seconds, still_works, within};
use crate::failures::litter::{Start, litter};
use crate::failures::tasks::{hang, log_and_fault, nap};
use crate::log::Log;
use crate::report_pipe::ReportPipe;

crate::runner::cases![
    killed_while_idle,
    killed_in_the_middle_of_a_map,
    killed_repeatedly,
    killed_with_processes_that_tasks_have_left_behind,
    stopped_when_the_pool_ends,
];

/// Returns the only child of this process.
pub(crate) fn pid() -> u32 {
    let children = processes::children();
    assert_eq!(children.len(), 1, "{}", processes::list(&children));
    children[0].pid
}

fn killed_while_idle() {
    let pool = pool(2);
    still_works(&pool);
    processes::send(pid(), Signal::SIGKILL).unwrap();
    within(seconds(5), || still_works(&pool));
}

/// Running items use up an attempt, and finished items stay finished.
fn killed_in_the_middle_of_a_map() {
    let (pool, mut line, log) = (pool(2), ReportPipe::new("pids"), Log::new("runs"));
    let notes = pool.starmap_async(log_and_fault, (0..20).map(|item| (log.path(), item, None)).collect::<Vec<_>>());
    assert_eq!(notes.get().unwrap().len(), 20);
    let doomed = pool.job(hang).retries(0).chunksize(1).map_async([line.path(), line.path()]);
    line.next();
    line.next();
    processes::send(pid(), Signal::SIGKILL).unwrap();
    let error = within(seconds(5), || doomed.get().unwrap_err());
    check_error(&error, ErrorKind::WorkerDied, 0, 1, &["fork server"]);
    assert_eq!(log.lines().len(), 20);
    still_works(&pool);
}

fn killed_repeatedly() {
    let pool = pool(2);
    let naps = pool.job(nap).retries(100).chunksize(1).map_async([30; 30]);
    for _ in 0..5 {
        if naps.wait(crate::failures::checks::millis(100)) {
            break;
        }
        // It may be a fork server that the agent has just abandoned.
        for child in processes::children() {
            let _ = processes::send(child.pid, Signal::SIGKILL);
        }
    }
    assert_eq!(within(seconds(20), || naps.get().unwrap()), [30; 30]);
    still_works(&pool);
}

/// Processes in the workers' groups are killed; the others are no longer tracked.
fn killed_with_processes_that_tasks_have_left_behind() {
    let pool = pool(2);
    pool.apply(litter, (Start::Child,)).unwrap();
    processes::send(pid(), Signal::SIGKILL).unwrap();
    still_works(&pool);
    drop(pool);
    processes::assert_none_left();
}

fn stopped_when_the_pool_ends() {
    let pool = pool(2);
    still_works(&pool);
    processes::send(pid(), Signal::SIGSTOP).unwrap();
    pool.terminate();
    within(seconds(5), || pool.join().unwrap());
    waiting::until_gone(seconds(1), processes::started_by_this_case);
}
