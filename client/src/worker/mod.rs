//! What runs inside fork servers and workers: everything that happens when `farpool::init()` does not return.

use std::sync::atomic::{AtomicBool, Ordering};

use farpool_agent::fork_server::message::{ROLE_FORK_SERVER, ROLE_VARIABLE, ROLE_WORKER};

pub(crate) mod task;

mod bell;
mod fork_server;
mod input;
mod output;
mod panics;
mod process;
mod runtime;
mod threads;

static INITIALISED: AtomicBool = AtomicBool::new(false);

/// Makes this program able to serve as its own pool's workers: the first line of `main`.
///
/// In the process that a user started it returns at once. farpool starts workers by running the same
/// executable again; in such a process this call runs tasks and never returns, so nothing before it should
/// have side effects, and nothing behind it runs there. A program that opens a [`Pool`](crate::Pool) without
/// having called it gets an error that says so.
///
/// Call it before threads are started, where that is possible: workers are then forked (0.2 ms each) instead of
/// started anew (1 to 2 ms each). Under `#[tokio::main]` threads are there already; write a plain `main` that calls
/// `farpool::init()` and builds the runtime afterwards.
///
/// # Examples
///
/// ```
/// fn main() {
///     farpool::init();
///     // the program
/// }
/// ```
#[expect(clippy::needless_doctest_main, reason = "that it is the first line of main is what the example shows")]
pub fn init() {
    let role = std::env::var_os(ROLE_VARIABLE);
    match role.as_deref().and_then(|role| role.to_str()) {
        Some(ROLE_FORK_SERVER) => fork_server::serve(),
        Some(ROLE_WORKER) => process::started_anew(),
        _ => INITIALISED.store(true, Ordering::Release),
    }
}

/// Whether the program has called [`init`].
pub(crate) fn initialised() -> bool {
    INITIALISED.load(Ordering::Acquire)
}
