//! What operators see of a case's cluster.

use std::process::Command;
use std::time::{Duration, Instant};

use farpool_testkit::binaries;
use serde_json::Value;

use crate::cluster::Cluster;

/// How long anything may take to be seen.
const PATIENCE: Duration = Duration::from_secs(20);

/// `farpool status --json`.
pub(crate) fn status(cluster: &Cluster) -> Value {
    let output = farpool(cluster, &["status", "--json"]);
    serde_json::from_str(&output).expect("it is JSON")
}

/// What the command prints.
pub(crate) fn farpool(cluster: &Cluster, arguments: &[&str]) -> String {
    let mut command = Command::new(binaries::farpool());
    let output = command.args(arguments).args(["--address", cluster.address()]).output().expect("it was built");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("it is text")
}

/// The agents in a status.
pub(crate) fn agents(status: &Value) -> &[Value] {
    status["agents"].as_array().map_or(&[], Vec::as_slice)
}

/// Waits until operators see that it is so.
#[track_caller]
pub(crate) fn until(cluster: &Cluster, is_so: impl Fn(&Value) -> bool) {
    let start = Instant::now();
    loop {
        let status = status(cluster);
        if is_so(&status) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "it does not become so: {status}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// No pool, no job, and nothing at agents or in the coordinator's memory.
pub(crate) fn nothing_is_left(status: &Value) -> bool {
    let empty = |key: &str| status[key].as_array().is_some_and(Vec::is_empty);
    empty("pools")
        && empty("jobs")
        && status["held_bytes"] == 0
        && agents(status).iter().all(|agent| agent["chunks"] == 0)
}
