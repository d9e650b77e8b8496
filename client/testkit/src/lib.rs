//! What farpool's tests and benchmarks share: the daemons as processes, clusters of them, folders, ports, cables, processes.
//!
//! Tests of every crate may use it. It starts daemons as the executables that cargo has built, and stands on no crate of theirs.

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
