//! An agent with several pools: real processes that start, share slots, lend them, print and exit.
//!
//! The test executable is also the program that the agent starts. There, items tell their worker what to do.

mod cancel;
mod claims;
mod end;
pub(crate) mod host;
mod kept;
mod lending;
mod nonsense;
mod output;
mod program;
mod programs;
mod protocol;
mod sharing;
mod together;
mod unhealthy;

use farpool_link::message::{ROLE_FORK_SERVER, ROLE_WORKER};
use libtest_mimic::Trial;

/// Runs this process in its role, if it has one of these tests' roles. Returns whether it had.
pub(crate) fn run_role(role: &str) -> bool {
    match role {
        ROLE_FORK_SERVER => program::serve(),
        ROLE_WORKER => program::work(),
        claims::ROLE => claims::claim(),
        _ => match std::env::var(end::AGENT_VARIABLE) {
            Ok(gate) => end::run_agent(&gate),
            Err(_) => return false,
        },
    }
    true
}

pub(crate) fn trials() -> Vec<Trial> {
    let modules = [
        ("unhealthy", unhealthy::CASES),
        ("cancel", cancel::CASES),
        ("end", end::CASES),
        ("kept", kept::CASES),
        ("lending", lending::CASES),
        ("nonsense", nonsense::CASES),
        ("output", output::CASES),
        ("programs", programs::CASES),
        ("protocol", protocol::CASES),
        ("sharing", sharing::CASES),
        ("together", together::CASES),
    ];
    let trials = modules.iter().flat_map(|(module, cases)| {
        cases.iter().map(move |&(name, case)| {
            Trial::test(format!("pools::{module}::{name}"), move || {
                case();
                Ok(())
            })
        })
    });
    trials.collect()
}

/// Names and functions of a module's cases.
type Cases = &'static [(&'static str, fn())];

/// Lists a module's cases.
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        pub(crate) const CASES: crate::pools::Cases = &[$((stringify!($case), $case as fn())),*];
    };
}
pub(crate) use cases;
