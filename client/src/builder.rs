//! The options of a pool.

mod placement;
mod resolve;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use farpool_proto::v1::Label;
use farpool_session::Session;

use crate::args::Args;
use crate::codec::CodecError;
use crate::error::Error;
use crate::function::{self, Function};
use crate::output::Terminal;
use crate::pool::Pool;

/// The options of a [`Pool`]; created by [`Pool::builder`].
///
/// [`build`](Self::build) checks the options.
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
    placement: Placement,
    initializer: Option<Initializer>,
    initializer_timeout: Option<Duration>,
    max_tasks_per_child: Option<u64>,
    threads: Option<usize>,
    memory_limit: Option<u64>,
    payload_limit: Option<u64>,
    name: String,
    require: Vec<Label>,
    weight: Option<u32>,
    environment: Vec<(OsString, OsString)>,
    reconnect_timeout: Option<Duration>,
}

/// Where a pool runs.
#[derive(Clone, Debug, Default)]
enum Placement {
    /// Where `FARPOOL_ADDRESS` says.
    #[default]
    Environment,
    ThisMachine,
    #[cfg(feature = "cluster")]
    Cluster(String),
}

#[derive(Clone, Debug)]
struct Initializer {
    function: bytes::Bytes,
    args: Result<Vec<u8>, CodecError>,
}

impl Pool {
    /// Opens a pool of `processes` workers: on the cluster that the environment variable `FARPOOL_ADDRESS` names, or
    /// on this machine if it is not set.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) if `processes` is 0, if `FARPOOL_ADDRESS` is not a
    /// valid address, or if `main` did not call [`farpool::init`](crate::init) first;
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the pool cannot be started, or if there is no coordinator
    /// of the same version at the address.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// assert_eq!(pool.processes(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(processes: usize) -> Result<Self, Error> {
        Self::builder().processes(processes).build()
    }

    /// Returns a builder for a pool with options; [`Builder::build`] opens it.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::builder().processes(2).max_tasks_per_child(1000).build()?;
    /// assert_eq!(pool.apply(|n: u64| n + 1, (1,))?, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Builder {
    /// Sets how many workers run at once, at least 1. Default: all slots; on one machine, one per core.
    ///
    /// On a cluster they are spread over the hosts.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::builder().processes(3).build()?;
    /// assert_eq!(pool.processes(), 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn processes(mut self, processes: usize) -> Self {
        self.processes = Some(processes);
        self
    }

    /// Calls `f` with `args` once in each worker, before its first item: use it to set up data that every call needs.
    ///
    /// If it panics, or takes longer than [`initializer_timeout`](Self::initializer_timeout), the pool fails with
    /// [`ErrorKind::InitializerFailed`](crate::ErrorKind::InitializerFailed).
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// use std::sync::OnceLock;
    ///
    /// static FACTOR: OnceLock<u64> = OnceLock::new();
    ///
    /// let prepare = |factor: u64| FACTOR.set(factor).unwrap();
    /// let pool = farpool::Pool::builder().processes(2).initializer(prepare, (3,)).build()?;
    /// assert_eq!(pool.map(|n: u64| n * FACTOR.get().unwrap(), 0..3)?, [0, 3, 6]);
    /// # Ok(())
    /// # }
    /// ```
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

    /// Sets how long the initializer may run in a worker. Default: 60 seconds.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// use std::time::Duration;
    ///
    /// let pool = farpool::Pool::builder()
    ///     .processes(1)
    ///     .initializer(|| std::thread::sleep(Duration::from_secs(60)), ())
    ///     .initializer_timeout(Duration::from_millis(50))
    ///     .build()?;
    /// assert_eq!(pool.apply(|| 1, ()).unwrap_err().kind(), farpool::ErrorKind::InitializerFailed);
    /// # Ok(())
    /// # }
    /// ```
    pub fn initializer_timeout(mut self, timeout: Duration) -> Self {
        self.initializer_timeout = Some(timeout);
        self
    }

    /// Replaces each worker after this many items, at least 1. Default: never.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::builder().processes(1).max_tasks_per_child(1).build()?;
    /// let pids = pool.map(|_: u64| std::process::id(), 0..2)?;
    /// assert_ne!(pids[0], pids[1]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_tasks_per_child(mut self, items: u64) -> Self {
        self.max_tasks_per_child = Some(items);
        self
    }

    /// Sets how many items one worker runs at once, each on its own thread, at least 1. Use it for functions that wait more than
    /// they compute. Default: 1. If a worker dies, each item running in it uses up an attempt.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// use std::time::{Duration, Instant};
    ///
    /// let pool = farpool::Pool::builder().processes(1).threads(20).build()?;
    /// let start = Instant::now();
    /// pool.map(|ms: u64| std::thread::sleep(Duration::from_millis(ms)), [100; 20])?;
    /// assert!(start.elapsed() < Duration::from_millis(1500));
    /// # Ok(())
    /// # }
    /// ```
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Limits each worker's address space to this many bytes, at least 1. An allocation beyond it fails, and the worker dies.
    /// Default: no limit.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::builder().processes(1).memory_limit(512 << 20).build()?;
    /// let error = pool.job(|| vec![1_u8; 1 << 30].len()).retries(0).apply(()).unwrap_err();
    /// assert_eq!(error.kind(), farpool::ErrorKind::WorkerDied);
    /// # Ok(())
    /// # }
    /// ```
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// Sets the maximum size of an encoded item or result in bytes, from 1 to 2 GiB. Default: 1 GiB. Only the item that exceeds
    /// it fails, with [`ErrorKind::PayloadTooLarge`](crate::ErrorKind::PayloadTooLarge).
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::builder().processes(1).payload_limit(1000).build()?;
    /// let error = pool.map(|text: String| text.len(), ["a".repeat(2000)]).unwrap_err();
    /// assert_eq!(error.kind(), farpool::ErrorKind::PayloadTooLarge);
    /// # Ok(())
    /// # }
    /// ```
    pub fn payload_limit(mut self, bytes: u64) -> Self {
        self.payload_limit = Some(bytes);
        self
    }

    /// Sets the name of the workers in process lists, which show its first 15 bytes. Default: `farpool-worker`.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::builder().processes(1).name("thumbnails").build()?;
    /// let shown = pool.apply(|| std::fs::read_to_string("/proc/self/comm").unwrap(), ())?;
    /// assert_eq!(shown.trim(), "thumbnails");
    /// # Ok(())
    /// # }
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Opens the pool. On one machine this starts its workers. On a cluster it does not wait for them: while no host
    /// can run the pool, its jobs wait for one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) if an option is invalid, or if `main` did not
    /// call [`farpool::init`](crate::init) first; [`ErrorKind::Codec`](crate::ErrorKind::Codec) if the initializer's arguments
    /// cannot be encoded; [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the pool cannot be started, or if there
    /// is no coordinator of the same version at the address.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let error = farpool::Pool::builder().processes(0).build().unwrap_err();
    /// assert_eq!(error.kind(), farpool::ErrorKind::InvalidArgument);
    /// # Ok(())
    /// # }
    /// ```
    pub fn build(self) -> Result<Pool, Error> {
        let (target, settings) = self.resolve()?;
        resolve::require_init(farpool_worker::initialised())?;
        resolve::require_own_executable(function::was_started_by_loader())?;
        let payload_limit = settings.settings.payload_limit;
        Ok(Pool::with_session(Session::open(target, settings, Arc::new(Terminal))?, payload_limit))
    }
}
