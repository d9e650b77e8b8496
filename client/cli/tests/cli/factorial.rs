//! Runs the example `factorial` as a new user would.

use std::path::PathBuf;
use std::process::Command;

use farpool_testkit::binaries;

/// Returns its executable.
pub(crate) fn factorial() -> PathBuf {
    let made_of = ["proto", "coordinator", "agent", "client/src", "client/session", "client/worker", "client/examples"];
    binaries::example("farpool-examples", "factorial", &made_of)
}

/// Returns the part of its output that does not depend on time.
pub(crate) fn results(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    text.lines().filter(|line| !line.starts_with("wall time")).map(|line| format!("{line}\n")).collect()
}

/// Returns what it prints on one machine.
pub(crate) fn on_this_machine() -> String {
    let output = Command::new(factorial()).env_remove("FARPOOL_ADDRESS").output().expect("the example was not built");
    assert!(output.status.success(), "{output:?}");
    let results = results(&output.stdout);
    assert!(results.starts_with("finished 100 calculations\n100! = 9332621544394415"), "{results}");
    results
}
