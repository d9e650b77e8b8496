//! Clusters for tests that leave them unchanged. One test uses a cluster at a time.

use std::sync::Mutex;
use std::time::Duration;

use farpool_testkit::processes::{self, Process};
use farpool_testkit::waiting;
use serde_json::Value;

use crate::deploy::script::Local;
use crate::support::farpool;

/// How long processes of a test may take to exit.
const PATIENCE: Duration = Duration::from_secs(10);
/// Unused clusters. They end with this process, which holds their stdin open.
static IDLE: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

/// A cluster that a test uses. Dropping it checks that nothing of the test is left.
pub(crate) struct Shared(Option<Kept>);

struct Kept {
    agents: usize,
    slots: usize,
    local: Local,
}

impl Shared {
    /// Returns a cluster with this many agents (node1 and so on), each with this many slots.
    pub(crate) fn of(agents: usize, slots: usize) -> Shared {
        let mut idle = IDLE.lock().expect("a thread panicked while it held the lock");
        let at = idle.iter().position(|kept| (kept.agents, kept.slots) == (agents, slots));
        let kept = at.map(|at| idle.swap_remove(at));
        drop(idle);
        Shared(Some(kept.unwrap_or_else(|| {
            let local = Local::start_without_a_folder(&[&agents.to_string(), "--slots", &slots.to_string()]);
            Kept { agents, slots, local }
        })))
    }

    /// Returns the address for clients.
    pub(crate) fn address(&self) -> &str {
        &self.0.as_ref().expect("the cluster is gone").local.address
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let kept = self.0.take().expect("the cluster was dropped twice");
        // After a failed test, the cluster is not used again.
        if !std::thread::panicking() {
            waiting::until_gone(PATIENCE, || workers(&kept.local));
            waiting::until(|| is_at_rest(&kept.local));
            IDLE.lock().expect("a thread panicked while it held the lock").push(kept);
        }
    }
}

/// Returns the processes that its agents have started.
fn workers(local: &Local) -> Vec<Process> {
    let daemons = processes::tagged(&local.tag);
    let is_agent = |pid: u32| daemons.iter().any(|daemon| daemon.pid == pid && daemon.name == "farpool-agent");
    processes::every().filter(|process| is_agent(process.parent)).collect()
}

/// Returns whether its coordinator has no pool and no job.
fn is_at_rest(local: &Local) -> bool {
    let done = farpool(["--address", &*local.address, "status", "--json"]).run();
    let status: Value = serde_json::from_slice(&done.stdout).expect("the output is not JSON");
    ["pools", "jobs"].iter().all(|what| status[what].as_array().is_some_and(Vec::is_empty))
}
