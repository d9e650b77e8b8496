//! The executable that workers run.

use std::ffi::OsString;
use std::path::PathBuf;

use farpool_link::message::OWN_EXECUTABLE;

/// What a pool's workers run.
#[derive(Clone, Debug)]
pub struct Program {
    /// The executable's file.
    pub file: PathBuf,
    /// Its arguments; the first is the name that it is shown under.
    pub arguments: Vec<OsString>,
}

impl Program {
    /// This program itself, with the arguments that bring it to where it becomes a worker.
    pub fn own() -> Self {
        Self { file: OWN_EXECUTABLE.into(), arguments: farpool_worker::arguments() }
    }
}
