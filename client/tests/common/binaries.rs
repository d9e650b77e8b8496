//! The daemons that these tests start: they lie beside the test program's folder, where cargo puts them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The coordinator's executable.
pub(crate) fn coordinator() -> PathBuf {
    folder().join("farpool-coordinator")
}

/// The agent's executable.
pub(crate) fn agent() -> PathBuf {
    folder().join("farpool-agent")
}

/// Builds the daemons if they are missing, or older than what they are made of: `cargo test -p farpool` builds only this
/// package.
pub(crate) fn make() {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        let sources = newest_source(&["proto", "coordinator", "agent"]);
        build(&[coordinator(), agent()], sources, &["-p", "farpool-coordinator-server", "-p", "farpool-agent-daemon"]);
    });
}

/// Has cargo build this if any of the programs is missing or older than that.
pub(crate) fn build(programs: &[PathBuf], sources: SystemTime, what: &[&str]) {
    let built = |path: &PathBuf| fs::metadata(path).and_then(|file| file.modified());
    if programs.iter().all(|path| built(path).is_ok_and(|built| built >= sources)) {
        return;
    }
    let folder = folder();
    let profile = if folder.ends_with("release") { "release" } else { "dev" };
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--profile", profile])
        .args(what)
        .arg("--target-dir")
        .arg(folder.parent().expect("a profile's folder is in the target folder"))
        .current_dir(workspace())
        .status();
    assert!(built.expect("cargo is there where the tests were built").success(), "{what:?} could not be built");
}

/// `target/debug`, as a rule.
pub(crate) fn folder() -> PathBuf {
    let program = std::env::current_exe().expect("the program knows where it is");
    program.ancestors().nth(2).expect("it is in a folder of a folder").to_owned()
}

pub(crate) fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().find(|folder| folder.join("Cargo.lock").exists()).expect("this package is part of a workspace")
}

/// When the last source in these folders was changed.
pub(crate) fn newest_source(folders: &[&str]) -> SystemTime {
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| workspace().join(folder)).collect();
    let mut newest = SystemTime::UNIX_EPOCH;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                if !["tests", "benches", "examples"].iter().any(|beside| path.ends_with(beside)) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|end| end == "rs" || end == "toml") {
                newest = newest.max(metadata.modified().unwrap_or(newest));
            }
        }
    }
    newest
}
