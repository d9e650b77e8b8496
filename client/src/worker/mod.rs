//! What runs inside fork servers and workers: everything that happens when `farpool::init()` does not return.

pub(crate) mod task;

mod bell;
mod children;
mod fork_server;
mod inherited;
mod input;
mod item_token;
mod kill;
mod lend;
mod output;
mod panics;
mod process;
mod role;
mod runtime;
mod starter;
mod threads;

pub(crate) use item_token::inherited as inherited_item;
pub(crate) use lend::{LendGuard, lend};
pub(crate) use role::{Initialised, arguments, initialised};
pub use task::count_as_failed;

use role::Role;

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
/// In tests under Rust's own harness, call it as the first line of each test that opens a pool, on the test's own thread (or
/// use a harness of your own whose `main` does, which spares the workers a start of the harness). Workers then run one of
/// these tests, as far as to this call, and no other.
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
    match role::decide() {
        Role::Program => {}
        Role::ForkServer(agent) => fork_server::serve(agent),
        Role::Worker(fork_server) => process::started_anew(fork_server),
        Role::Bystander => loop {
            std::thread::park();
        },
    }
}
