//! Errors, with everything that is known about them.

mod kind;
mod remedy;
mod story;

use std::panic::Location;

use farpool_proto::v1::Failure;

pub use kind::ErrorKind;
pub use remedy::Remedy;

/// An error, with everything that is known about it.
///
/// Its [`Display`](std::fmt::Display) and its [`Debug`](std::fmt::Debug) print the same: the call, the item, what happened,
/// where, and after how many attempts. The last stderr output of a dead worker and the backtrace of a panic follow on separate
/// lines. The front adds what to do next: see [`story`](Self::story) and [`remedy`](Self::remedy).
#[derive(Clone)]
pub struct Error(Box<Context>);

#[derive(Clone, Default)]
struct Context {
    kind: ErrorKind,
    message: String,
    verb: &'static str,
    label: String,
    item: Option<u64>,
    host: String,
    pid: u32,
    attempts: u32,
    backtrace: String,
    stderr: String,
    remedy: Option<Remedy>,
}

impl Error {
    /// Returns the kind of failure.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns what happened, as a lower-case fragment; for a panic, its message.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns the index of the item that failed, from 0 in input order; `None` if the error is not about one item.
    pub fn item(&self) -> Option<u64> {
        self.0.item
    }

    /// Returns the host where it happened; `None` if it happened in the client, or the host is unknown.
    pub fn host(&self) -> Option<&str> {
        known(&self.0.host)
    }

    /// Returns the process id of the worker on that host; `None` if no worker was involved.
    pub fn pid(&self) -> Option<u32> {
        (self.0.pid != 0).then_some(self.0.pid)
    }

    /// Returns how many attempts the item had, including the last; 0 if it never reached a worker.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// Returns the backtrace of a panic, if the worker could capture one.
    pub fn backtrace(&self) -> Option<&str> {
        known(&self.0.backtrace)
    }

    /// Returns the end of the worker's stderr, if the worker died.
    pub fn stderr(&self) -> Option<&str> {
        known(&self.0.stderr)
    }

    /// Returns the job's label, or the name of a detached job.
    pub fn label(&self) -> Option<&str> {
        known(&self.0.label)
    }

    /// Returns what to do about it, if its kind alone does not say that.
    pub fn remedy(&self) -> Option<Remedy> {
        self.0.remedy
    }

    /// Creates an error of this kind; the message says what happened, as a lower-case fragment.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Context { kind, message: message.into(), ..Context::default() }))
    }

    /// Creates an error about an invalid argument or option.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// Converts a failure that a worker, an agent or the coordinator has sent.
    pub fn from_failure(failure: Failure) -> Self {
        Self(Box::new(Context {
            kind: ErrorKind::from_wire(failure.kind()),
            message: failure.message,
            host: failure.host,
            pid: failure.pid,
            attempts: failure.attempts,
            backtrace: failure.backtrace,
            stderr: failure.stderr,
            ..Context::default()
        }))
    }

    /// Creates an error about a peer, or farpool itself, that broke the protocol. The message says where this was detected.
    #[track_caller]
    pub fn protocol(message: impl std::fmt::Display) -> Self {
        let noticed = Location::caller();
        Self::new(ErrorKind::Unavailable, format!("{message} (noticed at {}:{})", noticed.file(), noticed.line()))
    }

    /// Adds what to do about it.
    pub fn with_remedy(mut self, remedy: Remedy) -> Self {
        self.0.remedy = Some(remedy);
        self
    }

    /// Sets the item that it is about.
    pub fn of_item(mut self, item: u64) -> Self {
        self.0.item = Some(item);
        self
    }

    /// Sets the job that it is about, and the call (such as `map`) that started the job.
    pub fn of_job(mut self, verb: &'static str, label: &str) -> Self {
        self.0.verb = verb;
        self.0.label = label.to_owned();
        self
    }
}

fn known(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use farpool_proto::v1::FailureKind;

    #[test]
    fn the_story_names_everything_that_is_known() {
        let error = Error::from_failure(Failure {
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
            "map \"render\", item 12: the worker was killed by signal 9 (SIGKILL) (host node7, pid 4711, 3 attempts)\n\
             the worker's last output on stderr:\n    one\n    two"
        );
        assert!(error.story(Some("do this")).to_string().contains("3 attempts); do this\n"), "{error}");
        assert_eq!(format!("{error:?}"), error.to_string());
        assert_eq!((error.kind(), error.item(), error.attempts()), (ErrorKind::WorkerDied, Some(12), 3));
        assert_eq!((error.host(), error.pid(), error.label()), (Some("node7"), Some(4711), Some("render")));
        assert_eq!((error.stderr(), error.backtrace()), (Some("one\ntwo\n"), None));
    }

    /// Agents and workers may send anything.
    #[test]
    fn the_story_contains_no_terminal_controls() {
        let error = Error::from_failure(Failure {
            kind: FailureKind::Panicked.into(),
            message: "one\n\x1b[31mtwo\x1b[0m \x1b]52;c;aGk=\x07".to_owned(),
            backtrace: "at \u{202e}x\n\r[node1 1] fine".to_owned(),
            stderr: "\u{9b}2J".to_owned(),
            host: "node7\n[node1 1] fine".to_owned(),
            ..Failure::default()
        });
        let story = error.of_job("map", "\x1b[2J\u{202e}").to_string();
        let start = "map \"\\u{1b}[2J\\u{202e}\": one\ntwo \\u{1b}]52;c;aGk=\\u{7} (host node7\\n[node1 1] fine)";
        assert!(story.starts_with(start), "{story:?}");
        assert!(story.lines().all(farpool_proto::text::is_plain), "{story:?}");
    }

    #[test]
    fn the_story_leaves_out_what_is_not_known() {
        assert_eq!(Error::invalid("chunksize must be at least 1").to_string(), "chunksize must be at least 1");
    }

    #[test]
    fn a_front_can_word_a_remedy_itself() {
        let error = Error::invalid("the key is empty").with_remedy(Remedy::NameLabel);
        assert_eq!(error.remedy(), Some(Remedy::NameLabel));
        assert_eq!(error.to_string(), "the key is empty; a label is a key and a value, such as gpu and a100");
        let story = error.story(Some("write require=\"gpu=a100\"")).to_string();
        assert_eq!(story, "the key is empty; write require=\"gpu=a100\"");
    }

    #[test]
    fn errors_cross_threads_and_box() {
        fn check<T: std::error::Error + Clone + Send + Sync + 'static>() {}
        check::<Error>();
    }
}
