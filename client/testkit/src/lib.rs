//! Shared by farpool's tests and benchmarks: daemons as processes, clusters, folders, ports, connections that can be cut, and
//! processes.
//!
//! Tests of every crate may use it. It starts the executables of the daemons that cargo has built, and does not depend on their
//! crates.

pub mod binaries;
pub mod cable;
pub mod cluster;
#[cfg(feature = "coordinators")]
pub mod coordinator;
#[cfg(feature = "coordinators")]
pub mod cuttable;
pub mod daemon;
pub mod doses;
pub mod folder;
pub mod machine;
pub mod port;
pub mod processes;
pub mod random;
pub mod rustc;
#[cfg(feature = "coordinators")]
pub mod served;
pub mod waiting;
#[cfg(feature = "workers")]
pub mod workers;
