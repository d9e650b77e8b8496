//! A real cluster on this machine: a coordinator and agents as processes of their own.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::processes::{self, Process, TAG};
use crate::{binaries, runner};

/// Tells programs where the cluster is, and cases that they run on one.
pub(crate) const ADDRESS: &str = "FARPOOL_ADDRESS";
/// As many agents has the cluster that a case runs on.
pub(crate) const AGENTS: usize = 3;
/// And as many slots each of them.
pub(crate) const SLOTS: usize = 4;
/// How long a daemon may take to come up, and to go.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether this process is a case, or one of its tasks, that runs on a cluster.
pub(crate) fn is_here() -> bool {
    env::var_os(ADDRESS).is_some()
}

/// A coordinator and its agents. Dropping it kills what is left of them.
pub(crate) struct Cluster {
    coordinator: Daemon,
    agents: Vec<Daemon>,
    /// Where the daemons keep programs.
    programs: PathBuf,
    tag: String,
    /// The coordinator's.
    arguments: Vec<String>,
}

impl Cluster {
    /// A coordinator on a port of its own, with these further arguments and without an agent. Its processes carry the tag;
    /// programs are kept in this directory.
    pub(crate) fn start(tag: &str, programs: &Path, arguments: &[&str]) -> Cluster {
        binaries::make();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let coordinator = Daemon::start(coordinator(tag, programs, "127.0.0.1:0", &arguments), "listening address=");
        Cluster { coordinator, agents: Vec::new(), programs: programs.to_owned(), tag: tag.to_owned(), arguments }
    }

    /// What the cases of a suite run on. All clusters of the suite share what they keep of programs.
    pub(crate) fn of_case(tag: &str) -> Cluster {
        let mut cluster = Cluster::start(&format!("{tag}.daemons"), &suite_programs(), &[]);
        let agents: Vec<_> = (0..AGENTS).map(|_| cluster.launch(cluster.address(), SLOTS, &[])).collect();
        cluster.agents.extend(agents.into_iter().map(Starting::wait));
        cluster
    }

    /// One for this case alone, with programs of its own: nobody has any yet.
    pub(crate) fn empty() -> Cluster {
        Self::empty_with(&[])
    }

    /// The same; these are arguments of the coordinator's.
    pub(crate) fn empty_with(arguments: &[&str]) -> Cluster {
        let tag = own_cluster(&processes::own_tag());
        Cluster::start(&tag, &runner::scratch().join("programs"), arguments)
    }

    /// Adds an agent with so many slots and these further arguments; returns when it is connected.
    pub(crate) fn add_agent(&mut self, slots: usize, arguments: &[&str]) -> u32 {
        let address = self.address().to_owned();
        self.add_agent_through(&address, slots, arguments)
    }

    /// The same; its coordinator is at another address.
    pub(crate) fn add_agent_through(&mut self, address: &str, slots: usize, arguments: &[&str]) -> u32 {
        let agent = self.launch(address, slots, arguments).wait();
        let pid = agent.pid();
        self.agents.push(agent);
        pid
    }

    /// Kills the coordinator, as a machine does that loses its power.
    pub(crate) fn kill_coordinator(&mut self) {
        self.coordinator.kill();
    }

    /// Starts it again, at the same address.
    pub(crate) fn start_coordinator(&mut self) {
        let address = self.address().trim_start_matches("http://").to_owned();
        let command = coordinator(&self.tag, &self.programs, &address, &self.arguments);
        self.coordinator = Daemon::start(command, "listening address=");
    }

    /// One after the other.
    pub(crate) fn restart_coordinator(&mut self) {
        self.kill_coordinator();
        self.start_coordinator();
    }

