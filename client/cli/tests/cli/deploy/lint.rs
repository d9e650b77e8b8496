//! Lints scripts and the Dockerfile.

use std::process::Command;

use crate::deploy::tools::{deployed, is_content, tool};

#[test]
fn scripts_are_bash() {
    is_content(Command::new("bash").arg("-n").arg(deployed("local.sh")));
}

#[test]
fn shellcheck_finds_nothing() {
    if let Some(shellcheck) = tool("shellcheck") {
        is_content(Command::new(shellcheck).arg("--enable=quote-safe-variables").arg(deployed("local.sh")));
    }
}

#[test]
fn hadolint_finds_nothing() {
    if let Some(hadolint) = tool("hadolint") {
        is_content(Command::new(hadolint).arg("--failure-threshold=style").arg(deployed("Dockerfile")));
    }
}
