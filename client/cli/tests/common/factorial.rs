//! The example `factorial`, run as a newcomer does.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::binaries;

/// Its executable. `cargo test` has built it; `cargo test --test ...` builds no examples.
pub(crate) fn factorial() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let example = binaries::folder().join("examples/factorial");
        let sources = binaries::newest_source(&["proto", "coordinator", "agent", "client/src", "client/examples"]);
        let what = ["-p", "farpool-examples", "--example", "factorial"];
        binaries::build(std::slice::from_ref(&example), sources, &what);
        example
    })
}

/// What of its output does not depend on the time that it took.
pub(crate) fn results(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    text.lines().filter(|line| !line.starts_with("wall time")).map(|line| format!("{line}\n")).collect()
}

/// What it prints on one machine.
pub(crate) fn on_this_machine() -> String {
    let output = Command::new(factorial()).env_remove("FARPOOL_ADDRESS").output().expect("it was built");
    assert!(output.status.success(), "{output:?}");
    let results = results(&output.stdout);
    assert!(results.starts_with("finished 100 calculations\n100! = 9332621544394415"), "{results}");
    results
}
