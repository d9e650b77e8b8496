//! The suites whose cases run in separate processes: the behaviour of every pool, and everything that can break.
//!
//! They are one program, which is linked once and sent to the agents of a cluster once.

mod cluster;
mod conformance;
mod failures;
mod log;
mod plain_tasks;
mod pools;
mod report_pipe;
mod runner;

use std::process::ExitCode;

use failures::scenarios;

fn main() -> ExitCode {
    // Scenarios that misbehave before the next line, or never reach it.
    scenarios::before_init();
    farpool::init();
    scenarios::after_init();
    runner::main(&[conformance::SUITE, failures::SUITE])
}
