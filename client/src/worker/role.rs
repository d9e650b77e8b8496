//! What this process is: a user's program, or part of a pool.

use std::cell::RefCell;
use std::ffi::OsString;
use std::sync::atomic::{AtomicU8, Ordering};

use farpool_agent::fork_server::message::{ROLE_FORK_SERVER, ROLE_VARIABLE, ROLE_WORKER};

/// What this process was started as; decided by the first call of `init`.
static ROLE: AtomicU8 = AtomicU8::new(UNDECIDED);
const UNDECIDED: u8 = 0;
const DECIDING: u8 = 1;
const PROGRAM: u8 = 2;
const PART_OF_A_POOL: u8 = 3;

thread_local! {
    /// The test that has called `init` on this thread, if it is one of a test harness's threads.
    static TEST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What `init` is to do.
pub(super) enum Role {
    /// Return.
    Program,
    /// Serve as a fork server.
    ForkServer,
    /// Work.
    Worker,
    /// Nothing, for ever: another thread has made this process part of a pool.
    Bystander,
}

/// Decides what this process is.
pub(super) fn decide() -> Role {
    if ROLE.compare_exchange(UNDECIDED, DECIDING, Ordering::SeqCst, Ordering::SeqCst).is_err() {
        while ROLE.load(Ordering::SeqCst) == DECIDING {
            std::thread::yield_now();
        }
        return if ROLE.load(Ordering::SeqCst) == PROGRAM { note_test() } else { Role::Bystander };
    }
    let role = std::env::var_os(ROLE_VARIABLE);
    let role = match role.as_deref().and_then(|role| role.to_str()) {
        Some(ROLE_FORK_SERVER) => Role::ForkServer,
        Some(ROLE_WORKER) => Role::Worker,
        _ => note_test(),
    };
    if matches!(role, Role::ForkServer | Role::Worker) {
        crate::environment::remember_program();
    }
    ROLE.store(if matches!(role, Role::Program) { PROGRAM } else { PART_OF_A_POOL }, Ordering::SeqCst);
    role
}

/// Whether a program has called `init`, or this is a worker, whose tasks may open pools as well.
pub(crate) fn initialised() -> bool {
    ROLE.load(Ordering::SeqCst) == PROGRAM
}

/// A worker's tasks may open pools of their own.
pub(super) fn may_open_pools() {
    ROLE.store(PROGRAM, Ordering::SeqCst);
}

/// The arguments that a fork server is started with: those that brought this process to `init`.
pub(crate) fn arguments() -> Vec<OsString> {
    let mut own = std::env::args_os();
    let Some(test) = TEST.with(|test| test.borrow().clone()) else { return own.collect() };
    let mut arguments = vec![own.next().unwrap_or_default(), OsString::from(test)];
    arguments.extend(["--exact", "--nocapture", "--include-ignored", "--test-threads=1"].map(OsString::from));
    arguments
}

/// Under Rust's own test harness there is no `main` to call `init` in: tests do, each on a thread that carries the
/// test's name. Run again without it, the program would run all tests; with it, the one that gets to `init`.
fn note_test() -> Role {
    let thread = std::thread::current();
    let test = thread.name().filter(|name| *name != "main" && is_test_harness());
    TEST.with(|noted| *noted.borrow_mut() = test.map(str::to_owned));
    Role::Program
}

/// Cargo builds test harnesses into folders called `deps`, and nothing else that is run from there.
fn is_test_harness() -> bool {
    let executable = std::env::current_exe();
    executable.is_ok_and(|path| path.parent().and_then(|folder| folder.file_name()).is_some_and(|name| name == "deps"))
}
