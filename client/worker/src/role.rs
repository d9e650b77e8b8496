//! Decides what this process is: a user's program, or part of a pool.

use std::env;
use std::ffi::OsString;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use farpool_link::message::{ROLE_FORK_SERVER, ROLE_VARIABLE, ROLE_WORKER};
use nix::unistd::{Pid, getpid, gettid};

use crate::leave;
use crate::program;
use crate::starter::{self, Starter};

/// The role of this process; decided by the first call of `init`.
static ROLE: AtomicU8 = AtomicU8::new(UNDECIDED);
const UNDECIDED: u8 = 0;
const PROGRAM: u8 = 1;
const PART_OF_A_POOL: u8 = 2;

/// How another process of this program reaches `init` without doing anything else. Decided by the first call of `init`
/// for which it is known.
static ROUTE: OnceLock<Route> = OnceLock::new();

enum Route {
    /// With the arguments of this process.
    AsStarted,
    /// Through this test of a test harness.
    Test(String),
}

/// The task of a call of `init`.
pub(crate) enum Role {
    /// Return.
    Program,
    /// Serve as a fork server of this process.
    ForkServer(Pid),
    /// Work for this fork server.
    Worker(Pid),
    /// Sleep forever: another thread runs the fork server or worker.
    Bystander,
}

/// Whether a program can open pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initialised {
    /// It can open pools.
    Yes,
    /// It has not called `init`.
    No,
    /// It has called `init` in a test harness, but on a thread that belongs to no test. A fork server would have to run
    /// all tests to reach that call.
    OutsideTest,
}

/// Decides the role of this process.
pub(crate) fn decide() -> Role {
    // Concurrent calls all find the same role, as long as none has returned.
    let role = if ROLE.load(Ordering::SeqCst) == UNDECIDED { claim() } else { Role::Program };
    let found = if matches!(role, Role::Program) { PROGRAM } else { PART_OF_A_POOL };
    match ROLE.compare_exchange(UNDECIDED, found, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) if found == PART_OF_A_POOL => {
            program::remember();
            role
        }
        Ok(_) | Err(PROGRAM) => {
            record_route();
            Role::Program
        }
        Err(_) => Role::Bystander,
    }
}

/// Returns the role that the environment names, if the process was really started for it. Other processes may have
/// inherited the variable.
fn claim() -> Role {
    let role = env::var_os(ROLE_VARIABLE);
    let of = match role.as_deref().and_then(|role| role.to_str()) {
        Some(ROLE_FORK_SERVER) => Role::ForkServer,
        Some(ROLE_WORKER) => Role::Worker,
        _ => return Role::Program,
    };
    match starter::of_this_process() {
        Starter::Parent(pid) => of(pid),
        Starter::Gone => leave::agent_gone(),
        Starter::Other => Role::Program,
    }
}

/// Returns whether the program has called `init`, or is a worker, whose tasks may open pools, too.
pub fn initialised() -> Initialised {
    match (ROLE.load(Ordering::SeqCst), ROUTE.get()) {
        (PROGRAM, Some(_)) => Initialised::Yes,
        (PROGRAM, None) => Initialised::OutsideTest,
        _ => Initialised::No,
    }
}

/// Allows a worker's tasks to open pools.
pub(crate) fn may_open_pools() {
    // The first setting counts: the worker reached `init` with its arguments.
    let _ = ROUTE.set(Route::AsStarted);
    ROLE.store(PROGRAM, Ordering::SeqCst);
}

/// Returns the arguments with which a fork server reaches `init`.
pub fn arguments() -> Vec<OsString> {
    let mut own = env::args_os();
    let Some(Route::Test(test)) = ROUTE.get() else { return own.collect() };
    let mut arguments = vec![own.next().unwrap_or_default(), OsString::from(test)];
    arguments.extend(["--exact", "--nocapture", "--include-ignored", "--test-threads=1"].map(OsString::from));
    arguments
}

/// Records how this process reached `init`.
///
/// Rust's test harness has no `main` to call `init` in: tests call it, each on a thread with the test's name. Without
/// that name as an argument, the program would run all tests. Any test that calls `init` will do.
fn record_route() {
    let thread = thread::current();
    let route = match thread.name().filter(|name| *name != "main") {
        _ if !is_test_harness() => Route::AsStarted,
        Some(test) => Route::Test(test.to_owned()),
        // In `main`, or before it.
        None if gettid() == getpid() => Route::AsStarted,
        None => return,
    };
    // The first setting counts.
    let _ = ROUTE.set(route);
}

/// Cargo builds test harnesses into directories named `deps`, and runs nothing else from there. `rust_out` is rustdoc's harness: if a
/// runner is set, it runs all examples as threads of one process.
fn is_test_harness() -> bool {
    env::current_exe().is_ok_and(|path| {
        let folder = path.parent().and_then(|folder| folder.file_name());
        folder.is_some_and(|name| name == "deps") || path.file_name().is_some_and(|name| name == "rust_out")
    })
}
