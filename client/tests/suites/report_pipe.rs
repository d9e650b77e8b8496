//! A named pipe through which tasks report lines to the test.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};

use nix::sys::stat::Mode;

use crate::log;
use crate::runner;

/// The test's end of the pipe; tasks get its path.
pub(crate) struct ReportPipe {
    path: String,
    reader: BufReader<File>,
}

impl ReportPipe {
    /// Creates a pipe with this name in the case's directory.
    pub(crate) fn new(name: &str) -> ReportPipe {
        let path = runner::scratch().join(name);
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("cannot create a named pipe");
        // Also open for writing, so that reading never reaches the end.
        let file = OpenOptions::new().read(true).write(true).open(&path).expect("cannot open the pipe");
        let path = path.into_os_string().into_string().expect("the path is not UTF-8");
        ReportPipe { path, reader: BufReader::new(file) }
    }

    /// Returns the path, for tasks.
    pub(crate) fn path(&self) -> String {
        self.path.clone()
    }

    /// Waits for the next line.
    pub(crate) fn next(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("cannot read a pipe");
        line.truncate(line.trim_end().len());
        line
    }

    /// Waits for the next line and parses it as a number.
    pub(crate) fn next_number(&mut self) -> u32 {
        let line = self.next();
        line.parse().unwrap_or_else(|_| panic!("{line:?} is not a number"))
    }
}

/// Writes a line from a task.
pub(crate) fn report(path: &str, line: impl Display) {
    log::note(path, line);
}
