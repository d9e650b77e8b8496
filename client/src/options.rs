//! The options of a call.

use std::time::Duration;

use bytes::Bytes;
use farpool_proto::limits;
use farpool_proto::v1::{Label, OpenJob};
use farpool_session::labels;

use crate::error::Error;

/// The options of one call, as given and not yet checked.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) chunksize: Option<u64>,
    pub(crate) buffersize: Option<u64>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retries: u32,
    pub(crate) retry_panics: bool,
    pub(crate) retry_failed: bool,
    pub(crate) speculate: bool,
    pub(crate) label: String,
    pub(crate) progress: bool,
    pub(crate) priority: i32,
    pub(crate) require: Vec<Label>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            chunksize: None,
            buffersize: None,
            timeout: None,
            retries: 2,
            retry_panics: false,
            retry_failed: false,
            speculate: false,
            label: String::new(),
            progress: false,
            priority: 0,
            require: Vec::new(),
        }
    }
}

impl Options {
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// Returns the labels that a host needs to run the job.
    pub(crate) fn require(&self) -> &[Label] {
        &self.require
    }

    /// Returns whether to show a progress bar.
    pub(crate) fn progress(&self) -> bool {
        self.progress
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        labels::check(&self.require)?;
        if self.chunksize == Some(0) {
            return Err(Error::invalid("chunksize must be at least 1: leave it out to let farpool choose it"));
        }
        if self.retries > limits::RETRIES {
            let (retries, most) = (self.retries, limits::RETRIES);
            return Err(Error::invalid(format!("retries must be at most {most}, not {retries}")));
        }
        if self.buffersize == Some(0) {
            return Err(Error::invalid("buffersize must be at least 1: leave it out to let farpool choose it"));
        }
        if self.timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(Error::invalid("timeout must be above zero: leave it out for no limit"));
        }
        if self.speculate && self.retries == 0 {
            return Err(Error::invalid(
                "speculate may run an item twice, but retries(0) runs it at most once: drop one of them",
            ));
        }
        match (self.chunksize, self.buffersize) {
            // Otherwise the first chunk would never be complete.
            (Some(chunk), Some(buffer)) if buffer < chunk => Err(Error::invalid(format!(
                "buffersize must be at least the chunksize, and {buffer} is less than {chunk}"
            ))),
            _ => Ok(()),
        }
    }

    /// Returns the number of items in a chunk, if it was set; otherwise 0.
    pub(crate) fn chunksize(&self) -> u64 {
        self.chunksize.unwrap_or(0)
    }

    /// Returns the message that opens the job, without the job's number.
    pub(crate) fn open_job(&self, function: Bytes) -> OpenJob {
        let timeout_ns = self.timeout.map_or(0, |timeout| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
        OpenJob {
            job: 0,
            function,
            chunksize: self.chunksize(),
            timeout_ns,
            retries: self.retries,
            retry_panics: self.retry_panics,
            retry_failed: self.retry_failed,
            // Only people read it, so a long one is cut off.
            label: limits::clipped(&self.label, limits::JOB_LABEL_BYTES),
            priority: self.priority,
            require: self.require.clone(),
            speculate: self.speculate,
            detach: None,
            shared: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(change: fn(&mut Options)) -> String {
        let mut options = Options::default();
        change(&mut options);
        options.check().unwrap_err().to_string()
    }

    #[test]
    fn invalid_options_are_rejected_by_name() {
        assert!(rejected(|o| o.chunksize = Some(0)).starts_with("chunksize must be"));
        assert!(rejected(|o| o.buffersize = Some(0)).starts_with("buffersize must be"));
        assert!(rejected(|o| o.timeout = Some(Duration::ZERO)).starts_with("timeout must be"));
        assert!(rejected(|o| o.retries = 10_001).starts_with("retries must be at most 10000"));
        assert!(rejected(|o| (o.speculate, o.retries) = (true, 0)).starts_with("speculate may run an item twice"));
        assert!(rejected(|o| (o.chunksize, o.buffersize) = (Some(3), Some(2))).contains("2 is less than 3"));
        Options::default().check().unwrap();
    }

    #[test]
    fn options_reach_the_message() {
        let options = Options {
            chunksize: Some(8),
            timeout: Some(Duration::from_millis(5)),
            retries: 7,
            retry_panics: true,
            retry_failed: true,
            speculate: true,
            label: "x".to_owned(),
            priority: -3,
            require: vec![labels::required("gpu", "a100")],
            ..Options::default()
        };
        let open = options.open_job(Bytes::from_static(b"f"));
        assert_eq!((&*open.function, open.chunksize, open.timeout_ns), (&b"f"[..], 8, 5_000_000));
        assert_eq!((open.retries, open.retry_panics, open.speculate, &*open.label), (7, true, true, "x"));
        assert!(open.retry_failed);
        let default = Options::default().open_job(Bytes::new());
        assert!(!(default.speculate || default.retry_failed || default.retry_panics));
        assert_eq!((open.priority, open.require), (-3, vec![labels::required("gpu", "a100")]));
        let forever = Options { timeout: Some(Duration::MAX), ..Options::default() };
        assert_eq!(forever.open_job(Bytes::new()).timeout_ns, u64::MAX);
    }
}
