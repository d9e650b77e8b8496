//! The calls of a pool: each is one of a [`Job`] with its default options.

use crate::args::{Args, Data};
use crate::async_result::AsyncResult;
use crate::error::Error;
use crate::function::{Captureless, Function};
use crate::imap::Imap;
use crate::job::Job;
use crate::pool::Pool;

impl Pool {
    /// Returns a job that calls this function: set options, then call [`Job::map`], [`Job::apply`] or another method.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// # let pool = farpool::Pool::new(1)?;
    /// let lengths = pool.job(|text: String| text.len()).chunksize(8).retries(0).map(["a".to_owned()])?;
    /// assert_eq!(lengths, [1]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn job<F>(&self, f: F) -> Job<'_, F> {
        Job::new(self, f)
    }
}

/// Calls with the default options of a [`Job`].
///
/// A function is any plain function or any closure that captures nothing, and its arguments and results are
/// [`Data`].
impl Pool {
    /// Calls `f` with `args` in a worker and returns its result.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// # let pool = farpool::Pool::new(1)?;
    /// assert_eq!(pool.apply(u64::pow, (2, 10))?, 1024);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The item's error, as [`ErrorKind`](crate::ErrorKind) lists them; [`ErrorKind::Closed`](crate::ErrorKind::Closed)
    /// after [`close`](Self::close) or [`terminate`](Self::terminate).
    pub fn apply<F, A, R>(&self, f: F, args: A) -> Result<R, Error>
    where
        F: Function<A, Output = R>,
        A: Args,
        R: Data,
    {
        self.job(f).apply(args)
    }

    /// Calls `f` with `args` in a worker, without waiting for the result.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let sum = pool.apply_async(|a: u32, b: u32| a + b, (1, 2));
    /// assert_eq!(sum.get()?, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn apply_async<F, A, R>(&self, f: F, args: A) -> AsyncResult<R>
    where
        F: Function<A, Output = R>,
        A: Args,
        R: Data,
    {
        self.job(f).apply_async(args)
    }

    /// Calls `f` with each item and returns the results in the order of the items.
    ///
    /// Every item runs, even if others fail.
    ///
    /// # Errors
    /// If items failed, the error of the one with the lowest index, after all have finished.
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) after [`close`](Self::close) or [`terminate`](Self::terminate).
    ///
    /// # Panics
    /// If the iterator panics; the job is then cancelled, and the pool stays usable.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// assert_eq!(pool.map(|n: u64| n * n, 0..4)?, [0, 1, 4, 9]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn map<F, T, R, I>(&self, f: F, items: I) -> Result<Vec<R>, Error>
    where
        F: Fn(T) -> R + Captureless,
        I: IntoIterator<Item = T>,
        T: Data,
        R: Data,
    {
        self.job(f).map(items)
    }

    /// Calls `f` with each item, without waiting for the results. The iterator may be pulled on another thread.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let squares = pool.map_async(|n: u64| n * n, 0..4);
    /// assert_eq!(squares.get()?, [0, 1, 4, 9]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn map_async<F, T, R, I>(&self, f: F, items: I) -> AsyncResult<Vec<R>>
    where
        F: Fn(T) -> R + Captureless,
        I: IntoIterator<Item = T>,
        I::IntoIter: Send + 'static,
        T: Data,
        R: Data,
    {
        self.job(f).map_async(items)
    }

    /// Calls `f` with each item, a tuple of its arguments, and returns the results in the order of the items.
    ///
    /// Every item runs, even if others fail.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// # let pool = farpool::Pool::new(1)?;
    /// assert_eq!(pool.starmap(u64::pow, [(2, 10), (3, 4)])?, [1024, 81]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If items failed, the error of the one with the lowest index, after all have finished.
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) after [`close`](Self::close) or [`terminate`](Self::terminate).
    ///
    /// # Panics
    /// If the iterator panics; the job is then cancelled, and the pool stays usable.
    pub fn starmap<F, A, R, I>(&self, f: F, items: I) -> Result<Vec<R>, Error>
    where
        F: Function<A, Output = R>,
        I: IntoIterator<Item = A>,
        A: Args,
        R: Data,
    {
        self.job(f).starmap(items)
    }

    /// Calls `f` with each item, a tuple of its arguments, without waiting for the results. The iterator may be pulled on
    /// another thread.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let powers = pool.starmap_async(u64::pow, [(2, 10), (3, 4)]);
    /// assert_eq!(powers.get()?, [1024, 81]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn starmap_async<F, A, R, I>(&self, f: F, items: I) -> AsyncResult<Vec<R>>
    where
        F: Function<A, Output = R>,
        I: IntoIterator<Item = A>,
        I::IntoIter: Send + 'static,
        A: Args,
        R: Data,
    {
        self.job(f).starmap_async(items)
    }

    /// Calls `f` with each item, lazily: the outcomes come in the order of the items, and the iterator is pulled only
    /// a bounded number of items ahead of them.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let mut squares = pool.imap(|n: u64| n * n, 2..);
    /// assert_eq!(squares.next().unwrap()?, 4);
    /// assert_eq!(squares.next().unwrap()?, 9);
    /// # Ok(())
    /// # }
    /// ```
    pub fn imap<F, T, R, I>(&self, f: F, items: I) -> Imap<I::IntoIter, R>
    where
        F: Fn(T) -> R + Captureless,
        I: IntoIterator<Item = T>,
        T: Data,
        R: Data,
    {
        self.job(f).imap(items)
    }

    /// Calls `f` with each item, lazily: the outcomes come in the order of completion, and the iterator is pulled only a
    /// bounded number of items ahead of them.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let mut squares = pool.imap_unordered(|n: u64| n * n, 0..4).collect::<Result<Vec<_>, _>>()?;
    /// squares.sort();
    /// assert_eq!(squares, [0, 1, 4, 9]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn imap_unordered<F, T, R, I>(&self, f: F, items: I) -> Imap<I::IntoIter, R>
    where
        F: Fn(T) -> R + Captureless,
        I: IntoIterator<Item = T>,
        T: Data,
        R: Data,
    {
        self.job(f).imap_unordered(items)
    }
}
