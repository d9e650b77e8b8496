//! Jobs that the cluster keeps: detached by one process, picked up by another.

mod collect;
mod detach;
mod outcomes;
mod status;
#[cfg(test)]
mod tests;

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;

use farpool_session::detached::{self, JobLocation, JobReader, JobRef};
use farpool_session::environment;

use crate::args::Data;
use crate::codec;
use crate::error::{Error, ErrorKind};
pub use detach::Detach;
pub use outcomes::{Outcomes, decode};
pub use status::{DetachedState, DetachedStatus};

/// Attaches to the detached job of this name on the cluster that the environment variable `FARPOOL_ADDRESS` names. `R` is
/// the type of its results.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) if there is no such job, if its results are of another
/// type, or if `FARPOOL_ADDRESS` is not set; [`ErrorKind::Codec`](crate::ErrorKind::Codec) if their encoding is one that
/// this farpool cannot read; [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the coordinator cannot be
/// reached, or keeps no jobs.
///
/// ```no_run
/// # fn main() -> Result<(), farpool::Error> {
/// let job = farpool::attach::<u64>("nightly-2026-11-24")?;
/// println!("{} of {} are done", job.status()?.done, job.status()?.items);
/// let squares: Vec<u64> = job.get()?;
/// # Ok(())
/// # }
/// ```
pub fn attach<R: Data>(name: impl Into<String>) -> Result<Detached<R>, Error> {
    let name = name.into();
    match environment::address().map_err(|error| error.of_job("attach", &name))? {
        Some(address) => attach_to(address, name),
        None => Err(Error::invalid(
            "FARPOOL_ADDRESS is not set: set it to the address of the coordinator that keeps the job, or use attach_to(..)",
        )
        .of_job("attach", &name)),
    }
}

/// Attaches to the detached job of this name at the coordinator with this address, `http://host:port`, regardless of
/// `FARPOOL_ADDRESS`. `R` is the type of its results.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) if the address is invalid, if there is no such job, or if
/// its results are of another type; [`ErrorKind::Codec`](crate::ErrorKind::Codec) if their encoding is one that this farpool
/// cannot read; [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the coordinator cannot be reached, or keeps no
/// jobs.
///
/// ```
/// // No coordinator listens there.
/// let error = farpool::attach_to::<u64>("http://127.0.0.1:1", "nightly-2026-11-24").unwrap_err();
/// assert_eq!(error.kind(), farpool::ErrorKind::Unavailable);
/// assert!(error.to_string().contains("is farpool-coordinator running there?"));
/// ```
pub fn attach_to<R: Data>(url: impl AsRef<str>, name: impl Into<String>) -> Result<Detached<R>, Error> {
    let name = name.into();
    let location = JobLocation::at(url.as_ref()).map_err(|error| error.of_job("attach", &name))?;
    let about = detached::about(&location, "attach", &JobRef::by_name(&name), false)?;
    if about.result != type_name::<R>() {
        let message = format!("its results are of type {}, but type {} was requested", about.result, type_name::<R>());
        return Err(Error::invalid(message).of_job("attach", &name));
    }
    check_format::<R>(about.format).map_err(|error| error.of_job("attach", &name))?;
    Ok(Detached::new(location, JobRef { name: name.into(), id: about.id }))
}

/// Checks the encoding of the results: decoded from another one, they could be wrong values.
#[doc(hidden)]
pub fn check_format<R: Data>(format: u32) -> Result<(), Error> {
    let message = match format {
        codec::DETACHED_FORMAT => return Ok(()),
        0 if codec::is_plain::<R>() => return Ok(()),
        0 => {
            "its results were encoded by an older farpool, which did not record the structure of their type: read them with \
              the program that detached the job"
        }
        _ => "its results were encoded by a newer farpool: build this program with that version",
    };
    Err(Error::new(ErrorKind::Codec, message))
}

