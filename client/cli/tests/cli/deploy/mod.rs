//! Checks the files in deploy/, as far as this machine can.
//!
//! `.ci/run` installs the tools for it, and sets FARPOOL_REQUIRE_TOOLS. Otherwise, tests without their tool are skipped and print
//! that.

mod compose;
mod lint;
mod local;
pub(crate) mod script;
mod settings;
mod systemd;
mod tools;
