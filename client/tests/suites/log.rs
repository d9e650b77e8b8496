//! A file to which tasks append lines: what was run, how often, where. It outlives any worker.

use std::fmt::Display;
use std::fs::{self, OpenOptions};
use std::io::Write;

use crate::runner;

/// Such a file, seen from the client; tasks are given its path.
pub(crate) struct Log(String);

impl Log {
    /// An empty one, in the case's directory.
    pub(crate) fn new(name: &str) -> Log {
        let path = runner::scratch().join(name);
        fs::write(&path, "").expect("the case's directory can be written");
        Log(path.into_os_string().into_string().expect("paths of tests are text"))
    }

    /// For tasks.
    pub(crate) fn path(&self) -> String {
        self.0.clone()
    }

    /// All lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        fs::read_to_string(&self.0).expect("it was written before").lines().map(str::to_owned).collect()
    }

    /// How often this line was written.
    pub(crate) fn count(&self, line: impl Display) -> usize {
        let line = line.to_string();
        self.lines().iter().filter(|other| **other == line).count()
    }
}

/// Appends a line, in one write: lines of several processes do not mix.
pub(crate) fn note(path: &str, line: impl Display) {
    let mut file = OpenOptions::new().append(true).open(path).expect("the log is there");
    file.write_all(format!("{line}\n").as_bytes()).expect("the log can be written");
}
