//! Finds this program's functions in its workers, and turns the program into a worker.

use std::sync::Arc;

use bytes::Bytes;
use farpool_worker::{Language, Task};

use crate::{codec, function};

/// Lets this program run as its own pool's workers. Call it in the first line of `main`.
///
/// In a process that you started it returns at once. farpool starts workers by running the same executable
/// again; in a worker this call runs tasks and never returns. So code before it should have no side effects,
/// and code after it does not run in workers. A program that opens a [`Pool`](crate::Pool) without
/// calling it gets an error that says so.
///
/// Call it before starting threads, if possible: workers are then forked (0.2 ms each) instead of
/// started from scratch (1 to 2 ms each). Under `#[tokio::main]` threads already exist; write a plain `main` that calls
/// `farpool::init()` and builds the runtime afterwards.
///
/// In tests under Rust's own harness, call it in the first line of each test that opens a pool, on the test's own thread:
/// each worker then runs one of these tests, up to this call, and no other. With a harness of your own, call it in `main`,
/// so that workers do not start the harness.
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
    farpool_worker::init(&Rust);
}

/// Returns the number of this worker, from 0, by which a task can choose a device, a port or a folder. No other worker of the
/// same agent has the same number at the same time. Numbers are as small as possible, but workers that wait for items of another pool,
/// or are exiting, have numbers too: so a number may be larger than the number of slots. `None` in the client.
///
/// Workers of local pools have numbers within their pool.
///
/// ```
/// fn device() -> Option<u32> {
///     farpool::slot()
/// }
///
/// fn main() -> Result<(), farpool::Error> {
///     farpool::init();
///     let pool = farpool::Pool::new(1)?;
///     assert_eq!(pool.apply(device, ())?, Some(0));
///     assert_eq!(farpool::slot(), None);
///     Ok(())
/// }
/// ```
pub fn slot() -> Option<u32> {
    farpool_worker::slot()
}

/// Functions of the executable that client and workers run.
struct Rust;

impl Language for Rust {
    fn find(&self, function: Bytes) -> Result<Task, String> {
        match function::resolve(&function) {
            Ok(entry) => Ok(Arc::new(entry)),
            Err(why) => Err(why.into_owned()),
        }
    }

    fn stack_bytes(&self) -> usize {
        codec::STACK
    }
}