    fn launch(&self, address: &str, slots: usize, arguments: &[&str]) -> Starting {
        let mut command = daemon(&binaries::agent(), &self.tag);
        command.args(["--coordinator", address, "--slots", &slots.to_string(), "--programs"]);
        command.arg(self.programs.join("agents")).args(arguments);
        Daemon::launch(command, "connected to ")
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> &str {
        &self.coordinator.said
    }

    /// The coordinator's process id.
    pub(crate) fn coordinator(&self) -> u32 {
        self.coordinator.pid()
    }

    /// Sends a signal to an agent, or to the coordinator, which is known by its pid.
    pub(crate) fn signal(&self, pid: u32, signal: Signal) {
        processes::send(pid, signal).expect("a daemon of this cluster runs");
    }

    /// Waits until this agent has ended.
    pub(crate) fn wait_for_agent(&mut self, pid: u32) {
        let at = self.agents.iter().position(|agent| agent.pid() == pid).expect("it is an agent of this cluster");
        self.agents.swap_remove(at).wait();
    }

    /// What runs at the agents: fork servers, at least.
    pub(crate) fn workers(&self) -> Vec<Process> {
        let agents: Vec<u32> = self.agents.iter().map(Daemon::pid).collect();
        processes::every().filter(|process| agents.contains(&process.parent)).collect()
    }

    /// Ends all daemons as an operator would, after a case that should have left no worker. Returns what is wrong.
    pub(crate) fn stop(mut self) -> Result<(), String> {
        let mut wrong = String::new();
        let start = Instant::now();
        while !self.workers().is_empty() && start.elapsed() < Duration::from_secs(1) {
            thread::sleep(Duration::from_millis(2));
        }
        let left = self.workers();
        if !left.is_empty() {
            wrong += &format!("after a second there are still workers:\n{}", processes::list(&left));
        }
        for pid in self.agents.iter().map(Daemon::pid).chain([self.coordinator()]) {
            let _ = processes::send(pid, Signal::SIGTERM);
        }
        for mut daemon in self.agents.drain(..) {
            wrong += &daemon.end("agent");
        }
        wrong += &self.coordinator.end("coordinator");
        let left = processes::tagged(&self.tag);
        if !left.is_empty() {
            wrong += &format!("the daemons have left processes:\n{}", processes::list(&left));
            processes::kill(&left);
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

/// The tag of the clusters that the case with this tag starts itself.
pub(crate) fn own_cluster(case: &str) -> String {
    format!("{case}.own")
}

/// Programs that were sent once need not be sent again in the same suite.
fn suite_programs() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("programs")
}

fn coordinator(tag: &str, programs: &Path, listen: &str, arguments: &[String]) -> Command {
    let mut command = daemon(&binaries::coordinator(), tag);
    command.args(["--listen", listen, "--programs"]).arg(programs.join("coordinator")).args(arguments);
    command
}

fn daemon(program: &Path, tag: &str) -> Command {
    let mut command = Command::new(program);
    command.env(TAG, tag).env_remove(ADDRESS).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// A running daemon. Dropping it kills it.
struct Daemon {
    child: Child,
    /// What its first important line says at its end.
    said: String,
    log: Arc<Mutex<String>>,
}

/// A daemon that has not said yet that it is ready.
struct Starting {
    child: Child,
    ready: mpsc::Receiver<String>,
    log: Arc<Mutex<String>>,
}

impl Daemon {
    fn start(command: Command, words: &'static str) -> Daemon {
        Self::launch(command, words).wait()
    }

    /// Starts it; it is ready when it writes a line with these words.
    fn launch(mut command: Command, words: &'static str) -> Starting {
        let mut child = command.spawn().expect("the daemons were built");
        let stderr = BufReader::new(child.stderr.take().expect("it is a pipe"));
        let (tell, ready) = mpsc::channel();
        let log = Arc::new(Mutex::new(String::new()));
        let lines = Arc::clone(&log);
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once(words) {
                    let _ = tell.send(rest.to_owned());
                }
                let mut log = lines.lock().expect("nobody panics with it");
                log.push_str(&line);
                log.push('\n');
            }
        });
        Starting { child, ready, log }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait(mut self) {
        let _status = self.child.wait().expect("a child can be waited for");
    }

    /// Waits for its end, after it was told; returns what is wrong with it.
    fn end(&mut self, name: &str) -> String {
        let start = Instant::now();
        loop {
            match self.child.try_wait().expect("a child can be waited for") {
                Some(status) if status.success() => return String::new(),
                // A case may have killed it.
                Some(_) if self.log().contains("SIGTERM") => return String::new(),
                Some(status) => return format!("the {name} ended with {status}; it said:\n{}", self.log()),
                None if start.elapsed() > PATIENCE => {
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                    return format!("the {name} did not end within {PATIENCE:?}; it said:\n{}", self.log());
                }
                None => thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn log(&self) -> String {
        self.log.lock().expect("nobody panics with it").clone()
    }
}

impl Starting {
    fn wait(self) -> Daemon {
        let Starting { mut child, ready, log } = self;
        match ready.recv_timeout(PATIENCE) {
            Ok(said) => Daemon { child, said, log },
            Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("a daemon did not come up; it said:\n{}", log.lock().expect("nobody panics with it"));
            }
        }
    }
}

impl Daemon {
    fn kill(&mut self) {
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
