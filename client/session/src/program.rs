//! The executable that workers run.

use std::ffi::OsString;
use std::path::PathBuf;

use farpool_link::message::OWN_EXECUTABLE;

/// The program that a pool's workers run.
#[derive(Clone, Debug)]
pub struct Program {
    /// The executable's file.
    pub file: PathBuf,
    /// Its arguments; the first is the name shown in process lists.
    pub arguments: Vec<OsString>,
    /// Whether, on this machine, the process that forks its workers is kept for 10 seconds after a pool has ended, for the next pool. For
    /// programs that take long to start.
    pub keep: bool,
}

impl Program {
    /// Returns this program itself, with the arguments that lead it to the point where it becomes a worker.
    pub fn own() -> Self {
        Self { file: OWN_EXECUTABLE.into(), arguments: farpool_worker::arguments(), keep: false }
    }
}
