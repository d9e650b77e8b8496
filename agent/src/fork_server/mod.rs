//! The fork server: the process that starts, reaps and kills the workers of a pool.
//!
//! It is the program itself, started once for each pool; in it `farpool::init()` never returns. Workers are forked
//! from it, which costs a tenth of starting the program anew and knows no fork hazards, since it has one thread and
//! has run none of the program yet. It also is what outlives a killed client for long enough to leave nothing behind.
//!
//! This module has the agent's end; the server's end is in the program (crate `farpool`).

mod elf;
mod handle;
mod program;

pub use handle::ForkServer;
pub use program::{Program, own_executable_failed};
