//! Every failure that one machine can show, really made to happen: what the caller is told, what goes on, and that
//! nothing is left behind.

#[path = "../common/line.rs"]
mod line;
#[path = "../common/log.rs"]
mod log;
#[path = "../common/plain_tasks.rs"]
mod plain_tasks;
#[path = "../common/processes.rs"]
mod processes;
#[path = "../common/runner.rs"]
mod runner;
#[path = "../common/rustc.rs"]
mod rustc;

mod aborts;
mod cancel;
mod checks;
mod client;
mod clients;
mod codec;
mod crowd;
mod deaths;
mod descriptors;
mod forgetful;
mod fork_server;
mod initializers;
mod inputs;
mod large;
mod litter;
mod misuse;
mod nested;
mod output;
mod outside;
mod panics;
mod retries;
mod scenarios;
mod sizes;
mod tasks;
mod timeouts;
mod waiting;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Programs that do not do what they should before, or instead of, the next line.
    scenarios::before_init();
    farpool::init();
    scenarios::after_init();
    runner::main(&[
        aborts::CASES,
        cancel::CASES,
        clients::CASES,
        codec::CASES,
        crowd::CASES,
        deaths::CASES,
        descriptors::CASES,
        fork_server::CASES,
        forgetful::CASES,
        initializers::CASES,
        inputs::CASES,
        large::CASES,
        litter::CASES,
        misuse::CASES,
        nested::CASES,
        output::CASES,
        outside::CASES,
        panics::CASES,
        retries::CASES,
        sizes::CASES,
        timeouts::CASES,
    ])
}
