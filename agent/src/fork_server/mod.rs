//! The fork server: the process that starts, reaps and kills the workers of a pool.
//!
//! It is the program itself, started once for each pool; `farpool::init()` never returns in it. Forking workers from it
//! costs a tenth of starting the program. It has no fork hazards: it has one thread and has not run any of the program.
//! It also outlives a killed client for long enough to clean up.
//!
//! This module has the agent's end; the server's end is in the program (crate `farpool-worker`).

mod elf;
mod handle;
pub(crate) mod kept;
mod program;

pub use handle::ForkServer;
pub use program::{Program, own_executable_failed};
