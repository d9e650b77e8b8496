//! The handle of a job in the background.

mod decode;
mod future;
mod outcome;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use farpool_session::fork::{self, Owned};
use farpool_session::{Call, Session};

use crate::callbacks;
use crate::error::{Error, ErrorKind};
use crate::progress::Progress;
use crate::pulling;
pub(crate) use decode::{Decode, decode_all, decode_one};
use outcome::SharedOutcome;

/// The outcome of [`apply_async`](crate::Pool::apply_async), [`map_async`](crate::Pool::map_async) or
/// [`starmap_async`](crate::Pool::starmap_async), which may still be pending.
///
/// You can block on it ([`get`](Self::get)), poll it ([`ready`](Self::ready)), register a callback
/// ([`callback`](Self::callback)), or await it: it is a [`Future`], on any executor. Dropping it leaves the job running, as in
/// Python: [`cancel`](Self::cancel) stops it.
///
/// ```
/// fn square(n: u64) -> u64 {
///     n * n
/// }
///
/// fn main() -> Result<(), farpool::Error> {
///     farpool::init();
///     let pool = farpool::Pool::new(2)?;
///     let nine = pool.apply_async(square, (3,));
///     let all = pool.map_async(square, 0..4);
///     assert_eq!(nine.get()?, 9);
///     assert_eq!(all.get()?, [0, 1, 4, 9]);
///     Ok(())
/// }
/// ```
#[must_use = "the job keeps running, but nobody will see its outcome"]
pub struct AsyncResult<T: Send + 'static> {
    /// `None` if the job could not be started.
    session: Option<Session>,
    outcome: Owned<Arc<SharedOutcome<T>>>,
    progress: Option<Progress>,
}

