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
        let changed = newest_source();
        let built = |path: PathBuf| fs::metadata(path).and_then(|file| file.modified());
        if [coordinator(), agent()].into_iter().all(|path| built(path).is_ok_and(|built| built >= changed)) {
            return;
        }
        let folder = folder();
        let profile = if folder.ends_with("release") { "release" } else { "dev" };
        let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args([
                "build",
                "--quiet",
                "--profile",
                profile,
                "-p",
                "farpool-coordinator-server",
                "-p",
                "farpool-agent-daemon",
            ])
            .arg("--target-dir")
            .arg(folder.parent().expect("a profile's folder is in the target folder"))
            .current_dir(workspace())
            .status();
        assert!(built.expect("cargo is there where the tests were built").success(), "the daemons could not be built");
    });
}

/// `target/debug`, as a rule.
fn folder() -> PathBuf {
    let program = std::env::current_exe().expect("the program knows where it is");
    program.ancestors().nth(2).expect("it is in a folder of a folder").to_owned()
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package is part of a workspace")
}

fn newest_source() -> SystemTime {
    let mut folders: Vec<PathBuf> = ["proto", "coordinator", "agent"].map(|folder| workspace().join(folder)).into();
    let mut newest = SystemTime::UNIX_EPOCH;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() && !path.ends_with("tests") && !path.ends_with("benches") {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs" || end == "toml") {
                newest = newest.max(metadata.modified().unwrap_or(newest));
            }
        }
    }
    newest
}
