//! The pool: what a client opens, calls and closes.

mod stage;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
#[cfg(feature = "cluster")]
use farpool_session::detached::DetachSettings;
use farpool_session::{Call, Interest, ItemLimit, Session, fork};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind};
use crate::options::Options;
use crate::shared::Shared;
use stage::{Stage, StageCell};

/// A pool of worker processes.
///
/// Every method takes `&self`: threads and tasks can share one pool and call it at the same time. Dropping the pool
/// [terminates](Self::terminate) it, like leaving Python's `with`; [`close`](Self::close) and [`join`](Self::join) let it finish.
///
/// ```
/// fn cube(n: u64) -> u64 {
///     n * n * n
/// }
///
/// fn main() -> Result<(), farpool::Error> {
///     farpool::init();
///     let pool = farpool::Pool::new(2)?;
///     assert_eq!(pool.map(cube, 1..=4)?, [1, 8, 27, 64]);
///     assert_eq!(pool.map(|n: u64| n + 1, [1, 2])?, [2, 3]);
///     pool.close();
///     pool.join()
/// }
/// ```
pub struct Pool {
    session: Session,
    stage: StageCell,
    payload_limit: u64,
}

impl Pool {
    /// How long a dropped pool waits for its workers to exit.
    const DROP_PATIENCE: Duration = Duration::from_secs(2);

    /// Returns how many workers run at once.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// assert_eq!(farpool::Pool::new(3)?.processes(), 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn processes(&self) -> usize {
        self.session.processes() as usize
    }

    /// Shares a value with all tasks of the pool. Each host gets it once, and all its workers map the same memory; each
    /// worker decodes it when it first needs it.
    ///
    /// The coordinator counts it in its `--memory`. After a restart, it gets the value again. Without a cluster, each value takes a
    /// file descriptor of this process.
    ///
    /// # Errors
    /// [`Codec`](crate::ErrorKind::Codec) if it cannot be encoded; [`PayloadTooLarge`](crate::ErrorKind::PayloadTooLarge) beyond 2
    /// GiB, or half of the coordinator's memory; and if the pool was closed or has failed.
    ///
    /// ```
    /// use farpool::Shared;
    ///
    /// fn count((text, word): (Shared<String>, String)) -> usize {
    ///     text.matches(&word).count()
    /// }
    ///
    /// fn main() -> Result<(), farpool::Error> {
    ///     farpool::init();
    ///     let pool = farpool::Pool::new(2)?;
    ///     let text = pool.share("the cat, the dog".to_owned())?;
    ///     let words = ["the", "cat"].map(|word| (text.clone(), word.to_owned()));
    ///     assert_eq!(pool.map(count, words)?, [2, 1]);
    ///     Ok(())
    /// }
    /// ```
    pub fn share<T>(&self, value: T) -> Result<Shared<T>, Error>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let open = self.check(&Options::default());
        open.and_then(|()| Shared::new(&self.session, value)).map_err(|error| error.of_job("share", ""))
    }

    /// Refuses new calls; jobs that were already started finish. Returns at once.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let squares = pool.map_async(|n: u64| n * n, 0..3);
    /// pool.close();
    /// assert_eq!(squares.get()?, [0, 1, 4]);
    /// assert_eq!(pool.apply(|| 1, ()).unwrap_err().kind(), farpool::ErrorKind::Closed);
    /// # Ok(())
    /// # }
    /// ```
    pub fn close(&self) {
        if self.stage.advance(Stage::Closed) == Stage::Open {
            self.session.close(false);
        }
    }

    /// Stops everything: running items are killed, jobs end with [`ErrorKind::Cancelled`], and all processes are gone
    /// within a second. Returns at once; [`join`](Self::join) waits until they are gone.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let naps = pool.map_async(|s: u64| std::thread::sleep(std::time::Duration::from_secs(s)), [60, 60]);
    /// pool.terminate();
    /// assert_eq!(naps.get().unwrap_err().kind(), farpool::ErrorKind::Cancelled);
    /// # Ok(())
    /// # }
    /// ```
    pub fn terminate(&self) {
        if self.stage.advance(Stage::Terminated) != Stage::Terminated {
            self.session.close(true);
        }
    }

    /// Blocks until all jobs have ended and all workers are gone, after [`close`](Self::close) or
    /// [`terminate`](Self::terminate). It keeps waiting while an [`Imap`](crate::Imap) is neither read to its end nor dropped.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if the pool was neither closed nor terminated; the pool's own error, if it
    /// failed.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// assert_eq!(pool.join().unwrap_err().kind(), farpool::ErrorKind::InvalidArgument);
    /// pool.close();
    /// pool.join()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn join(&self) -> Result<(), Error> {
        fork::check_pool(self.session.owner())?;
        if self.stage.get() == Stage::Open {
            return Err(Error::invalid("join() would wait forever: call close() or terminate() first"));
        }
        while !self.session.wait_closed(None) {}
        self.session.here()?.failure().map_or(Ok(()), |error| Err(error.into()))
    }

    pub(crate) fn with_session(session: Session, payload_limit: u64) -> Self {
        Self { session, stage: StageCell::default(), payload_limit }
    }

    /// Starts a job, which the caller then feeds.
    pub(crate) fn call(
        &self,
        verb: &'static str,
        options: &Options,
        function: Bytes,
        interest: Interest,
    ) -> Result<Call, Error> {
        self.check(options).map_err(|error| error.of_job(verb, options.label()))?;
        Ok(self.session.begin(verb, options.label(), options.open_job(function), interest)?)
    }

    /// Returns what a job needs to be detached.
    #[cfg(feature = "cluster")]
    pub(crate) fn detach_settings(&self, options: &Options) -> Result<DetachSettings, Error> {
        self.check(options)?;
        self.session.here()?.detach_settings().ok_or_else(|| {
            Error::invalid(
                "the pool runs on this machine only, but detached jobs are kept by the coordinator of a cluster: set FARPOOL_ADDRESS \
                 to its address, or pass it to Pool::builder().address(..)",
            )
        })
    }

    pub(crate) fn item_limit(&self) -> ItemLimit {
        self.session.item_limit(self.payload_limit)
    }

    fn check(&self, options: &Options) -> Result<(), Error> {
        let session = self.session.here()?;
        let closed = match self.stage.get() {
            Stage::Open => {
                options.check()?;
                return Ok(session.check_labels(options.require())?);
            }
            Stage::Closed => "the pool was closed before the call",
            Stage::Terminated => "the pool was terminated before the call",
        };
        Err(Error::new(ErrorKind::Closed, closed))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.terminate();
        self.session.wait_closed(Some(Instant::now() + Self::DROP_PATIENCE));
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("processes", &self.processes()).field("stage", &self.stage.get()).finish()
    }
}
