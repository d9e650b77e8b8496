//! What every pool does, wherever it runs: the promises of the API, one file a topic.
//!
//! All pools come from [`pools`], so that the same suite can be run against a cluster.

#[path = "../common/log.rs"]
mod log;
#[path = "../common/plain_tasks.rs"]
mod plain_tasks;
#[path = "../common/processes.rs"]
mod processes;
#[path = "../common/runner.rs"]
mod runner;

mod arguments;
mod async_use;
mod callbacks;
mod errors;
mod imap;
mod life;
mod memory;
mod options;
mod pools;
mod progress;
mod results;
mod tasks;
mod threads;
mod verbs;
mod workers;

use std::process::ExitCode;

fn main() -> ExitCode {
    farpool::init();
    runner::main(&[
        arguments::CASES,
        async_use::CASES,
        callbacks::CASES,
        errors::CASES,
        imap::CASES,
        life::CASES,
        memory::CASES,
        options::CASES,
        progress::CASES,
        results::CASES,
        threads::CASES,
        verbs::CASES,
        workers::CASES,
    ])
}
