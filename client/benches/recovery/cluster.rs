//! A cluster for one run: a coordinator and three agents, each a process.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use farpool::Pool;
use farpool_testkit::binaries;
use farpool_testkit::cable::Cable;
use farpool_testkit::cluster::{ADDRESS, CONNECTED, LISTENS};
use farpool_testkit::daemon::Daemon;
use farpool_testkit::port::Port;
use farpool_testkit::processes::{self, Process, TAG};
use nix::sys::signal::Signal;

pub(crate) const AGENTS: usize = 3;
pub(crate) const SLOTS: usize = 2;

/// A running cluster. Dropping it kills its daemons.
pub(crate) struct Cluster {
    pub(crate) folder: PathBuf,
    coordinator: Daemon,
    pub(crate) agents: Vec<Daemon>,
    /// Proxies between the coordinator and each agent, and its clients.
    pub(crate) cables: Vec<Cable>,
    port: Port,
}

impl Cluster {
    pub(crate) fn start() -> Cluster {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let folder = programs().join(format!("run-{run}"));
        fs::create_dir_all(&folder).expect("the folder for temporary files exists");
        let port = Port::reserve();
        let mut coordinator = start_coordinator(&port);
        coordinator.wait_for(LISTENS);
        let cables: Vec<Cable> = (0..=AGENTS).map(|_| Cable::to(port.address())).collect();
        let agent = |number: usize| {
            let mut command = daemon(&binaries::agent());
            command.args(["--coordinator", &cables[number].address(), "--slots", &SLOTS.to_string(), "--programs"]);
            command.arg(programs().join("agents"));
            Daemon::start(&format!("agent-{number}"), command)
        };
        let mut agents: Vec<Daemon> = (0..AGENTS).map(agent).collect();
        agents.iter_mut().for_each(|agent| {
            agent.wait_for(CONNECTED);
        });
        Cluster { folder, coordinator, agents, cables, port }
    }

    /// Opens a pool and waits until all its workers have started.
    pub(crate) fn pool(&self) -> Pool {
        let pool = Pool::builder().address(self.cables[AGENTS].address()).build().expect("cannot open the pool");
        let start = Instant::now();
        while self.workers().len() < AGENTS * SLOTS {
            let naps = vec![20; 2 * AGENTS * SLOTS];
            pool.job(|nap| std::thread::sleep(Duration::from_millis(nap)))
                .chunksize(1)
                .map(naps)
                .expect("the job failed");
            assert!(start.elapsed() < Duration::from_secs(20), "there are too few workers");
        }
        pool
    }

    pub(crate) fn address(&self) -> String {
        self.cables[AGENTS].address()
    }

    /// Kills and restarts the coordinator, as if its machine lost power.
    pub(crate) fn restart_coordinator(&mut self) {
        self.coordinator.kill();
        self.coordinator = start_coordinator(&self.port);
    }

    /// Returns all workers of all agents.
    pub(crate) fn workers(&self) -> Vec<Process> {
        let agents: Vec<u32> = self.agents.iter().map(Daemon::pid).collect();
        let every: Vec<Process> = processes::every().filter(|process| process.state != 'Z').collect();
        let fork_servers: Vec<u32> =
            every.iter().filter(|process| agents.contains(&process.parent)).map(|process| process.pid).collect();
        every.into_iter().filter(|process| fork_servers.contains(&process.parent)).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for agent in &mut self.agents {
            agent.signal(Signal::SIGCONT);
            agent.signal(Signal::SIGTERM);
        }
        self.agents.clear();
        self.coordinator.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Returns the program folder of all runs.
fn programs() -> PathBuf {
    std::env::temp_dir().join(format!("farpool-recovery-{}", std::process::id()))
}

/// Deletes the files of all runs.
pub(crate) fn clean_up() {
    let _ = fs::remove_dir_all(programs());
}

fn start_coordinator(port: &Port) -> Daemon {
    let mut command = daemon(&binaries::coordinator());
    command.args(["--listen", &port.address().to_string(), "--programs"]).arg(programs().join("coordinator"));
    Daemon::start("coordinator", command)
}

fn daemon(program: &std::path::Path) -> Command {
    let mut command = Command::new(program);
    command.env_remove(ADDRESS).env_remove(TAG).stdin(Stdio::null());
    command
}
