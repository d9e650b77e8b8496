//! A file to which tasks append lines: what ran, how often, where. It survives workers.

use std::fmt::Display;
use std::fs::{self, OpenOptions};
use std::io::Write;

use crate::runner;

/// The file as the client sees it; tasks get its path.
pub(crate) struct Log(String);

impl Log {
    /// Creates an empty file in the case's directory.
    pub(crate) fn new(name: &str) -> Log {
        let path = runner::scratch().join(name);
        fs::write(&path, "").expect("cannot write the case's directory");
        Log(path.into_os_string().into_string().expect("the path is not UTF-8"))
    }

    /// Returns the path, for tasks.
    pub(crate) fn path(&self) -> String {
        self.0.clone()
    }

    /// Returns all lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        fs::read_to_string(&self.0).expect("cannot read the log").lines().map(str::to_owned).collect()
    }

    /// Returns how often this line was written.
    pub(crate) fn count(&self, line: impl Display) -> usize {
        let line = line.to_string();
        self.lines().iter().filter(|other| **other == line).count()
    }
}

/// Appends a line in one write, so that lines of several processes do not mix.
pub(crate) fn note(path: &str, line: impl Display) {
    let mut file = OpenOptions::new().append(true).open(path).expect("cannot read the log");
    file.write_all(format!("{line}\n").as_bytes()).expect("cannot write the log");
}
