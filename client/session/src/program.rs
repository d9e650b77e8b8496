//! The executable that workers run.

use std::env;
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
    /// The directory where it starts, on the hosts of a cluster that have it; on others, and if `None`, it starts in an empty one that is
    /// removed with the pool. On this machine it starts where this program is.
    pub directory: Option<PathBuf>,
}

impl Program {
    /// Returns this program itself, with the arguments that lead it to the point where it becomes a worker.
    pub fn own() -> Self {
        Self {
            file: OWN_EXECUTABLE.into(),
            arguments: farpool_worker::arguments(),
            keep: false,
            directory: env::current_dir().ok(),
        }
    }
}
