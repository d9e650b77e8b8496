//! Tasks that leave processes behind.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use farpool::Pool;
use farpool_testkit::processes::{self, Process};
use farpool_testkit::waiting;
use serde::{Deserialize, Serialize};

use crate::failures::checks::{pool, seconds, still_works, within};
use crate::failures::tasks::{Fault, square};
use crate::pools;

crate::runner::cases![
    gone_when_the_pool_is_joined,
    gone_when_the_pool_is_dropped,
    gone_when_the_pool_is_terminated,
    gone_with_their_worker_if_they_are_in_its_group,
    gone_even_if_their_worker_died_before,
    the_pool_keeps_working,
];

/// How a task starts a process that outlives it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Start {
    Child,
    /// In its own session, and so in its own process group.
    Session,
    /// Its parent exits at once, as daemons do.
    Daemon,
}

pub(crate) const STARTS: [Start; 3] = [Start::Child, Start::Session, Start::Daemon];

/// Starts a process that sleeps for an hour, and leaves it behind.
pub(crate) fn litter(start: Start) {
    let mut shell = Command::new("sh");
    shell.stdin(Stdio::null());
    match start {
        Start::Child | Start::Session => shell.args(["-c", "exec sleep 3600"]),
        Start::Daemon => shell.args(["-c", "sleep 3600 & exit"]),
    };
    if !matches!(start, Start::Child) {
        // SAFETY: setsid is on the list of what may be called between fork and exec, and touches no memory.
        unsafe { shell.pre_exec(|| nix::unistd::setsid().map(drop).map_err(Into::into)) };
    }
    let mut child = shell.spawn().expect("cannot run sh");
    match start {
        Start::Child | Start::Session => std::mem::forget(child),
        Start::Daemon => drop(child.wait()),
    }
}

fn sleepers() -> Vec<Process> {
    processes::tagged(&processes::own_tag()).into_iter().filter(|process| process.name == "sleep").collect()
}

/// Opens a pool whose tasks have left three processes behind, each in a different way.
fn littered() -> Pool {
    let pool = pool(2);
    pool.map(litter, STARTS).unwrap();
    waiting::until(|| sleepers().len() == 3);
    pool
}

fn gone_when_the_pool_is_joined() {
    let pool = littered();
    pool.close();
    within(seconds(5), || pool.join().unwrap());
    processes::assert_none_left();
}

fn gone_when_the_pool_is_dropped() {
    drop(littered());
    processes::assert_none_left();
}

fn gone_when_the_pool_is_terminated() {
    let pool = littered();
    pool.terminate();
    within(seconds(1), || pool.join().unwrap());
    processes::assert_none_left();
}

fn gone_with_their_worker_if_they_are_in_its_group() {
    let pool = pools::builder().processes(1).max_tasks_per_child(1).build().unwrap();
    pool.apply(litter, (Start::Child,)).unwrap();
    assert_eq!(pool.apply(square, (2,)).unwrap(), 4);
    waiting::until_gone(seconds(5), sleepers);
}

fn gone_even_if_their_worker_died_before() {
    let dies = |start| {
        litter(start);
        Fault::Kill.trigger();
    };
    let pool = pool(2);
    for start in STARTS {
        pool.job(dies).retries(0).apply((start,)).unwrap_err();
    }
    // Those in the dead workers' groups have been killed.
    waiting::until_gone(seconds(5), || sleepers().into_iter().skip(2).collect());
    drop(pool);
    processes::assert_none_left();
}

fn the_pool_keeps_working() {
    let pool = littered();
    still_works(&pool);
    assert_eq!(sleepers().len(), 3);
}
