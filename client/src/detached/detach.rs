use std::any::type_name;
use std::fmt;

use bytes::Bytes;
use farpool_proto::v1;
use farpool_session::detached::JobSender;

use super::Detached;
use crate::args::{Args, Data};
use crate::codec;
use crate::error::Error;
use crate::feeder::WholeInput;
use crate::function::{self, Captureless, Function};
use crate::job::Job;
use crate::progress::Progress;
use crate::singles::Singles;

/// The number of a detached job: the only job of its pool.
const JOB: u64 = 1;

/// A call whose job the cluster will keep, created by [`Job::detach`]. Call [`map`](Self::map) or another method next.
///
/// These methods block until the coordinator has the whole job on disk, and nothing runs before. They pull and send the items
/// in bounded memory. If the connection to the coordinator is lost, they resume once it is restored. If they end in an error or
/// a panic, the coordinator keeps nothing.
#[must_use = "nothing is detached before a verb such as map(items)"]
pub struct Detach<'p, F> {
    job: Job<'p, F>,
    name: String,
}

impl<'p, F> Job<'p, F> {
    /// Hands the whole job to the cluster, which keeps its items and outcomes under this name. The job survives this process
    /// and coordinator restarts, and any process can pick it up with [`attach`](crate::attach). Call [`Detach::map`] or another
    /// method next.
    ///
    /// It runs in a separate pool, with the options of this pool and this job. Its workers' output is discarded. The
    /// pool must be on a cluster whose coordinator was started with `--journal DIR`.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// // FARPOOL_ADDRESS names the cluster.
    /// let pool = farpool::Pool::new(64)?;
    /// let job = pool.job(|n: u64| n * n).detach("squares").map(0..1_000_000)?;
    /// // Later, in another process:
    /// let squares = farpool::attach::<u64>("squares")?.get()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn detach(self, name: impl Into<String>) -> Detach<'p, F> {
        Detach { job: self, name: name.into() }
    }
}

impl<F: Captureless> Detach<'_, F> {
    /// Detaches a job that calls the function with each item.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) if the pool is not on a cluster, if an option is
    /// invalid, or if another job has the name; [`ErrorKind::Codec`](crate::ErrorKind::Codec) or
    /// [`ErrorKind::PayloadTooLarge`](crate::ErrorKind::PayloadTooLarge) with the index of an item that cannot be sent;
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) after [`Pool::close`](crate::Pool::close);
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the coordinator cannot be reached, keeps no jobs, or has no
    /// room for more.
    ///
    /// # Panics
    /// If the iterator panics.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// // FARPOOL_ADDRESS names the cluster.
    /// let pool = farpool::Pool::new(64)?;
    /// let job = pool.job(|n: u64| n * n).retries(5).detach("squares").map(0..1_000_000)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn map<T, R, I>(&self, items: I) -> Result<Detached<R>, Error>
    where
        F: Fn(T) -> R,
        I: IntoIterator<Item = T>,
        T: Data,
        R: Data,
    {
        self.send(self.describe::<(T,), R>(), Singles(items.into_iter()))
    }

    /// Detaches a job that calls the function with each item, which is a tuple of its arguments.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) if the pool is not on a cluster, if an option is
    /// invalid, or if another job has the name; [`ErrorKind::Codec`](crate::ErrorKind::Codec) or
    /// [`ErrorKind::PayloadTooLarge`](crate::ErrorKind::PayloadTooLarge) with the index of an item that cannot be sent;
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) after [`Pool::close`](crate::Pool::close);
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the coordinator cannot be reached, keeps no jobs, or has no
    /// room for more.
    ///
    /// # Panics
    /// If the iterator panics.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(64)?;
    /// let job = pool.job(u64::pow).detach("powers").starmap([(2, 10), (3, 4)])?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn starmap<A, R, I>(&self, items: I) -> Result<Detached<R>, Error>
    where
        F: Function<A, Output = R>,
        I: IntoIterator<Item = A>,
        A: Args,
        R: Data,
    {
        self.send(self.describe::<A, R>(), items.into_iter())
    }

    /// Detaches a job of a single call: it has one result.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) if the pool is not on a cluster, if an option is
    /// invalid, or if another job has the name; [`ErrorKind::Codec`](crate::ErrorKind::Codec) or
    /// [`ErrorKind::PayloadTooLarge`](crate::ErrorKind::PayloadTooLarge) if the arguments cannot be sent;
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) after [`Pool::close`](crate::Pool::close);
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the coordinator cannot be reached, keeps no jobs, or has no
    /// room for more.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(1)?;
    /// let job = pool.job(|n: u64| n * n).detach("square").apply((7,))?;
    /// assert_eq!(job.get()?, [49]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn apply<A, R>(&self, args: A) -> Result<Detached<R>, Error>
    where
        F: Function<A, Output = R>,
        A: Args,
        R: Data,
    {
        self.send(self.describe::<A, R>(), std::iter::once(args))
    }

    fn describe<A: Args, R: Data>(&self) -> Bytes
    where
        F: Function<A, Output = R>,
    {
        function::describe_detached::<F, A, R>()
    }

    fn send<A: Args, R: Data>(&self, function: Bytes, input: impl Iterator<Item = A>) -> Result<Detached<R>, Error> {
        self.try_send::<A, R>(function, input).map_err(|error| error.of_job("detach", &self.name))
    }

    fn try_send<A: Args, R: Data>(
        &self,
        function: Bytes,
        input: impl Iterator<Item = A>,
    ) -> Result<Detached<R>, Error> {
        let (pool, options) = (self.job.pool(), self.job.options());
        let detach_settings = pool.detach_settings(options)?;
        let detach = v1::Detach {
            name: self.name.clone(),
            result: type_name::<R>().to_owned(),
            format: codec::DETACHED_FORMAT,
            durable: 0,
        };
        let open = v1::OpenJob { job: JOB, detach: Some(detach), ..options.open_job(function) };
        let mut whole = WholeInput::new(input, JOB, pool.item_limit());
        let mut sending = JobSender::start(&detach_settings, open)?;
        let _progress = match options.progress() {
            true => Progress::show(&sending.durable(), &self.name, whole.size()),
            false => None,
        };
        while let Some(items) = whole.next_batch()? {
            sending.send(items)?;
        }
        let job = sending.finish()?;
        Ok(Detached::new(detach_settings.location, job))
    }
}

impl<F> fmt::Debug for Detach<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detach").field("name", &self.name).field("job", &self.job).finish()
    }
}
