//! A named pipe on which tasks report to the test that started them, which waits for their lines.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};

use nix::sys::stat::Mode;

use crate::log;
use crate::runner;

/// The test's end; tasks are given its path.
pub(crate) struct Line {
    path: String,
    reader: BufReader<File>,
}

impl Line {
    /// One of this name, in the case's directory.
    pub(crate) fn new(name: &str) -> Line {
        let path = runner::scratch().join(name);
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("a named pipe can be made");
        // Open for writing too, so that it never comes to its end.
        let file = OpenOptions::new().read(true).write(true).open(&path).expect("it was just made");
        let path = path.into_os_string().into_string().expect("paths of tests are text");
        Line { path, reader: BufReader::new(file) }
    }

    /// For tasks.
    pub(crate) fn path(&self) -> String {
        self.path.clone()
    }

    /// Waits for the next line.
    pub(crate) fn next(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("a pipe can be read");
        line.truncate(line.trim_end().len());
        line
    }

    /// Waits for the next line, which is a number.
    pub(crate) fn next_number(&mut self) -> u32 {
        let line = self.next();
        line.parse().unwrap_or_else(|_| panic!("{line:?} is a number"))
    }
}

/// Writes a line, in a task.
pub(crate) fn report(path: &str, line: impl Display) {
    log::note(path, line);
}
