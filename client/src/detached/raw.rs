//! Outcomes of jobs of any program, for the binary `farpool`.

use bytes::Bytes;
use farpool_session::detached::{End, Named, Reading, Step, about};

use super::outcomes::decode;
use super::{DetachedStatus, check_format, place};
use crate::args::Data;
use crate::error::Error;

/// The outcomes of a detached job as they are kept.
#[doc(hidden)]
pub struct RawDetached {
    reading: Reading,
    id: Bytes,
    result: String,
    format: u32,
    status: DetachedStatus,
}

/// The outcome of an item.
#[doc(hidden)]
#[derive(Debug)]
pub struct RawOutcome {
    /// Its index.
    pub item: u64,
    /// Its encoded result.
    pub result: Result<Vec<u8>, Error>,
}

/// How reading has ended.
#[doc(hidden)]
#[derive(Debug)]
pub enum RawEnd {
    /// Every item has had its outcome.
    Finished,
    /// It was cancelled.
    Cancelled,
    /// Its pool cannot run.
    Failed(Error),
    /// It runs, and what is to come was not waited for.
    Running,
}

impl RawDetached {
    /// Begins to read; `wait`: for what is not there yet, too.
    pub fn open(url: &str, name: &str, wait: bool) -> Result<Self, Error> {
        let place = place(url)?;
        let about = about(&place, "results", &Named::whichever(name), false)?;
        let job = Named { name: name.into(), id: about.id.clone() };
        let status = DetachedStatus::read(&about)?;
        Ok(Self {
            reading: Reading::start(&place, "results", &job, wait)?,
            id: job.id,
            result: about.result,
            format: about.format,
            status,
        })
    }

    /// What tells the job from others that have its name before or after it.
    pub fn id(&self) -> Bytes {
        self.id.clone()
    }

    /// The type of the results.
    pub fn result(&self) -> &str {
        &self.result
    }

    /// Whether this build can read results of this type.
    pub fn check<R: Data>(&self) -> Result<(), Error> {
        check_format::<R>(self.format)
    }

    /// How far the job was when it was opened.
    pub fn status(&self) -> &DetachedStatus {
        &self.status
    }

    /// The next outcome, or how it has ended; `None`: nothing is there yet.
    pub fn read(&mut self) -> Result<Option<Result<RawOutcome, RawEnd>>, Error> {
        let ended = loop {
            match self.reading.step(|bytes| Ok::<_, Error>(bytes.to_vec())) {
                Step::Wait => return Ok(None),
                Step::Missing(_) => {}
                Step::Outcome(item, result) => {
                    return Ok(Some(Ok(RawOutcome { item, result: result.map_err(Error::from) })));
                }
                Step::Ended(End::Broken(error)) => return Err(error.into()),
                Step::Ended(End::Failed(error)) => break RawEnd::Failed(error.into()),
                Step::Ended(End::Finished) => break RawEnd::Finished,
                Step::Ended(End::Cancelled) => break RawEnd::Cancelled,
                Step::Ended(End::Running) => break RawEnd::Running,
            }
        };
        Ok(Some(Err(ended)))
    }

    /// Blocks until there is something to read.
    pub fn wait(&self) {
        self.reading.wait();
    }

    /// A result as its program knows it.
    pub fn decode<R: Data>(bytes: &[u8]) -> Result<R, Error> {
        decode(bytes)
    }
}
