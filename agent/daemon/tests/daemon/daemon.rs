//! The daemon's process.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use farpool_testkit::daemon::{self, PATIENCE};
use nix::sys::signal::Signal;

/// A running daemon. Killed when it is dropped.
pub(crate) struct Daemon(daemon::Daemon);

/// How a daemon ended, and what it had said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) said: String,
}

impl Daemon {
    /// Starts a daemon that keeps programs in `programs`.
    pub(crate) fn start(coordinator: &str, programs: &Path, arguments: &[&str]) -> Daemon {
        let programs = programs.to_str().expect("text");
        let own = ["--coordinator", coordinator, "--programs", programs, "--host", "here"];
        Daemon::with(&[&own, arguments].concat())
    }

    pub(crate) fn with(arguments: &[&str]) -> Daemon {
        Daemon::seeing(&[], arguments)
    }

    /// One that sees these variables too.
    pub(crate) fn seeing(variables: &[(&str, &str)], arguments: &[&str]) -> Daemon {
        let mut command = Command::new(env!("CARGO_BIN_EXE_farpool-agent"));
        command.args(arguments);
        Daemon::spawn(command, variables)
    }

    /// One that may have files of so many bytes.
    pub(crate) fn with_file_limit(bytes: u64, coordinator: &str, programs: &Path) -> Daemon {
        let mut command = Command::new("prlimit");
        command.arg(format!("--fsize={bytes}")).arg(env!("CARGO_BIN_EXE_farpool-agent"));
        command.args(["--coordinator", coordinator, "--host", "here", "--programs"]).arg(programs);
        Daemon::spawn(command, &[])
    }

    pub(crate) fn spawn(mut command: Command, variables: &[(&str, &str)]) -> Daemon {
        // Not what somebody has set who runs the tests; and something that workers must not see.
        command.env_clear().env("TMPDIR", std::env::temp_dir()).env("SECRET", "of the daemon");
        command.envs(variables.iter().copied());
        Daemon(daemon::Daemon::start("the daemon", command))
    }

    /// Waits until it says something with these words.
    pub(crate) async fn says(&mut self, words: &str) -> String {
        self.0.says(words).await
    }

    /// How often it has said these words, so far.
    pub(crate) fn times_said(&mut self, words: &str) -> usize {
        self.0.times_said(words)
    }

    /// How often it has gone to sleep, or was made to.
    fn switches(&self) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.pid())).expect("it runs");
        status.lines().filter(|line| line.contains("ctxt_switches")).collect()
    }

    /// Waits until it does nothing any more.
    pub(crate) async fn sleeps(&self) {
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

    /// Whose file is what it shows of its environment: that of a process which nobody may look into is root's.
    pub(crate) fn owner_of_environment(&self) -> u32 {
        let environment = std::fs::metadata(format!("/proc/{}/environ", self.0.pid()));
        std::os::unix::fs::MetadataExt::uid(&environment.expect("it runs"))
    }

    /// Bytes of memory that it has.
    pub(crate) fn memory(&self) -> u64 {
        let pages = std::fs::read_to_string(format!("/proc/{}/statm", self.0.pid())).expect("it runs");
        4096 * pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number of pages")
    }

    /// Bytes of its address space, when it was largest.
    pub(crate) fn largest_size(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.pid())).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmPeak:")?.trim().strip_suffix(" kB"));
        1024 * peak.and_then(|kibibytes| kibibytes.parse::<u64>().ok()).expect("a number of KiB")
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        assert!(self.0.ended().is_none(), "it is there");
        self.0.signal(signal);
    }

    /// Waits until it ends.
    pub(crate) async fn ended(mut self) -> Ended {
        self.0.falls_silent().await;
        // Its stderr is closed: this does not take long.
        let status = self.0.wait(PATIENCE).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert_eq!(status.signal(), None, "{}", self.0.said());
        Ended { code: status.code(), said: self.0.said().trim_end().to_owned() }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill();
        if std::thread::panicking() {
            eprintln!("the daemon had said:\n{}", self.0.said());
        }
    }
}
