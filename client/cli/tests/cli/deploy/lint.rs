//! Lints scripts and the Dockerfile.

use std::process::Command;

use crate::deploy::tools::{assert_succeeds_silently, deployed, tool};

#[test]
fn scripts_are_bash() {
    assert_succeeds_silently(Command::new("bash").arg("-n").arg(deployed("local.sh")));
}

#[test]
fn shellcheck_finds_nothing() {
    if let Some(shellcheck) = tool("shellcheck") {
        assert_succeeds_silently(
            Command::new(shellcheck).arg("--enable=quote-safe-variables").arg(deployed("local.sh")),
        );
    }
}

#[test]
fn hadolint_finds_nothing() {
    if let Some(hadolint) = tool("hadolint") {
        assert_succeeds_silently(Command::new(hadolint).arg("--failure-threshold=style").arg(deployed("Dockerfile")));
    }
}
