//! The methods of a job that call its function.

use bytes::Bytes;
use farpool_session::{Call, Interest};

use super::Job;
use crate::args::{Args, Data};
use crate::async_result::{AsyncResult, Decode, decode_all, decode_one};
use crate::background;
use crate::error::Error;
use crate::feeder::{self, Feeder};
use crate::function::{self, Captureless, Function};
use crate::imap::{Consumer, Imap, LazyInput, LazyJob, Order, Window};
use crate::map;
use crate::progress::Progress;
use crate::singles::Singles;

/// The same calls as those of [`Pool`](crate::Pool), with this job's options.
impl<F: Captureless> Job<'_, F> {
    /// Calls the function with `args` in a worker and returns its result.
    ///
    /// # Errors
    /// The item's error, as [`ErrorKind`](crate::ErrorKind) lists them;
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) if an option is invalid;
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) after [`Pool::close`](crate::Pool::close) or
    /// [`Pool::terminate`](crate::Pool::terminate).
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// assert_eq!(pool.job(|n: u64| n + 1).retries(0).apply((1,))?, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn apply<A, R>(&self, args: A) -> Result<R, Error>
    where
        F: Function<A, Output = R>,
        A: Args,
        R: Data,
    {
        let call = self.call("apply", self.describe::<A, R>(), Interest::Outcomes)?;
        map::run_one(call, &args, self.pool.item_limit())
    }

    /// Calls the function with `args` in a worker, without waiting for the result. If an option is invalid, that error is
    /// the outcome.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// assert_eq!(pool.job(|n: u64| n + 1).retries(0).apply_async((1,)).get()?, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn apply_async<A, R>(&self, args: A) -> AsyncResult<R>
    where
        F: Function<A, Output = R>,
        A: Args,
        R: Data,
    {
        const VERB: &str = "apply_async";
        let started = self.call(VERB, self.describe::<A, R>(), Interest::End).and_then(|mut call| {
            feeder::feed_one(&args, call.inbox.job(), self.pool.item_limit(), &mut call.messages)?;
            call.inbox.set_pulled(1);
            call.flush_soon()?;
            call.settle();
            Ok(call)
        });
        match started {
            Ok(call) => AsyncResult::new(&call, decode_one, self.show_progress(&call, Some(1))),
            Err(error) => AsyncResult::failed(VERB, self.options.label(), error),
        }
    }

    /// Calls the function with each item and returns the results in the order of the items.
    ///
    /// Every item runs, even if others fail.
    ///
    /// # Errors
    /// If items failed, the error of the one with the lowest index, after all have finished;
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) if an option is invalid;
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) after [`Pool::close`](crate::Pool::close) or
    /// [`Pool::terminate`](crate::Pool::terminate).
    ///
    /// # Panics
    /// If the iterator panics; the job is then cancelled, and the pool stays usable.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// assert_eq!(pool.job(|n: u64| n + 1).chunksize(2).map(0..3)?, [1, 2, 3]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn map<T, R, I>(&self, items: I) -> Result<Vec<R>, Error>
    where
        F: Fn(T) -> R,
        I: IntoIterator<Item = T>,
        T: Data,
        R: Data,
    {
        self.run_all("map", self.describe::<(T,), R>(), Singles(items.into_iter()))
    }

    /// Calls the function with each item, without waiting for the results. The iterator may be pulled on another thread. If
    /// an option is invalid, that error is the outcome.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// assert_eq!(pool.job(|n: u64| n + 1).chunksize(2).map_async(0..3).get()?, [1, 2, 3]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn map_async<T, R, I>(&self, items: I) -> AsyncResult<Vec<R>>
    where
        F: Fn(T) -> R,
        I: IntoIterator<Item = T>,
        I::IntoIter: Send + 'static,
        T: Data,
        R: Data,
    {
        self.start_all("map_async", self.describe::<(T,), R>(), Singles(items.into_iter()))
    }

    /// Calls the function with each item, a tuple of its arguments, and returns the results in the order of the items.
    ///
    /// Every item runs, even if others fail.
    ///
    /// # Errors
    /// If items failed, the error of the one with the lowest index, after all have finished;
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) if an option is invalid;
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) after [`Pool::close`](crate::Pool::close) or
    /// [`Pool::terminate`](crate::Pool::terminate).
    ///
    /// # Panics
    /// If the iterator panics; the job is then cancelled, and the pool stays usable.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// assert_eq!(pool.job(u64::pow).chunksize(2).starmap([(2, 10), (3, 4)])?, [1024, 81]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn starmap<A, R, I>(&self, items: I) -> Result<Vec<R>, Error>
    where
        F: Function<A, Output = R>,
        I: IntoIterator<Item = A>,
        A: Args,
        R: Data,
    {
        self.run_all("starmap", self.describe::<A, R>(), items.into_iter())
    }

    /// Calls the function with each item, a tuple of its arguments, without waiting for the results. The iterator may be
    /// pulled on another thread. If an option is invalid, that error is the outcome.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// assert_eq!(pool.job(u64::pow).chunksize(2).starmap_async([(2, 10)]).get()?, [1024]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn starmap_async<A, R, I>(&self, items: I) -> AsyncResult<Vec<R>>
    where
        F: Function<A, Output = R>,
        I: IntoIterator<Item = A>,
        I::IntoIter: Send + 'static,
        A: Args,
        R: Data,
    {
        self.start_all("starmap_async", self.describe::<A, R>(), items.into_iter())
    }

    /// Calls the function with each item, lazily: the outcomes come in the order of the items, and the iterator is pulled at
    /// most [`buffersize`](Self::buffersize) items ahead of them. If an option is invalid, that error is the only outcome.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let results = pool.job(|n: u64| n + 1).buffersize(4).imap(0..3);
    /// assert_eq!(results.collect::<Result<Vec<_>, _>>()?, [1, 2, 3]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn imap<T, R, I>(&self, items: I) -> Imap<I::IntoIter, R>
    where
        F: Fn(T) -> R,
        I: IntoIterator<Item = T>,
        T: Data,
        R: Data,
    {
        self.run_imap("imap", self.describe::<(T,), R>(), items.into_iter(), Order::Input, LazyInput::caller)
    }

    /// Calls the function with each item, lazily: the outcomes come in the order of completion, and the iterator is pulled at
    /// most [`buffersize`](Self::buffersize) items ahead of them. If an option is invalid, that error is the only outcome.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let results = pool.job(|n: u64| n + 1).buffersize(4).imap_unordered(0..3);
    /// assert_eq!(results.map(Result::unwrap).sum::<u64>(), 6);
    /// # Ok(())
    /// # }
    /// ```
    pub fn imap_unordered<T, R, I>(&self, items: I) -> Imap<I::IntoIter, R>
    where
        F: Fn(T) -> R,
        I: IntoIterator<Item = T>,
        T: Data,
        R: Data,
    {
        self.run_imap(
            "imap_unordered",
            self.describe::<(T,), R>(),
            items.into_iter(),
            Order::Completion,
            LazyInput::caller,
        )
    }

    /// Calls the function with each item, lazily; the outcomes come in the order of the items. A separate thread pulls the
    /// input, which may therefore block, even on outcomes of this job.
    ///
    /// The thread pulls at most [`buffersize`](Self::buffersize) items ahead of the outcomes taken, and sends each at once: for
    /// inputs that never block, [`imap`](Self::imap) is faster. If the input panics, the iteration ends with
    /// [`ErrorKind::Panicked`](crate::ErrorKind::Panicked). If the result is dropped while the input blocks, the thread ends
    /// when the input returns.
    ///
    /// With an explicit [`chunksize`](Self::chunksize), no item runs before its whole chunk was pulled: do not set one for an
    /// input that waits for outcomes.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// // Halves a number until it is 1: each result is the next input.
    /// let (input, items) = std::sync::mpsc::channel();
    /// input.send(20u64).unwrap();
    /// let mut steps = 0;
    /// for half in pool.job(|n: u64| n / 2).imap_from_thread(items) {
    ///     steps += 1;
    ///     match half? {
    ///         1 => break,
    ///         more => input.send(more).unwrap(),
    ///     }
    /// }
    /// assert_eq!(steps, 4);
    /// # Ok(())
    /// # }
    /// ```
    pub fn imap_from_thread<T, R, I>(&self, items: I) -> Imap<I::IntoIter, R>
    where
        F: Fn(T) -> R,
        I: IntoIterator<Item = T>,
        I::IntoIter: Send + 'static,
        T: Data,
        R: Data,
    {
        self.run_imap(
            "imap_from_thread",
            self.describe::<(T,), R>(),
            items.into_iter(),
            Order::Input,
            LazyInput::thread,
        )
    }

    /// Calls the function with each item, lazily; the outcomes come in the order of completion. A separate thread pulls the
    /// input, which may therefore block: see [`imap_from_thread`](Self::imap_from_thread).
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let results = pool.job(|n: u64| n + 1).imap_unordered_from_thread(0..3);
    /// assert_eq!(results.map(Result::unwrap).sum::<u64>(), 6);
    /// # Ok(())
    /// # }
    /// ```
    pub fn imap_unordered_from_thread<T, R, I>(&self, items: I) -> Imap<I::IntoIter, R>
    where
        F: Fn(T) -> R,
        I: IntoIterator<Item = T>,
        I::IntoIter: Send + 'static,
        T: Data,
        R: Data,
    {
        self.run_imap(
            "imap_unordered_from_thread",
            self.describe::<(T,), R>(),
            items.into_iter(),
            Order::Completion,
            LazyInput::thread,
        )
    }
}

