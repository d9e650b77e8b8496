//! The example `factorial`, run as a newcomer does.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// Its executable. `cargo test` has built it; `cargo test --test ...` builds no examples.
pub(crate) fn factorial() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let target = Path::new(env!("CARGO_BIN_EXE_farpool")).parent().expect("it is in a folder");
        let example = target.join("examples/factorial");
        if !is_current(&example) {
            let profile = if target.ends_with("release") { "release" } else { "dev" };
            let built = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
                .args(["build", "--quiet", "--profile", profile, "-p", "farpool", "--example", "factorial"])
                .arg("--target-dir")
                .arg(target.parent().expect("a profile's folder is in the target folder"))
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .status();
            assert!(built.expect("cargo is there where the tests were built").success(), "it could not be built");
        }
        example
    })
}

/// Built with the library of these tests, which the binary `farpool` was built with just before.
fn is_current(example: &Path) -> bool {
    let built = |path: &Path| fs::metadata(path).and_then(|file| file.modified());
    let least = built(Path::new(env!("CARGO_BIN_EXE_farpool"))).unwrap_or(SystemTime::UNIX_EPOCH);
    built(example).is_ok_and(|built| built >= least)
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
