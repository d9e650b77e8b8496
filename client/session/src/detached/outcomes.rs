use bytes::Bytes;
use farpool_proto::v1::DetachedJob;

use super::{JobLocation, JobReader, JobRef, ReadEnd, Step, about};
use crate::error::Error;
use crate::job::Outcome;

/// The outcomes of a detached job, as bytes, in the order of its items.
pub struct Outcomes {
    reader: JobReader,
    about: DetachedJob,
}

impl Outcomes {
    /// Begins to read; with `wait`, until the job has ended. Items without an outcome are skipped. Errors name `verb`,
    /// the caller's call.
    ///
    /// # Errors
    /// If there is no such job, or its coordinator cannot be reached.
    pub fn open(location: &JobLocation, verb: &'static str, name: &str, wait: bool) -> Result<Self, Error> {
        let about = about(location, verb, &JobRef::by_name(name), false)?;
        let job = JobRef { name: name.into(), id: about.id.clone() };
        Ok(Self { reader: JobReader::start(location, verb, &job, wait)?, about })
    }

    /// Returns the description of the job at the time it was opened.
    pub fn about(&self) -> &DetachedJob {
        &self.about
    }

    /// Returns the next outcome, or how the job ended; `None` if nothing has arrived yet.
    pub fn take(&mut self) -> Option<Result<Outcome, ReadEnd>> {
        loop {
            match self.reader.step(|bytes| Ok::<_, Error>(Bytes::copy_from_slice(bytes))) {
                Step::Wait => return None,
                Step::Missing(_) => {}
                Step::Outcome(item, result) => {
                    return Some(Ok(Outcome { item, result, attempts: self.reader.attempts() }));
                }
                Step::Ended(end) => return Some(Err(end)),
            }
        }
    }

    /// Blocks until there is an outcome or the end.
    pub fn wait(&self) {
        self.reader.wait(None);
    }
}
