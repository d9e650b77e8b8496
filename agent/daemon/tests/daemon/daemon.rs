//! The daemon's process.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use farpool_testkit::daemon::{self, PATIENCE};
use nix::sys::signal::Signal;

/// A running daemon, killed on drop.
pub(crate) struct Daemon(daemon::Daemon);

/// How a daemon ended, and its output.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
}

impl Daemon {
    /// Starts a daemon that keeps programs in `programs`.
    pub(crate) fn start(coordinator: &str, programs: &Path, arguments: &[&str]) -> Daemon {
        let programs = programs.to_str().expect("the text is not UTF-8");
        let own = ["--coordinator", coordinator, "--programs", programs, "--host", "here"];
        Daemon::with(&[&own, arguments].concat())
    }

    pub(crate) fn with(arguments: &[&str]) -> Daemon {
        Daemon::with_variables(&[], arguments)
    }

    /// Starts a daemon with these additional variables.
    pub(crate) fn with_variables(variables: &[(&str, &str)], arguments: &[&str]) -> Daemon {
        let mut command = Command::new(env!("CARGO_BIN_EXE_farpool-agent"));
        command.args(arguments);
        Daemon::spawn(command, variables)
    }

    /// Starts a daemon with this file size limit.
    pub(crate) fn with_file_limit(bytes: u64, coordinator: &str, programs: &Path) -> Daemon {
        let mut command = Command::new("prlimit");
        command.arg(format!("--fsize={bytes}")).arg(env!("CARGO_BIN_EXE_farpool-agent"));
        command.args(["--coordinator", coordinator, "--host", "here", "--programs"]).arg(programs);
        Daemon::spawn(command, &[])
    }

    pub(crate) fn spawn(mut command: Command, variables: &[(&str, &str)]) -> Daemon {
        // Without the variables of the tests' own environment, and with one that workers must not see.
        command.env_clear().env("TMPDIR", std::env::temp_dir()).env("SECRET", "of the daemon");
        command.envs(variables.iter().copied());
        Daemon(daemon::Daemon::start("the daemon", command))
    }

    /// Waits for a log line with these words, and returns it.
    pub(crate) async fn wait_for_line(&mut self, words: &str) -> String {
        self.0.wait_for_line(words).await
    }

    /// Returns how many log lines had these words so far.
    pub(crate) fn count_lines(&mut self, words: &str) -> usize {
        self.0.count_lines(words)
    }

    /// Returns its numbers of voluntary and involuntary context switches.
    fn switches(&self) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.pid())).expect("the agent has exited");
        status.lines().filter(|line| line.contains("ctxt_switches")).collect()
    }

    /// Waits until it is idle.
    pub(crate) async fn wait_until_idle(&self) {
        let mut before = self.switches();
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let now = self.switches();
            if now == before {
                return;
            }
            before = now;
        }
    }

    /// Returns the owner of the file with its environment: root, if no other process may read it.
    pub(crate) fn owner_of_environment(&self) -> u32 {
        let environment = std::fs::metadata(format!("/proc/{}/environ", self.0.pid()));
        std::os::unix::fs::MetadataExt::uid(&environment.expect("the agent has exited"))
    }

    /// Returns its memory in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let pages = std::fs::read_to_string(format!("/proc/{}/statm", self.0.pid())).expect("the agent has exited");
        4096 * pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("not a number of pages")
    }

    /// Returns the largest size of its address space in bytes.
    pub(crate) fn largest_size(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.pid())).expect("the agent has exited");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmPeak:")?.trim().strip_suffix(" kB"));
        1024 * peak.and_then(|kibibytes| kibibytes.parse::<u64>().ok()).expect("not a number of KiB")
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        assert!(self.0.ended().is_none(), "the daemon runs");
        self.0.signal(signal);
    }

    /// Waits until it ends.
    pub(crate) async fn ended(mut self) -> Ended {
        self.0.wait_for_eof().await;
        // Its stderr is closed, so this does not take long.
        let status = self.0.wait(PATIENCE).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert_eq!(status.signal(), None, "{}", self.0.output());
        Ended { code: status.code(), output: self.0.output().trim_end().to_owned() }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill();
        if std::thread::panicking() {
            eprintln!("the daemon's output:\n{}", self.0.output());
        }
    }
}