impl<F> Job<'_, F> {
    fn describe<A: Args, R: Data>(&self) -> Bytes
    where
        F: Function<A, Output = R>,
    {
        function::describe::<F, A, R>()
    }

    fn call(&self, verb: &'static str, function: Bytes, interest: Interest) -> Result<Call, Error> {
        self.pool.call(verb, &self.options, function, interest)
    }

    fn feeder<I>(&self, call: &Call, input: I) -> Feeder<I> {
        Feeder::new(input, call.inbox.job(), self.options.chunksize(), self.pool.item_limit())
    }

    fn show_progress(&self, call: &Call, total: Option<u64>) -> Option<Progress> {
        if !self.options.progress {
            return None;
        }
        Progress::show(&call.inbox, self.options.label(), total)
    }

    fn run_all<A: Args, R: Data>(
        &self,
        verb: &'static str,
        function: Bytes,
        input: impl Iterator<Item = A>,
    ) -> Result<Vec<R>, Error> {
        let call = self.call(verb, function, Interest::Outcomes)?;
        let feeder = self.feeder(&call, input);
        let _progress = self.show_progress(&call, feeder.size().1);
        map::run_all(call, feeder)
    }

    fn start_all<A: Args, R: Data>(
        &self,
        verb: &'static str,
        function: Bytes,
        input: impl Iterator<Item = A> + Send + 'static,
    ) -> AsyncResult<Vec<R>> {
        let call = match self.call(verb, function, Interest::End) {
            Ok(call) => call,
            Err(error) => return AsyncResult::failed(verb, self.options.label(), error),
        };
        let feeder = self.feeder(&call, input);
        let decode: Decode<Vec<R>> = decode_all;
        let result = AsyncResult::new(&call, decode, self.show_progress(&call, feeder.size().1));
        background::feed(call, feeder);
        result
    }

    fn run_imap<T: Data, R: Data, I: Iterator<Item = T>>(
        &self,
        verb: &'static str,
        function: Bytes,
        items: I,
        order: Order,
        input: fn(Feeder<Singles<I>>, Window) -> LazyInput<I>,
    ) -> Imap<I, R> {
        Imap::new(self.call(verb, function, Interest::Outcomes).map(|call| {
            let feeder = self.feeder(&call, Singles(items));
            let progress = self.show_progress(&call, feeder.size().1);
            let window = Window::new(self.options.buffersize, self.options.chunksize(), call.session.slots());
            LazyJob::new(Consumer::new(call, order, progress), input(feeder, window))
        }))
    }
}
