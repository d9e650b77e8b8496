//! Errors, with advice that names this crate's methods.

use std::fmt::{self, Debug, Display, Formatter};

pub use farpool_session::ErrorKind;
use farpool_session::Remedy;

/// An error, with everything that is known about it.
///
/// Its [`Display`](std::fmt::Display) and its [`Debug`](std::fmt::Debug) print the same: the call, the item, what
/// happened, where, after how many attempts, and what to do next. The last stderr output of a dead worker and
/// the backtrace of a panic follow on separate lines.
///
/// ```
/// let error = farpool::Pool::builder().processes(0).build().unwrap_err();
/// assert_eq!(error.kind(), farpool::ErrorKind::InvalidArgument);
/// assert!(error.to_string().contains("at least 1 process"));
/// ```
#[derive(Clone)]
pub struct Error(farpool_session::Error);

impl Error {
    /// Returns the kind of failure.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let error = pool.map(|n: u64| assert!(n != 2, "two"), 0..4).unwrap_err();
    /// assert_eq!(error.kind(), farpool::ErrorKind::Panicked);
    /// # Ok(())
    /// # }
    /// ```
    pub fn kind(&self) -> ErrorKind {
        self.0.kind()
    }

    /// Returns what happened, as a lower-case fragment; for a panic, its message.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let error = pool.map(|n: u64| assert!(n != 2, "two"), 0..4).unwrap_err();
    /// assert!(error.message().ends_with("two"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn message(&self) -> &str {
        self.0.message()
    }

    /// Returns the index of the item that failed, from 0 in input order; `None` if the error is not about one item.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let error = pool.map(|n: u64| assert!(n != 2, "two"), 0..4).unwrap_err();
    /// assert_eq!(error.item(), Some(2));
    /// # Ok(())
    /// # }
    /// ```
    pub fn item(&self) -> Option<u64> {
        self.0.item()
    }

    /// Returns the host where it happened; `None` if it happened in the client, or the host is unknown.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let error = pool.map(|n: u64| assert!(n != 2, "two"), 0..4).unwrap_err();
    /// assert!(error.host().is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn host(&self) -> Option<&str> {
        self.0.host()
    }

    /// Returns the process id of the worker on that host; `None` if no worker was involved.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let error = pool.map(|n: u64| assert!(n != 2, "two"), 0..4).unwrap_err();
    /// assert!(error.pid().is_some_and(|pid| pid != std::process::id()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn pid(&self) -> Option<u32> {
        self.0.pid()
    }

    /// Returns how many attempts the item had, including the last; 0 if it never reached a worker.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let error = pool.map(|n: u64| assert!(n != 2, "two"), 0..4).unwrap_err();
    /// assert_eq!(error.attempts(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn attempts(&self) -> u32 {
        self.0.attempts()
    }

    /// Returns the backtrace of a panic, if the worker could capture one.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let error = pool.map(|n: u64| assert!(n != 2, "two"), 0..4).unwrap_err();
    /// // Present if RUST_BACKTRACE enables it.
    /// assert!(error.backtrace().is_none_or(|backtrace| !backtrace.is_empty()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn backtrace(&self) -> Option<&str> {
        self.0.backtrace()
    }

    /// Returns the end of the worker's stderr, if the worker died.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let error = pool.map(|n: u64| assert!(n != 2, "two"), 0..4).unwrap_err();
    /// // `None`: the item panicked, and its worker lives on.
    /// assert_eq!(error.stderr(), None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn stderr(&self) -> Option<&str> {
        self.0.stderr()
    }

    /// Returns the job's label, as given to [`Job::label`](crate::Job::label), or the name of a detached job.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let error = pool.map(|n: u64| assert!(n != 2, "two"), 0..4).unwrap_err();
    /// assert_eq!(error.label(), None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn label(&self) -> Option<&str> {
        self.0.label()
    }

    /// Returns the message for people who use a program and did not write it: without the name of the call, and the
    /// advice names no method of this crate.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let error = pool.map(|n: u64| assert!(n != 2, "two"), 0..4).unwrap_err();
    /// assert!(error.to_string().starts_with("map, item 2: "));
    /// assert!(error.plain().to_string().starts_with("item 2: "));
    /// # Ok(())
    /// # }
    /// ```
    pub fn plain(&self) -> impl Display + use<'_> {
        self.0.plain()
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(farpool_session::Error::new(kind, message))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self(farpool_session::Error::invalid(message))
    }

    /// Returns an error for a broken protocol, by a peer or farpool itself; the message says where it was noticed.
    #[track_caller]
    pub(crate) fn protocol(message: impl Display) -> Self {
        Self(farpool_session::Error::protocol(message))
    }

    pub(crate) fn of_item(self, item: u64) -> Self {
        Self(self.0.of_item(item))
    }

    pub(crate) fn of_job(self, verb: &'static str, label: &str) -> Self {
        Self(self.0.of_job(verb, label))
    }
}

impl From<farpool_session::Error> for Error {
    fn from(error: farpool_session::Error) -> Self {
        Self(error)
    }
}

