//! Tools and files for the checks.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use farpool_testkit::binaries;
use farpool_testkit::doses::{REQUIRE_TOOLS, requires_tools};

/// Returns the path of a file in deploy/.
pub(crate) fn deployed(name: &str) -> PathBuf {
    binaries::workspace().join("deploy").join(name)
}

/// Returns a tool that `.ci/run` installs, or that is in PATH. If it is missing, prints what is skipped.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the folder for temporary files has no parent");
    let installed = target.join("deploy-tools/bin").join(name);
    if installed.is_file() {
        return Some(installed);
    }
    assert!(!requires_tools(), "{REQUIRE_TOOLS} is set, and there is no {name}: .ci/run installs it");
    tool_of_this_machine(name)
}

/// Returns a tool of this machine. If it is missing, prints what is skipped.
pub(crate) fn tool_of_this_machine(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: there is no {name} here");
    }
    found
}

/// Runs a command; fails if it fails or prints anything.
#[track_caller]
pub(crate) fn assert_succeeds_silently(command: &mut Command) {
    let output = run(command);
    let printed = [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat();
    assert!(output.status.success() && printed.is_empty(), "{command:?}: {}\n{printed}", output.status);
}

#[track_caller]
pub(crate) fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}
