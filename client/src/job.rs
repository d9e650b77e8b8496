//! A call with its options.

mod verbs;

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use farpool_session::labels;

use crate::options::Options;
use crate::pool::Pool;

/// A function with the options of its call, created by [`Pool::job`]. Set options, then call [`map`](Self::map),
/// [`apply`](Self::apply) or another method, as on a [`Pool`].
///
/// That method checks the options and fails with [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) if one is invalid.
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
    /// Only the function's type matters: it has no data.
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

    /// Sets how many consecutive items one worker gets at a time, at least 1; it runs them one after another. Default:
    /// farpool chooses, by how long items take.
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

    /// Sets how many items `imap` and `imap_unordered` may pull ahead of the outcomes taken; at least 1,
    /// and at least the chunksize. Default: 4 per slot (4 chunks if a chunksize is set), more while items are short.
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

    /// Sets how long one item may run; must be above zero. If an item runs longer, its worker is killed, and it fails with
    /// [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut). Default: no limit.
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

    /// Sets how often an item is retried if its worker dies. Default: 2. With 0 it runs at most once.
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

    /// Sets whether an item that panicked is retried too, up to [`retries`](Self::retries) times. Default: no.
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

    /// Sets whether an item that [counts as failed](crate::count_as_failed) is retried too, up to [`retries`](Self::retries)
    /// times. Default: no. The result of its last attempt is its outcome; earlier results are dropped.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// fn is_up(host: String) -> bool {
    ///     let is_up = host == "here";
    ///     if !is_up {
    ///         farpool::count_as_failed();
    ///     }
    ///     is_up
    /// }
    ///
    /// let pool = farpool::Pool::new(2)?;
    /// let mut found = pool.job(is_up).retries(4).retry_failed(true).imap(["here", "gone"].map(String::from));
    /// assert_eq!((found.next().unwrap()?, found.attempts()), (true, 1));
    /// assert_eq!((found.next().unwrap()?, found.attempts()), (false, 5));
    /// # Ok(())
    /// # }
    /// ```
    pub fn retry_failed(mut self, retry: bool) -> Self {
        self.options.retry_failed = retry;
        self
    }

    /// Sets whether stragglers, items that take far longer than the job's others, may run a second time elsewhere while slots
    /// are idle: the first outcome counts, and the other run is killed. Use it for functions that may safely run twice, where a
    /// host may be slow. Default: no. Cannot be combined with [`retries(0)`](Self::retries).
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

    /// Sets a name for the job, shown in its errors and its progress bar. Default: none.
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

    /// Sets the job's priority: among the pool's jobs with items to run, those with the highest priority go first. Default: 0;
    /// it may be negative. Running items are not interrupted.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(1)?;
    /// let background = pool.job(|n: u64| n + 1).priority(-1).map_async(0..1000);
    /// // Does not wait for the job in the background.
    /// assert_eq!(pool.apply(|n: u64| n * n, (3,))?, 9);
    /// assert_eq!(background.get()?.len(), 1000);
    /// # Ok(())
    /// # }
    /// ```
    pub fn priority(mut self, priority: i32) -> Self {
        self.options.priority = priority;
        self
    }

    /// Runs the job only on hosts with this label, in addition to those that the pool requires; call it again for more
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

    /// Sets whether to show a progress bar on stderr, if that is a terminal, with the number of items done, their rate and the
    /// time left. Default: no.
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
}

impl<F> fmt::Debug for Job<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let function = std::any::type_name::<F>();
        f.debug_struct("Job").field("function", &function).field("options", &self.options).finish_non_exhaustive()
    }
}
