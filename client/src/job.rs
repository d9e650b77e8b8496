//! One call with its options.

mod options;
mod start;
mod verbs;

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use crate::detached::Detach;
use crate::labels;
use crate::pool::Pool;
pub(crate) use options::Options;

/// A call of a function whose options and verb are still to come; made by [`Pool::job`].
///
/// Options are checked by the verb, which ends in [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) if one has no meaning.
///
/// ```
/// use std::time::Duration;
///
/// fn main() -> Result<(), farpool::Error> {
///     farpool::init();
///     let pool = farpool::Pool::new(2)?;
///     let job = pool.job(|n: u64| n * n).timeout(Duration::from_secs(10)).retries(0).label("squares");
///     assert_eq!(job.map(0..3)?, [0, 1, 4]);
///     Ok(())
/// }
/// ```
#[derive(Clone)]
#[must_use = "nothing is called before a verb such as map(items)"]
pub struct Job<'p, F> {
    pool: &'p Pool,
    /// Of the function only its type counts: it has no data.
    function: PhantomData<F>,
    options: Options,
}

impl<'p, F> Job<'p, F> {
    pub(crate) fn new(pool: &'p Pool, _: F) -> Self {
        Self { pool, function: PhantomData, options: Options::default() }
    }

    pub(crate) fn pool(&self) -> &'p Pool {
        self.pool
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// Consecutive items that run on one worker, one after another, as one unit; at least 1. Default: chosen by how long
    /// items take.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// // Each worker gets eight items at a time.
    /// assert_eq!(pool.job(|n: u64| n + 1).chunksize(8).map(0..100)?.len(), 100);
    /// # Ok(())
    /// # }
    /// ```
    pub fn chunksize(mut self, items: u64) -> Self {
        self.options.chunksize = Some(items);
        self
    }

    /// For `imap` and `imap_unordered`: how many items may be pulled ahead of the outcomes that were taken; at least 1,
    /// and at least the chunksize. Default: twice what the slots can hold, and more while items prove quick.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let mut lines = pool.job(|n: u64| n.to_string()).buffersize(4).imap(0..);
    /// assert_eq!(lines.next().unwrap()?, "0");
    /// # Ok(())
    /// # }
    /// ```
    pub fn buffersize(mut self, items: u64) -> Self {
        self.options.buffersize = Some(items);
        self
    }

    /// How long one item may run, longer than nothing. An item that runs longer is killed and fails with
    /// [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut). Default: for ever.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// use std::time::Duration;
    ///
    /// let pool = farpool::Pool::new(2)?;
    /// let nap = |ms: u64| std::thread::sleep(Duration::from_millis(ms));
    /// let error = pool.job(nap).timeout(Duration::from_millis(50)).map([1, 60_000]).unwrap_err();
    /// assert_eq!((error.kind(), error.item()), (farpool::ErrorKind::TimedOut, Some(1)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// How often an item is run again whose worker died. Default: 2. With 0 it runs at most once.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// // At most once.
    /// let abort = |n: u64| if n == 7 { std::process::abort() };
    /// let error = pool.job(abort).retries(0).map([7]).unwrap_err();
    /// assert_eq!((error.kind(), error.attempts()), (farpool::ErrorKind::WorkerDied, 1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = retries;
        self
    }

    /// Whether an item that panicked is run again too, as often as [`retries`](Self::retries) says. Default: no.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let error = pool.job(|n: u64| if n == 0 { panic!("no") }).retry_panics(true).map([0]).unwrap_err();
    /// assert_eq!((error.kind(), error.attempts()), (farpool::ErrorKind::Panicked, 3));
    /// # Ok(())
    /// # }
    /// ```
    pub fn retry_panics(mut self, retry: bool) -> Self {
        self.options.retry_panics = retry;
        self
    }

    /// Whether items that take far longer than the job's others may be run a second time elsewhere while slots idle: the
    /// first outcome counts, and the other run is killed. For functions that do no harm when they run twice, on hosts of which one may
    /// be slow. Default: no. It has no meaning with [`retries(0)`](Self::retries).
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// assert_eq!(pool.job(|n: u64| n * n).speculate(true).map(0..4)?, [0, 1, 4, 9]);
    /// let error = pool.job(|n: u64| n * n).speculate(true).retries(0).map(0..4).unwrap_err();
    /// assert_eq!(error.kind(), farpool::ErrorKind::InvalidArgument);
    /// # Ok(())
    /// # }
    /// ```
    pub fn speculate(mut self, speculate: bool) -> Self {
        self.options.speculate = speculate;
        self
    }

    /// A name for the job, which its errors and its progress bar show. Default: none.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let error = pool.job(|n: u64| assert!(n > 0)).label("checks").map([0]).unwrap_err();
    /// assert_eq!(error.label(), Some("checks"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.options.label = label.into();
        self
    }

    /// Of the pool's jobs that have something to run, those with the highest priority go first. Default: 0; it may be
    /// negative. What runs already is not interrupted.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(1)?;
    /// let background = pool.job(|n: u64| n + 1).priority(-1).map_async(0..1000);
    /// // Is not held up by it.
    /// assert_eq!(pool.apply(|n: u64| n * n, (3,))?, 9);
    /// assert_eq!(background.get()?.len(), 1000);
    /// # Ok(())
    /// # }
    /// ```
    pub fn priority(mut self, priority: i32) -> Self {
        self.options.priority = priority;
        self
    }

    /// Only hosts with this label run the job, beside those that the pool requires; may be called again for further
    /// labels. See [`Builder::require`](crate::Builder::require).
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::builder().local().processes(1).build()?;
    /// let job = pool.job(|n: u64| n + 1);
    /// assert_eq!(job.clone().require("arch", std::env::consts::ARCH).apply((1,))?, 2);
    /// let error = job.require("gpu", "a100").apply((1,)).unwrap_err();
    /// assert_eq!(error.kind(), farpool::ErrorKind::InvalidArgument);
    /// # Ok(())
    /// # }
    /// ```
    pub fn require(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.require.push(labels::required(key, value));
        self
    }

    /// Whether to show a bar on stderr, if that is a terminal, with how many items are done, their rate and the time
    /// left. Default: no.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// assert_eq!(pool.job(|n: u64| n + 1).progress(true).map(0..3)?, [1, 2, 3]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn progress(mut self, show: bool) -> Self {
        self.options.progress = show;
        self
    }

    /// Gives the whole job to the cluster, which keeps its items and outcomes under this name: it goes on whatever becomes of
    /// this process, or of the coordinator's, and any process picks it up with [`attach`](crate::attach). The verb comes next.
    ///
    /// It runs in a pool of its own, with this pool's options and this job's. What its workers print goes nowhere. The pool must be
    /// on a cluster whose coordinator was started with `--journal DIR`.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// // FARPOOL_ADDRESS names the cluster.
    /// let pool = farpool::Pool::new(64)?;
    /// let job = pool.job(|n: u64| n * n).detach("squares").map(0..1_000_000)?;
    /// // In another process, some day:
    /// let squares = farpool::attach::<u64>("squares")?.get()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn detach(self, name: impl Into<String>) -> Detach<'p, F> {
        Detach::new(self, name.into())
    }
}

impl<F> fmt::Debug for Job<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let function = std::any::type_name::<F>();
        f.debug_struct("Job").field("function", &function).field("options", &self.options).finish_non_exhaustive()
    }
}
