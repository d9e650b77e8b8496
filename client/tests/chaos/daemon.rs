//! One of the processes: a daemon, or a client. What it says is in a file.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::processes;

/// How long anything may take that takes some milliseconds on a quiet machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Dropping it kills it.
pub(crate) struct Daemon {
    name: String,
    child: Child,
    /// Its end is what clients wait for.
    stdin: Option<ChildStdin>,
    log: PathBuf,
}

impl Daemon {
    /// Starts it; what it says goes behind what others of this name have said.
    pub(crate) fn start(name: &str, mut command: Command, folder: &Path) -> Daemon {
        let log = folder.join(format!("{name}.log"));
        let file: File =
            OpenOptions::new().create(true).append(true).open(&log).expect("the test's folder can be written");
        let stdout = file.try_clone().expect("a file can be opened twice");
        let child = command.stdin(Stdio::piped()).stdout(stdout).stderr(file).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let stdin = child.stdin.take();
        Daemon { name: name.to_owned(), child, stdin, log }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // An error means that it has ended, which is noticed elsewhere.
        let _ = processes::send(self.pid(), signal);
    }

    /// Ends its input.
    pub(crate) fn tell_to_end(&mut self) {
        self.stdin = None;
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for its end, but no longer than this.
    pub(crate) fn wait(&mut self, patience: Duration) -> Result<ExitStatus, String> {
        let start = Instant::now();
        loop {
            match self.ended() {
                Some(status) => return Ok(status),
                None if start.elapsed() > patience => {
                    return Err(format!("{} is still there after {patience:?}; it said:\n{}", self.name, self.said()));
                }
                None => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Waits until it has said these words.
    pub(crate) fn wait_for(&mut self, words: &str) {
        let start = Instant::now();
        while !self.has_said(words) {
            let fine = self.ended().is_none() && start.elapsed() < PATIENCE;
            assert!(fine, "{} does not come up; it said:\n{}", self.name, self.said());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether one of this name has ever said these words.
    pub(crate) fn has_said(&self, words: &str) -> bool {
        fs::read_to_string(&self.log).is_ok_and(|log| log.contains(words))
    }

    /// The last of it.
    pub(crate) fn said(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log[log.len().saturating_sub(4 << 10)..]).into_owned();
        text.lines().map(|line| format!("    {line}\n")).collect()
    }

    pub(crate) fn kill(&mut self) {
        // Errors mean that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
