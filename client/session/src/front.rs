//! The program in front of a session.

use std::time::Duration;

use farpool_proto::v1::Output;

/// Shows the user of a program what happens in its pool on a cluster. Sessions call it on the thread that talks to the coordinator:
/// except for [`flush`](Self::flush), it must not block.
pub trait Front: Send + Sync + 'static {
    /// Shows output of a worker.
    fn output(&self, output: &Output);

    /// Shows a notice of one line: why nothing runs, or that the pool resumes.
    fn notice(&self, line: &str);

    /// Waits until everything is shown, but no longer than `patience`.
    fn flush(&self, patience: Duration);
}
