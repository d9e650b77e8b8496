//! A cluster as operators see it.

use std::process::Command;
use std::time::{Duration, Instant};

use farpool_testkit::binaries;
use serde_json::Value;

use crate::cluster::Cluster;

/// How long a change may take to become visible.
const PATIENCE: Duration = Duration::from_secs(20);

/// Returns the output of `farpool status --json`.
pub(crate) fn status(cluster: &Cluster) -> Value {
    let output = farpool(cluster, &["status", "--json"]);
    serde_json::from_str(&output).expect("the output is not JSON")
}

/// Runs `farpool` with these arguments and returns its output.
pub(crate) fn farpool(cluster: &Cluster, arguments: &[&str]) -> String {
    let mut command = Command::new(binaries::farpool());
    let output =
        command.args(arguments).args(["--address", cluster.address()]).output().expect("farpool was not built");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("the output is not UTF-8")
}

/// Returns the agents in a status.
pub(crate) fn agents(status: &Value) -> &[Value] {
    status["agents"].as_array().map_or(&[], Vec::as_slice)
}

/// Waits until the condition is true for the status.
#[track_caller]
pub(crate) fn until(cluster: &Cluster, condition: impl Fn(&Value) -> bool) {
    let start = Instant::now();
    loop {
        let status = status(cluster);
        if condition(&status) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "the condition never becomes true: {status}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Returns whether there is no pool, no job, and nothing at agents or in the coordinator's memory.
pub(crate) fn nothing_is_left(status: &Value) -> bool {
    let empty = |key: &str| status[key].as_array().is_some_and(Vec::is_empty);
    empty("pools")
        && empty("jobs")
        && status["held_bytes"] == 0
        && agents(status).iter().all(|agent| agent["chunks"] == 0)
}