impl<T: Send + 'static> AsyncResult<T> {
    /// Blocks until the outcome is ready and its callbacks have run, then returns it.
    ///
    /// # Errors
    /// The error of the item, or of the failed item with the lowest index; [`ErrorKind::Cancelled`] after
    /// [`cancel`](Self::cancel) or [`Pool::terminate`](crate::Pool::terminate); [`ErrorKind::InvalidArgument`] for a
    /// deadlock: the input of this job calls this, or waits for the outcome of a job whose input calls this.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// assert_eq!(pool.apply_async(|n: u64| n + 1, (1,)).get()?, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn get(self) -> Result<T, Error> {
        self.check()?;
        if !self.ready() {
            let _waiting = pulling::wait_for(self.outcome.inbox())?;
            self.settle(None);
        }
        self.outcome.take()
    }

    /// Blocks until the outcome is ready, but no longer than `timeout`. The outcome can be taken only once.
    ///
    /// # Errors
    /// [`ErrorKind::WaitTimedOut`] if it was not ready in time: the job keeps running, and you can call this again.
    /// [`ErrorKind::InvalidArgument`] if the outcome was already taken. The error of the item, or of the failed item with the
    /// lowest index. [`ErrorKind::Cancelled`] after [`cancel`](Self::cancel) or [`Pool::terminate`](crate::Pool::terminate).
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// use std::time::Duration;
    ///
    /// let pool = farpool::Pool::new(2)?;
    /// let mut nap = pool.apply_async(|| std::thread::sleep(Duration::from_millis(200)), ());
    /// assert_eq!(nap.get_timeout(Duration::from_millis(1)).unwrap_err().kind(), farpool::ErrorKind::WaitTimedOut);
    /// nap.get_timeout(Duration::from_secs(60))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_timeout(&mut self, timeout: Duration) -> Result<T, Error> {
        self.check()?;
        pulling::refuse_own(self.outcome.inbox())?;
        if self.wait(timeout) {
            return self.outcome.take();
        }
        let waiting = self.session.as_ref().and_then(|session| session.here().ok()?.waiting());
        let why = waiting.map_or_else(String::new, |reason| format!(", because the pool is waiting: {reason}"));
        let waited = format!("the outcome was not ready after {timeout:?}{why}");
        Err(self.outcome.inbox().add_context(Error::new(ErrorKind::WaitTimedOut, waited)))
    }

    /// Blocks until the outcome is ready, but no longer than `timeout`; returns whether it is ready.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// use std::time::Duration;
    ///
    /// let pool = farpool::Pool::new(2)?;
    /// let sum = pool.apply_async(|n: u64| n + 1, (1,));
    /// assert!(sum.wait(Duration::from_secs(60)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait(&self, timeout: Duration) -> bool {
        self.settle(Instant::now().checked_add(timeout))
    }

    /// Returns whether the outcome is ready and its callbacks have run, so that [`get`](Self::get) does not block.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let nap = pool.apply_async(|| std::thread::sleep(std::time::Duration::from_secs(60)), ());
    /// assert!(!nap.ready());
    /// # Ok(())
    /// # }
    /// ```
    pub fn ready(&self) -> bool {
        if self.check().is_err() {
            return true;
        }
        let settled = self.outcome.settled();
        if !settled {
            self.outcome.inbox().knock();
        }
        settled
    }

    /// Returns whether the job succeeded.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if the outcome is not ready yet.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let sum = pool.apply_async(|n: u64| n + 1, (1,));
    /// sum.wait(std::time::Duration::from_secs(60));
    /// assert!(sum.successful()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn successful(&self) -> Result<bool, Error> {
        self.check()?;
        if self.ready() {
            return Ok(self.outcome.succeeded());
        }
        Err(self
            .outcome
            .inbox()
            .add_context(Error::invalid("the outcome is not ready yet: check ready() first, or call wait(..)")))
    }

    /// Cancels the job: running items are killed, and the outcome becomes [`ErrorKind::Cancelled`], unless it is already
    /// ready. Returns at once.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let nap = pool.apply_async(|| std::thread::sleep(std::time::Duration::from_secs(60)), ());
    /// nap.cancel();
    /// assert_eq!(nap.get().unwrap_err().kind(), farpool::ErrorKind::Cancelled);
    /// # Ok(())
    /// # }
    /// ```
    pub fn cancel(&self) {
        if let Some(session) = &self.session {
            farpool_session::cancel(session, self.outcome.inbox());
        }
    }

    /// Calls `f` with the value when the job succeeds, or at once if it already has; never if the job fails.
    ///
    /// Callbacks run one after another on a thread that farpool starts. They may use the pool. If a callback panics, stderr
    /// says so, and nothing else is affected.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let (sender, sums) = std::sync::mpsc::channel();
    /// let _sum = pool.apply_async(|n: u64| n + 1, (1,)).callback(move |sum| sender.send(*sum).unwrap());
    /// assert_eq!(sums.recv().unwrap(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn callback(self, f: impl FnOnce(&T) + Send + 'static) -> Self {
        self.call_back(move |outcome| {
            if let Ok(value) = outcome {
                f(value);
            }
        })
    }

    /// Calls `f` with the error when the job fails, or at once if it already has; never if the job succeeds.
    ///
    /// It runs on the thread of the other callbacks: see [`callback`](Self::callback).
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let (sender, kinds) = std::sync::mpsc::channel();
    /// let _check = pool
    ///     .apply_async(|n: u64| assert!(n > 1), (1,))
    ///     .error_callback(move |error| sender.send(error.kind()).unwrap());
    /// assert_eq!(kinds.recv().unwrap(), farpool::ErrorKind::Panicked);
    /// # Ok(())
    /// # }
    /// ```
    pub fn error_callback(self, f: impl FnOnce(&Error) + Send + 'static) -> Self {
        self.call_back(move |outcome| {
            if let Err(error) = outcome {
                f(error);
            }
        })
    }

    fn call_back(self, f: impl FnOnce(&Result<T, Error>) + Send + 'static) -> Self {
        if let Err(error) = self.check() {
            // In a fork this error is the outcome: no other will be delivered.
            let inbox = self.outcome.inbox();
            return Self::failed(inbox.verb(), inbox.label(), error).call_back(f);
        }
        match callbacks::start() {
            Ok(()) => self.outcome.call_back(Box::new(f)),
            Err(error) => eprintln!("farpool: a callback will not run: cannot start its thread: {error}"),
        }
        self
    }

    /// Rejects calls from a fork of the pool's process.
    fn check(&self) -> Result<(), Error> {
        fork::check_pool(self.outcome.owner()).map_err(|error| self.outcome.inbox().add_context(error))
    }

    /// Waits for the outcome until the deadline; returns whether it is ready.
    fn settle(&self, deadline: Option<Instant>) -> bool {
        if !self.outcome.owner().is_here() {
            // In a fork the outcome, an error, is ready at once.
            return true;
        }
        let inbox = self.outcome.inbox();
        if let Some(session) = &self.session {
            while !inbox.ended() {
                if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    return false;
                }
                session.wait(inbox, deadline);
            }
        }
        self.outcome.wait_for_callbacks(deadline)
    }
}

impl<T: Send + 'static> AsyncResult<T> {
    /// Creates the handle of a running job, or of one whose inbox has already ended.
    pub(crate) fn new(call: &Call, decode: Decode<T>, progress: Option<Progress>) -> Self {
        let outcome = Arc::new(SharedOutcome::new(Arc::clone(&*call.inbox), decode));
        let outcome = Owned::of(call.session.owner(), outcome);
        Self { session: Some(call.session.clone()), outcome, progress }
    }

    /// Creates the handle of a job that could not be started.
    pub(crate) fn failed(verb: &'static str, label: &str, error: Error) -> Self {
        Self { session: None, outcome: Owned::new(Arc::new(SharedOutcome::failed(verb, label, error))), progress: None }
    }
}

impl<T: Send + 'static> fmt::Debug for AsyncResult<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncResult").field("ready", &self.ready()).finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Drop for AsyncResult<T> {
    fn drop(&mut self) {
        if !self.outcome.owner().is_here() {
            return;
        }
        self.outcome.abandon();
        // The job keeps running, and its progress bar stays.
        if let Some(progress) = self.progress.take()
            && !self.outcome.inbox().ended()
        {
            progress.detach();
        }
    }
}
