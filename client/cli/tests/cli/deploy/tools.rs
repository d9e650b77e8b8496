//! Programs and folders that the checks need.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use farpool_testkit::binaries;

/// Set where a check must not be skipped.
const REQUIRED: &str = "FARPOOL_REQUIRE_TOOLS";

/// A file of deploy/.
pub(crate) fn deployed(name: &str) -> PathBuf {
    binaries::workspace().join("deploy").join(name)
}

/// A tool that `.ci/run` installs, or that is in PATH. Without it, says what is skipped.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is in the target folder");
    let installed = target.join("deploy-tools/bin").join(name);
    if installed.is_file() {
        return Some(installed);
    }
    assert!(env::var_os(REQUIRED).is_none(), "{REQUIRED} is set, and there is no {name}: .ci/run installs it");
    tool_of_this_machine(name)
}

/// A tool that a machine has or has not. Without it, says what is skipped.
pub(crate) fn tool_of_this_machine(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: there is no {name} here");
    }
    found
}

/// Runs it; fails if it fails or has anything to say.
#[track_caller]
pub(crate) fn is_content(command: &mut Command) {
    let output = run(command);
    let said = [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat();
    assert!(output.status.success() && said.is_empty(), "{command:?}: {}\n{said}", output.status);
}

#[track_caller]
pub(crate) fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}
