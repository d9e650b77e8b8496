//! An agent with several pools: real processes that are started, share slots, lend them, print, and go.
//!
//! The test executable is also the program that the agent starts, in which items say what their worker does.

mod ailing;
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

use farpool_link::message::{ROLE_FORK_SERVER, ROLE_VARIABLE, ROLE_WORKER};
use libtest_mimic::{Arguments, Trial};

fn main() {
    let role = std::env::var(ROLE_VARIABLE).unwrap_or_default();
    match role.as_str() {
        ROLE_FORK_SERVER => return program::serve(),
        ROLE_WORKER => return program::work(),
        claims::ROLE => return claims::claim(),
        _ => {}
    }
    if std::env::var_os(end::AGENT_VARIABLE).is_some() {
        return end::be_an_agent();
    }
    let modules = [
        ("ailing", ailing::CASES),
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
            Trial::test(format!("{module}::{name}"), move || {
                case();
                Ok(())
            })
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

/// Names and functions of a module's cases.
type Cases = &'static [(&'static str, fn())];

/// Lists a module's cases.
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        pub(crate) const CASES: crate::Cases = &[$((stringify!($case), $case as fn())),*];
    };
}
pub(crate) use cases;
