//! A coordinator and its agents on this machine, as processes of their own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::binaries;

/// They end when this is dropped.
pub(crate) struct Cluster {
    agents: Vec<Daemon>,
    coordinator: Daemon,
    /// Where the daemons keep programs.
    programs: PathBuf,
}

impl Cluster {
    /// So many agents, each with so many slots.
    pub(crate) fn start(agents: usize, slots: usize) -> Cluster {
        binaries::make();
        let programs = std::env::temp_dir().join(format!("farpool-bench-programs-{}", std::process::id()));
        let mut command = daemon(&binaries::coordinator());
        command.args(["--listen", "127.0.0.1:0", "--programs"]).arg(programs.join("coordinator"));
        let coordinator = Daemon::start(command, "listening address=");
        let agent = |number: usize| {
            let mut command = daemon(&binaries::agent());
            command.args(["--coordinator", &coordinator.said, "--slots", &slots.to_string(), "--programs"]);
            command.arg(programs.join(format!("agent-{number}")));
            Daemon::start(command, "connected to ")
        };
        Cluster { agents: (0..agents).map(agent).collect(), coordinator, programs }
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> &str {
        &self.coordinator.said
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.agents.clear();
        let _ = std::fs::remove_dir_all(&self.programs);
    }
}

struct Daemon {
    child: Child,
    /// The end of the line that said that it is ready.
    said: String,
}

fn daemon(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_remove("FARPOOL_ADDRESS").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

impl Daemon {
    /// Returns when it has written a line with these words.
    fn start(mut command: Command, words: &str) -> Daemon {
        let mut child = command.spawn().expect("the daemons were built");
        let mut lines = BufReader::new(child.stderr.take().expect("it is a pipe")).lines().map_while(Result::ok);
        let mut log = String::new();
        let said = lines.by_ref().find_map(|line| {
            log += &format!("{line}\n");
            Some(line.split_once(words)?.1.to_owned())
        });
        let said = said.unwrap_or_else(|| panic!("a daemon has ended before it was ready:\n{log}"));
        // So that it never waits for somebody to read what it writes; and what comes now may explain a failure.
        std::thread::spawn(move || lines.for_each(|line| eprintln!("{line}")));
        Daemon { child, said }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < Duration::from_secs(1) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
