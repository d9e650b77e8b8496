//! What is in deploy/: each file is checked as far as this machine can.
//!
//! `.ci/run` installs the tools for it, and sets FARPOOL_REQUIRE_TOOLS; without them, what needs one is skipped, and says so.

mod compose;
mod lint;
mod local;
pub(crate) mod script;
mod settings;
mod systemd;
mod tools;
