//! An agent with several pools: real processes that are started, share slots, lend them, print, and go.
//!
//! The test executable is also the program that the agent starts, in which items say what their worker does.

mod cancel;
mod claims;
mod end;
mod host;
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

/// Does what a process with this role is started for by these tests; whether it is one of theirs.
pub(crate) fn play_a_part(role: &str) -> bool {
    match role {
        ROLE_FORK_SERVER => program::serve(),
        ROLE_WORKER => program::work(),
        claims::ROLE => claims::claim(),
        _ if std::env::var_os(end::AGENT_VARIABLE).is_some() => end::be_an_agent(),
        _ => return false,
    }
    true
}

pub(crate) fn trials() -> Vec<Trial> {
    let modules = [
        ("unhealthy", unhealthy::CASES),
        ("cancel", cancel::CASES),
        ("end", end::CASES),
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
