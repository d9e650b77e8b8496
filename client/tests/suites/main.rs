//! The suites whose cases run in processes of their own: what every pool does, and everything that can break.
//!
//! They are one program, which is linked once, and sent to the agents of a cluster once.

mod cluster;
mod conformance;
mod failures;
mod line;
mod log;
mod plain_tasks;
mod pools;
mod runner;

use std::process::ExitCode;

use failures::scenarios;

fn main() -> ExitCode {
    // Programs that do not do what they should before, or instead of, the next line.
    scenarios::before_init();
    farpool::init();
    scenarios::after_init();
    runner::main(&[conformance::SUITE, failures::SUITE])
}
