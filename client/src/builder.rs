//! The options of a pool.

mod resolve;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::args::Args;
use crate::codec::CodecError;
use crate::error::Error;
use crate::function::{self, Function};
use crate::pool::Pool;

/// The options of a [`Pool`]; made by [`Pool::builder`].
///
/// Nothing is checked before [`build`](Self::build).
///
/// ```
/// use std::sync::OnceLock;
///
/// static GREETING: OnceLock<String> = OnceLock::new();
///
/// fn prepare(greeting: String) {
///     GREETING.set(greeting).unwrap();
/// }
///
/// fn greet(name: String) -> String {
///     format!("{} {name}", GREETING.get().unwrap())
/// }
///
/// fn main() -> Result<(), farpool::Error> {
///     farpool::init();
///     let pool = farpool::Pool::builder().processes(2).initializer(prepare, ("hello".to_owned(),)).build()?;
///     assert_eq!(pool.apply(greet, ("world".to_owned(),))?, "hello world");
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a pool is opened by build()"]
pub struct Builder {
    processes: Option<usize>,
    target: Target,
    initializer: Option<Initializer>,
    initializer_timeout: Option<Duration>,
    max_tasks_per_child: Option<u64>,
    threads: Option<usize>,
    memory_limit: Option<u64>,
    payload_limit: Option<u64>,
    name: String,
}

/// Where a pool is to run.
#[derive(Clone, Debug, Default)]
enum Target {
    /// Where the environment says.
    #[default]
    Environment,
    ThisMachine,
    Cluster(String),
}

#[derive(Clone, Debug)]
struct Initializer {
    function: bytes::Bytes,
    args: Result<Vec<u8>, CodecError>,
}

impl Builder {
    /// Workers that run at once, at least 1. Default: all slots, on one machine one for each core.
    pub fn processes(mut self, processes: usize) -> Self {
        self.processes = Some(processes);
        self
    }

    /// Runs on the cluster at this address, whatever `FARPOOL_ADDRESS` says.
    ///
    /// This version of farpool runs on one machine only: `build` will say so.
    pub fn address(mut self, url: impl Into<String>) -> Self {
        self.target = Target::Cluster(url.into());
        self
    }

    /// Runs on this machine, whatever `FARPOOL_ADDRESS` says.
    pub fn local(mut self) -> Self {
        self.target = Target::ThisMachine;
        self
    }

    /// Calls `f` with `args` once in each worker, before its first item: the place for data that every call needs.
    ///
    /// If it panics, or takes longer than [`initializer_timeout`](Self::initializer_timeout), the pool fails with
    /// [`ErrorKind::InitializerFailed`](crate::ErrorKind::InitializerFailed).
    pub fn initializer<F, A>(mut self, f: F, args: A) -> Self
    where
        F: Function<A, Output = ()>,
        A: Args,
    {
        let _only_its_type_counts = f;
        let mut encoded = Vec::new();
        let args = args.encode(&mut encoded).map(|()| encoded);
        self.initializer = Some(Initializer { function: function::describe::<F, A, ()>(), args });
        self
    }

    /// How long an initializer may run in a worker. Default: 60 seconds.
    pub fn initializer_timeout(mut self, timeout: Duration) -> Self {
        self.initializer_timeout = Some(timeout);
        self
    }

    /// Replaces a worker after so many items, at least 1. Default: never.
    pub fn max_tasks_per_child(mut self, items: u64) -> Self {
        self.max_tasks_per_child = Some(items);
        self
    }

    /// Items that one worker runs at once, each on a thread, at least 1: for functions that wait more than they compute.
    /// Default: 1. If a worker dies, every item that was running in it counts an attempt.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// The address space of a worker in bytes, at least 1: an allocation beyond it fails, and the worker dies.
    /// Default: none.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// The largest encoded item or result in bytes, from 1 to 2 GiB. Default: 1 GiB. An item beyond it fails with
    /// [`ErrorKind::PayloadTooLarge`](crate::ErrorKind::PayloadTooLarge), and no other.
    pub fn payload_limit(mut self, bytes: u64) -> Self {
        self.payload_limit = Some(bytes);
        self
    }

    /// A name that process lists show for the workers, its first 15 bytes. Default: `farpool-worker`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Opens the pool and starts its workers.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) if an option has no meaning, or if `main` did not
    /// call [`farpool::init`](crate::init) first; [`ErrorKind::Codec`](crate::ErrorKind::Codec) if the initializer's arguments
    /// cannot be encoded; [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the pool cannot be started, or if a
    /// cluster is asked for.
    pub fn build(self) -> Result<Pool, Error> {
        let settings = self.resolve()?;
        resolve::require_init(crate::worker::initialised())?;
        let payload_limit = settings.settings.payload_limit;
        Ok(Pool::over(crate::local::open(settings)?, payload_limit))
    }
}
