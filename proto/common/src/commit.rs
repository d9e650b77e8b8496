//! For build scripts: the version of a program, with the commit that it was built from.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Digits of a commit that are shown.
const SHOWN: usize = 10;

/// Sets `FARPOOL_VERSION` for the crate whose build script calls this: `0.1.0 (1a2b3c4d5e)`, or just `0.1.0` if the
/// commit is unknown because there is no git, or no checkout of its own repository.
///
/// Only release builds have the commit, so that development builds are not rebuilt after each commit.
pub fn emit_version() {
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let version = variable("CARGO_PKG_VERSION");
    let folder = variable("CARGO_MANIFEST_DIR");
    let commit = if variable("PROFILE") == "release" { commit(Path::new(&folder)) } else { None };
    match commit {
        Some(commit) => println!("cargo::rustc-env=FARPOOL_VERSION={version} ({commit})"),
        None => println!("cargo::rustc-env=FARPOOL_VERSION={version}"),
    }
}

fn commit(folder: &Path) -> Option<String> {
    // In a package from a registry, cargo has recorded it.
    let commit = match fs::read_to_string(folder.join(".cargo_vcs_info.json")) {
        Ok(text) => recorded(&text)?.to_owned(),
        Err(_) => checked_out(folder)?,
    };
    commit.get(..SHOWN).map(str::to_owned)
}

/// Returns the commit that cargo has recorded.
fn recorded(text: &str) -> Option<&str> {
    let (_, behind) = text.split_once("\"sha1\"")?;
    behind.split('"').nth(1).filter(|commit| is_commit(commit))
}

fn checked_out(folder: &Path) -> Option<String> {
    // The sources may be inside another repository.
    git(folder, &["ls-files", "--error-unmatch", "Cargo.toml"])?;
    // Both are written whenever the commit changes. A file that does not exist would cause a rebuild each time.
    for path in ["HEAD", "logs/HEAD"] {
        let path = folder.join(git(folder, &["rev-parse", "--git-path", path])?);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    git(folder, &["rev-parse", "HEAD"]).filter(|commit| is_commit(commit))
}

fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim_end().to_owned())
}

fn is_commit(text: &str) -> bool {
    text.len() >= SHOWN && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commit_of_a_package_is_what_cargo_has_recorded() {
        let note = "{\n  \"git\": {\n    \"sha1\": \"0123456789abcdef0123456789abcdef01234567\"\n  },\n  \"path_in_vcs\": \"x\"\n}";
        assert_eq!(recorded(note), Some("0123456789abcdef0123456789abcdef01234567"));
        for other in ["", "{}", "{\"sha1\": 7}", "{\"sha1\": \"\"}", "{\"sha1\": \"not a commit at all\"}"] {
            assert_eq!(recorded(other), None, "{other}");
        }
    }

    #[test]
    fn sources_outside_of_a_repository_have_none() {
        assert_eq!(commit(Path::new("/")), None);
        assert_eq!(commit(Path::new("/nowhere")), None);
    }
}
