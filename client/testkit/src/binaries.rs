//! The programs that tests start. cargo puts them next to the test program's folder. Programs that are missing or older than
//! their sources are built, since `cargo test -p farpool` builds only one package.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::SystemTime;

/// Returns the coordinator's executable.
pub fn coordinator() -> PathBuf {
    build_daemons();
    folder().join("farpool-coordinator")
}

/// Returns the agent's executable.
pub fn agent() -> PathBuf {
    build_daemons();
    folder().join("farpool-agent")
}

/// Returns the executable of the command line.
pub fn farpool() -> PathBuf {
    static MADE: OnceLock<()> = OnceLock::new();
    let farpool = folder().join("farpool");
    MADE.get_or_init(|| {
        let client = ["client/src", "client/session", "client/worker", "client/cli"];
        let sources = newest_source(&[&["proto", "coordinator", "agent"][..], &client].concat());
        build(std::slice::from_ref(&farpool), sources, &["-p", "farpool-cli"]);
    });
    farpool
}

/// Returns the executable of an example whose sources are in these folders. `cargo test` builds it, but `cargo test --test ...`
/// does not.
pub fn example(package: &str, name: &str, made_of: &[&str]) -> PathBuf {
    static MADE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let example = folder().join("examples").join(name);
    let mut made = MADE.lock().expect("a build failed in another thread");
    if !made.contains(&example) {
        build(std::slice::from_ref(&example), newest_source(made_of), &["-p", package, "--example", name]);
        made.insert(example.clone());
    }
    example
}

/// Builds both daemons if necessary.
pub fn build_daemons() {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        let sources = newest_source(&["proto", "coordinator", "agent"]);
        let daemons = ["farpool-coordinator", "farpool-agent"].map(|daemon| folder().join(daemon));
        build(&daemons, sources, &["-p", "farpool-coordinator-server", "-p", "farpool-agent-daemon"]);
    });
}

/// Makes cargo build `what` if any of the programs is missing or older than `sources`.
fn build(programs: &[PathBuf], sources: SystemTime, what: &[&str]) {
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
        .arg(folder.parent().expect("the profile's folder has no parent"))
        .current_dir(workspace())
        .status();
    assert!(built.expect("cannot run cargo").success(), "{what:?} could not be built");
}

/// Returns the folder where cargo puts executables, usually `target/debug`.
pub fn folder() -> PathBuf {
    let program = std::env::current_exe().expect("cannot find this program's path");
    program.ancestors().nth(2).expect("the program's path is too short").to_owned()
}

/// Returns the folder of farpool's sources.
pub fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().find(|folder| folder.join("Cargo.lock").exists()).expect("the package is not in a workspace")
}

/// Returns when a source in these folders was last changed.
fn newest_source(folders: &[&str]) -> SystemTime {
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
