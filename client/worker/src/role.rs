//! What this process is: a user's program, or part of a pool.

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

/// What this process was started as; decided by the first call of `init`.
static ROLE: AtomicU8 = AtomicU8::new(UNDECIDED);
const UNDECIDED: u8 = 0;
const PROGRAM: u8 = 1;
const PART_OF_A_POOL: u8 = 2;

/// How a process that runs this program again comes to `init` without doing anything else; decided by the first call of `init`
/// of which that is known.
static WAY: OnceLock<Way> = OnceLock::new();

enum Way {
    /// With the arguments that this process was started with.
    AsStarted,
    /// Through this test of a test harness.
    Test(String),
}

/// What `init` is to do.
pub(crate) enum Role {
    /// Return.
    Program,
    /// Serve as a fork server of this process.
    ForkServer(Pid),
    /// Work for this fork server.
    Worker(Pid),
    /// Nothing, for ever: another thread has made this process part of a pool.
    Bystander,
}

/// How far a program is on its way to pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initialised {
    /// It can open pools.
    Yes,
    /// `init` was not called.
    No,
    /// It was, by a thread of a test harness that is no test's, so that only the whole harness would come there again.
    BesideTests,
}

/// Decides what this process is.
pub(crate) fn decide() -> Role {
    // Threads that come here at the same time all find the same, as long as none of them has gone on.
    let role = if ROLE.load(Ordering::SeqCst) == UNDECIDED { claim() } else { Role::Program };
    let found = if matches!(role, Role::Program) { PROGRAM } else { PART_OF_A_POOL };
    match ROLE.compare_exchange(UNDECIDED, found, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) if found == PART_OF_A_POOL => {
            program::remember();
            role
        }
        Ok(_) | Err(PROGRAM) => {
            note_way();
            Role::Program
        }
        Err(_) => Role::Bystander,
    }
}

/// What the environment says that this process is, if it was really started as that: whatever a task or the program itself
/// starts may have inherited the variable.
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

/// Whether a program has called `init`, or this is a worker, whose tasks may open pools as well.
pub fn initialised() -> Initialised {
    match (ROLE.load(Ordering::SeqCst), WAY.get()) {
        (PROGRAM, Some(_)) => Initialised::Yes,
        (PROGRAM, None) => Initialised::BesideTests,
        _ => Initialised::No,
    }
}

/// A worker's tasks may open pools of their own.
pub(crate) fn may_open_pools() {
    // The first to say so counts: it came here with its arguments.
    let _ = WAY.set(Way::AsStarted);
    ROLE.store(PROGRAM, Ordering::SeqCst);
}

/// The arguments that a fork server is started with: those that bring it to `init`.
pub fn arguments() -> Vec<OsString> {
    let mut own = env::args_os();
    let Some(Way::Test(test)) = WAY.get() else { return own.collect() };
    let mut arguments = vec![own.next().unwrap_or_default(), OsString::from(test)];
    arguments.extend(["--exact", "--nocapture", "--include-ignored", "--test-threads=1"].map(OsString::from));
    arguments
}

/// Under Rust's own test harness there is no `main` to call `init` in: tests do, each on a thread that carries the
/// test's name. Run again without it, the program would run all tests; with it, the one that gets to `init`. Which of
/// them, is all the same.
fn note_way() {
    let thread = thread::current();
    let way = match thread.name().filter(|name| *name != "main") {
        _ if !is_test_harness() => Way::AsStarted,
        Some(test) => Way::Test(test.to_owned()),
        // In `main`, or before it.
        None if gettid() == getpid() => Way::AsStarted,
        None => return,
    };
    // The first one counts.
    let _ = WAY.set(way);
}

/// Cargo builds test harnesses into folders called `deps`, and nothing else that is run from there.
fn is_test_harness() -> bool {
    let executable = env::current_exe();
    executable.is_ok_and(|path| path.parent().and_then(|folder| folder.file_name()).is_some_and(|name| name == "deps"))
}
