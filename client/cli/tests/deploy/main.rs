//! What is in deploy/: each file is checked as far as this machine can.
//!
//! `.ci/run` installs the tools for it, and sets FARPOOL_REQUIRE_TOOLS; without them, what needs one is skipped, and says so.

#[path = "../../../tests/common/binaries.rs"]
mod binaries;
#[path = "../common/factorial.rs"]
mod factorial;
#[path = "../common/local_cluster.rs"]
mod local_cluster;

mod compose;
mod lint;
mod local;
mod settings;
mod systemd;
mod tools;