/// A handle to a job that the cluster keeps and that does not depend on this process. Created by
/// [`Job::detach`](crate::Job::detach), and by [`attach`] in any other process.
///
/// Clones refer to the same job. Any number of them can read its outcomes, at the same time and repeatedly. Dropping a
/// handle changes nothing. If the job is discarded and its name reused, the handle does not refer to the new job. The
/// outcomes stay until the job is [discarded](Self::discard) or expires, after the coordinator's `--journal-expiry`.
///
/// Its calls block, and so does its [`Outcomes`] as an iterator; in async code use `Outcomes` as a stream. If the coordinator is
/// lost, they try to reconnect for as long as the pool's [`reconnect_timeout`](crate::Builder::reconnect_timeout) or
/// `FARPOOL_RECONNECT_TIMEOUT` allows.
///
/// ```no_run
/// fn simulate(seed: u64) -> f64 {
///     (0..seed).map(|step| (step as f64).sin()).sum()
/// }
///
/// fn main() -> Result<(), farpool::Error> {
///     farpool::init();
///     // FARPOOL_ADDRESS names the cluster.
///     let pool = farpool::Pool::new(64)?;
///     let job = pool.job(simulate).detach("nightly").map(0..1_000_000)?;
///     // This process may exit now. Later, here or in another one with farpool::attach("nightly"):
///     let sums: Vec<f64> = job.get()?;
///     job.discard()
/// }
/// ```
pub struct Detached<R> {
    location: JobLocation,
    job: JobRef,
    results: PhantomData<fn() -> R>,
}

impl<R: Data> Detached<R> {
    pub(crate) fn new(location: JobLocation, job: JobRef) -> Self {
        Self { location, job, results: PhantomData }
    }

    /// Returns the job's name.
    pub fn name(&self) -> &str {
        &self.job.name
    }

    /// Returns the job's progress.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) if the job was discarded or has expired;
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the coordinator cannot be reached.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), farpool::Error> {
    /// let status = farpool::attach::<u64>("nightly")?.status()?;
    /// if status.state == farpool::DetachedState::Finished {
    ///     println!("{} of {} items failed", status.failed, status.items);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn status(&self) -> Result<DetachedStatus, Error> {
        let about = detached::about(&self.location, "status", &self.job, true)?;
        DetachedStatus::read(&about).map_err(|error| error.of_job("status", &self.job.name))
    }

    /// Blocks until the job has ended, and returns its results in the order of the items.
    ///
    /// # Errors
    /// If items failed, the error of the one with the lowest index, after all have finished;
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled) if the job was cancelled;
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) if the job was discarded or has expired;
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the coordinator cannot be reached.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), farpool::Error> {
    /// let results: Vec<String> = farpool::attach("nightly")?.get()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn get(&self) -> Result<Vec<R>, Error> {
        collect::collect(JobReader::start(&self.location, "get", &self.job, true)?, &self.job.name)
    }

    /// Returns the outcomes in the order of the items, as they arrive, in constant memory. Each call starts with the first one.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if reading cannot start. Any other error is the last of the
    /// outcomes.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), farpool::Error> {
    /// for outcome in farpool::attach::<u64>("nightly")?.iter()? {
    ///     match outcome {
    ///         Ok(result) => println!("{result}"),
    ///         Err(error) => eprintln!("{error}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn iter(&self) -> Result<Outcomes<R>, Error> {
        Ok(Outcomes::new(
            JobReader::start(&self.location, "iter", &self.job, true)?.reporting_missing(),
            &self.job.name,
        ))
    }

    /// Cancels items without an outcome; running ones are killed. Existing outcomes stay.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) if the job was discarded or has expired;
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the coordinator cannot be reached.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), farpool::Error> {
    /// farpool::attach::<u64>("nightly")?.cancel()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn cancel(&self) -> Result<(), Error> {
        Ok(detached::cancel(&self.location, &self.job)?)
    }

    /// Drops the job with all its outcomes, whether or not it has ended, and frees its name.
    ///
    /// Do not call this before the call that detaches the job has returned. If that client loses its connection just when the
    /// coordinator has stored the whole job, it cannot know that. If the job is gone when it reconnects, it detaches
    /// the job again.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) if the job was discarded or has expired;
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the coordinator cannot be reached.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), farpool::Error> {
    /// let job = farpool::attach::<u64>("nightly")?;
    /// let results = job.get()?;
    /// job.discard()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn discard(&self) -> Result<(), Error> {
        Ok(detached::discard(&self.location, &self.job)?)
    }
}

impl<R> Clone for Detached<R> {
    fn clone(&self) -> Self {
        Self { location: self.location.clone(), job: self.job.clone(), results: PhantomData }
    }
}

impl<R> fmt::Debug for Detached<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detached").field("name", &self.job.name).finish_non_exhaustive()
    }
}

/// The error of a job that ended without all outcomes.
fn cancelled(verb: &'static str, name: &str, items: u64) -> Error {
    let message =
        format!("it was cancelled before all of its {items} items had an outcome; .iter() returns the existing ones");
    Error::new(crate::error::ErrorKind::Cancelled, message).of_job(verb, name)
}
