//! Compiles small programs against the farpool that these tests were built with, by calling rustc with its library. That takes a
//! second; cargo in a separate directory would build everything again.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use crate::binaries;

/// Returns the path of a fixture, a source file of the tests.
pub fn fixture(name: &str) -> PathBuf {
    binaries::workspace().join("client/tests/fixtures").join(name)
}

/// Compiles the program `source` to `output`.
pub fn compile(source: &Path, output: &Path, options: &[&str]) -> Output {
    compile_as("bin", source, output, options)
}

/// Compiles the crate `source`, of this type, to `output`.
pub fn compile_as(kind: &str, source: &Path, output: &Path, options: &[&str]) -> Output {
    let libraries = libraries();
    let library = newest_farpool(&libraries);
    Command::new(rustc())
        .arg(source)
        .arg("-o")
        .arg(output)
        .args(["--edition=2024", "--crate-type", kind, "--error-format=human", "--color=never"])
        .arg(format!("--extern=farpool={}", library.display()))
        .arg(format!("-Ldependency={}", libraries.display()))
        .args(options)
        .output()
        .expect("cannot run rustc")
}

fn rustc() -> OsString {
    std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}

/// Returns the folder of the libraries that cargo built for these tests: that of the test program.
fn libraries() -> PathBuf {
    let program = std::env::current_exe().expect("cannot find this program's path");
    program.parent().expect("the program's path has no folder").to_owned()
}

/// Returns the newest build of farpool, which is the one of these tests.
fn newest_farpool(libraries: &Path) -> PathBuf {
    let is_farpool = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("libfarpool-") && name.ends_with(".rlib")
    };
    let built = |path: &PathBuf| fs::metadata(path).and_then(|file| file.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let entries = fs::read_dir(libraries).expect("cannot read the folder of the test program");
    let farpools = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_farpool);
    farpools.max_by_key(built).expect("the library was not built")
}
