//! A process pool that scales beyond one machine: `map`, `starmap`, `imap`, `apply` and the rest of the API of Python's
//! `multiprocessing.Pool`, over worker processes.
//!
//! ```
//! fn calc_factorial(n: u32) -> f64 {
//!     (1..=n).map(f64::from).product()
//! }
//!
//! fn main() -> Result<(), farpool::Error> {
//!     farpool::init();
//!     let pool = farpool::Pool::new(4)?;
//!     let results = pool.map(calc_factorial, 1..=100u32)?;
//!     println!("finished {} calculations", results.len());
//!     # assert_eq!(results[4], 120.0);
//!     pool.close();
//!     pool.join()
//! }
//! ```
//!
//! # How functions get to the workers
//! Workers run the same executable as their client. [`init`], the first line of `main`, turns a process into a worker.
//! They can call any plain function and any closure that captures nothing, with no macro and no registration. Data that
//! every call needs is sent to each worker once, through [`Builder::initializer`].
//!
//! # What happens when
//! - an item panics: its error has the message and the backtrace; the other items are not affected.
//! - a worker dies: the item it was running is retried, twice by default ([`Job::retries`]), then fails as
//!   [`ErrorKind::WorkerDied`] with the signal or the exit code. Nothing hangs, and no other item is lost.
//! - an item takes longer than [`Job::timeout`]: its worker is killed, and the item fails as [`ErrorKind::TimedOut`].
//! - the pool is dropped or [terminated](Pool::terminate): no process is left behind.
//!
//! # Jobs that outlive their client
//! [`Job::detach`] hands a whole job to the cluster, whose coordinator keeps it on disk. [`attach`] reads its outcomes in any
//! process, as often as you like, even after restarts.
//!
//! # Processes that fork
//! A pool and its results ([`AsyncResult`], [`Imap`], the [`Outcomes`] of a detached job) belong to the process that opened
//! the pool. In a fork of that process their calls fail with [`ErrorKind::InvalidArgument`], dropping them does nothing,
//! and the parent is not affected. A fork can open its own pools.
//!
//! # Blocking and async
//! One [`Pool`] serves both: [`AsyncResult`] has `get()` and is a `Future`, [`Imap`] is an `Iterator` and a `Stream`, on any
//! executor. Do not call blocking methods (`apply`, `map`, `starmap`, and `next()` of an [`Imap`]) in async code.

#![cfg_attr(not(feature = "cluster"), expect(dead_code, unused_imports, reason = "some of it is for clusters only"))]

mod args;
mod async_result;
mod background;
mod builder;
mod callbacks;
mod calls;
#[cfg(all(test, feature = "cluster"))]
mod cluster_tests;
mod codec;
mod collector;
#[cfg(feature = "cluster")]
mod detached;
mod error;
#[cfg(test)]
mod fake_session;
mod feeder;
mod function;
mod imap;
mod job;
mod language;
mod map;
mod options;
mod output;
mod panics;
mod pool;
mod progress;
mod pulling;
mod shared;
mod singles;
mod task;
mod terminal;

pub use args::{Args, Data};
pub use async_result::AsyncResult;
pub use builder::Builder;
#[cfg(feature = "cluster")]
pub use detached::{Detach, Detached, DetachedState, DetachedStatus, Outcomes, attach, attach_to};
#[cfg(feature = "cluster")]
#[doc(hidden)]
pub use detached::{check_format as check_detached, decode as decode_detached};
pub use error::{Error, ErrorKind};
pub use function::{Captureless, Function};
pub use imap::Imap;
pub use job::Job;
pub use language::{init, slot};
#[doc(hidden)]
pub use output::{Printed, print_workers_with};
pub use pool::Pool;
pub use shared::Shared;
#[doc(hidden)]
pub use task::count_as_failed;
