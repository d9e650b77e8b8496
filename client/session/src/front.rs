//! The program in front of a session.

use std::time::Duration;

use farpool_proto::v1::Output;

/// What a program shows its user of a pool on a cluster. Sessions call it from where they talk to the coordinator: it must not block,
/// but for [`flush`](Self::flush).
pub trait Front: Send + Sync + 'static {
    /// A worker has printed something.
    fn output(&self, output: &Output);

    /// The user should know something, in one line: why nothing runs, and that it goes on.
    fn notice(&self, line: &str);

    /// Waits until all of that is shown, no longer than this.
    fn flush(&self, patience: Duration);
}