impl From<Error> for farpool_session::Error {
    fn from(error: Error) -> Self {
        error.0
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let advice = self.0.remedy().map_or_else(|| advice(self.kind()), call);
        self.0.story(advice).fmt(f)
    }
}

// If `main` returns an error, Rust prints it with Debug: print the message there too, not a struct.
impl Debug for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

/// Returns advice that names the call to make.
fn call(remedy: Remedy) -> Option<&'static str> {
    match remedy {
        Remedy::CheckAddress => {
            Some("is farpool-coordinator running there? the address comes from FARPOOL_ADDRESS, or from .address(..)")
        }
        Remedy::ReconnectLonger => Some("to allow more time, call Builder::reconnect_timeout"),
        Remedy::NameLabel => Some("write require(\"gpu\", \"a100\")"),
        Remedy::CallAgain => Some("call it again, or attach(..) to the job here"),
        // For the others, the session's own advice is used.
        _ => None,
    }
}

/// Returns what to do next, for kinds whose messages do not say it.
fn advice(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::WorkerDied => {
            Some("its last output may say why; .retries(n) sets how often such an item is retried")
        }
        ErrorKind::TimedOut => Some("raise .timeout(..) if items may take longer"),
        ErrorKind::AgentLost => Some("raise .retries(n) if the item may run again"),
        ErrorKind::PayloadTooLarge => Some("split it, or raise the pool's payload_limit(..)"),
        ErrorKind::Closed => Some("open another pool"),
        ErrorKind::WaitTimedOut => Some("the job is still running: wait again, or cancel it"),
        ErrorKind::InitializerFailed => Some("fix the initializer and open another pool"),
        // The message says it.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use farpool_proto::v1::{Failure, FailureKind};

    use super::*;

    fn from_failure(failure: Failure) -> Error {
        farpool_session::Error::from_failure(failure).into()
    }

    #[test]
    fn the_message_has_everything_that_is_known() {
        let error = from_failure(Failure {
            kind: FailureKind::WorkerDied.into(),
            message: "the worker was killed by signal 9 (SIGKILL)".to_owned(),
            stderr: "one\ntwo\n".to_owned(),
            host: "node7".to_owned(),
            pid: 4711,
            attempts: 3,
            ..Failure::default()
        })
        .of_item(12)
        .of_job("map", "render");
        assert_eq!(
            error.to_string(),
            "map \"render\", item 12: the worker was killed by signal 9 (SIGKILL) (host node7, pid 4711, 3 attempts); \
             its last output may say why; .retries(n) sets how often such an item is retried\n\
             the worker's last output on stderr:\n    one\n    two"
        );
        assert_eq!(format!("{error:?}"), error.to_string());
        assert_eq!((error.kind(), error.item(), error.attempts()), (ErrorKind::WorkerDied, Some(12), 3));
        assert_eq!((error.host(), error.pid(), error.label()), (Some("node7"), Some(4711), Some("render")));
        assert_eq!((error.stderr(), error.backtrace()), (Some("one\ntwo\n"), None));
    }

    /// Agents and workers may send any text.
    #[test]
    fn the_message_contains_no_terminal_control_characters() {
        let error = from_failure(Failure {
            kind: FailureKind::Panicked.into(),
            message: "one\n\x1b[31mtwo\x1b[0m \x1b]52;c;aGk=\x07".to_owned(),
            backtrace: "at \u{202e}x\n\r[node1 1] fine".to_owned(),
            stderr: "\u{9b}2J".to_owned(),
            host: "node7\n[node1 1] fine".to_owned(),
            ..Failure::default()
        });
        let message = error.of_job("map", "\x1b[2J\u{202e}").to_string();
        let expected = "map \"\\u{1b}[2J\\u{202e}\": one\ntwo \\u{1b}]52;c;aGk=\\u{7} (host node7\\n[node1 1] fine)";
        assert!(message.starts_with(expected), "{message:?}");
        assert!(message.lines().all(farpool_proto::text::is_plain), "{message:?}");
    }

    #[test]
    fn the_message_omits_what_is_not_known() {
        assert_eq!(Error::invalid("chunksize must be at least 1").to_string(), "chunksize must be at least 1");
    }

    #[test]
    fn the_message_names_the_method_to_call() {
        let check = |remedy, words: &str| {
            let error = farpool_session::Error::invalid("it is so").with_remedy(remedy);
            let message = Error::from(error.clone()).to_string();
            assert!(message.starts_with("it is so; ") && message.contains(words), "{message}");
            // Other APIs have other methods.
            assert!(!error.to_string().contains(words), "{error}");
        };
        check(Remedy::CheckAddress, ".address(..)");
        check(Remedy::ReconnectLonger, "Builder::reconnect_timeout");
        check(Remedy::NameLabel, "require(\"gpu\", \"a100\")");
        check(Remedy::CallAgain, "attach(..)");
    }

    #[test]
    fn errors_cross_threads_and_box() {
        fn check<T: std::error::Error + Clone + Send + Sync + 'static>() {}
        check::<Error>();
    }
}
