//! Workers and fork servers that violate the protocol: the agent must neither panic nor hang, must report what happened,
//! and must keep serving with workers that behave.
//!
//! The test executable is the program that the agent starts: as a fork server it runs fake workers on threads, each of
//! which misbehaves in the way that its second argument names.

mod agent_side;

use std::os::unix::process::CommandExt;
use std::process::Command;

use libtest_mimic::{Failed, Trial};

use agent_side::{Outcome, run_items};

/// The name of the misbehaving program.
pub(crate) const PROGRAM: &str = "misbehaving";

pub(crate) fn trials() -> Vec<Trial> {
    let cases = CASES.iter().map(|case| trial(case.misbehaviour, || check(case)));
    let more = [trial("names-a-stranger", a_stranger_is_named), trial("spares-a-worker", a_worker_is_spared)];
    cases.chain(more).collect()
}

fn trial(name: &str, case: impl FnOnce() -> Result<(), Failed> + Send + 'static) -> Trial {
    Trial::test(format!("misbehaving::{name}"), case)
}

struct Case {
    misbehaviour: &'static str,
    expected: Expected,
}

enum Expected {
    /// Every item is returned unchanged.
    Results,
    /// The running item is reported as the victim, with these words; the others are returned.
    Victim(&'static str),
    /// The pool fails, with these words.
    PoolFault(&'static str),
    /// It ends in any way.
    End,
}

const CASES: &[Case] = &[
    Case { misbehaviour: "none", expected: Expected::Results },
    Case { misbehaviour: "unknown-record", expected: Expected::Victim("corrupted") },
    Case { misbehaviour: "record-longer-than-written", expected: Expected::Victim("corrupted") },
    Case { misbehaviour: "item-never-given", expected: Expected::Victim("corrupted") },
    Case { misbehaviour: "item-twice", expected: Expected::Victim("corrupted") },
    Case { misbehaviour: "failure-garbled", expected: Expected::Victim("corrupted") },
    Case { misbehaviour: "failure-of-no-kind", expected: Expected::Victim("corrupted") },
    Case { misbehaviour: "large-beyond-limit", expected: Expected::Victim("corrupted") },
    Case { misbehaviour: "piece-of-nothing", expected: Expected::Victim("corrupted") },
    Case { misbehaviour: "pieces-too-long", expected: Expected::Victim("corrupted") },
    Case { misbehaviour: "pieces-of-nothing", expected: Expected::Victim("corrupted") },
    Case { misbehaviour: "ready-again", expected: Expected::Victim("corrupted") },
    Case { misbehaviour: "resumed-unasked", expected: Expected::Victim("corrupted") },
    Case { misbehaviour: "run-end-of-nothing", expected: Expected::Victim("corrupted") },
    Case { misbehaviour: "init-failed-late", expected: Expected::Victim("corrupted") },
    Case { misbehaviour: "announces:1048577", expected: Expected::Victim("corrupted") },
    Case { misbehaviour: "times-beyond-reason", expected: Expected::End },
    Case { misbehaviour: "scribbles", expected: Expected::End },
    Case { misbehaviour: "run-end-garbled", expected: Expected::Victim("corrupted") },
    Case { misbehaviour: "order-sent-back", expected: Expected::Victim("corrupted") },
    Case { misbehaviour: "unbegun-then-unknown-record", expected: Expected::PoolFault("before they started an item") },
    Case { misbehaviour: "exits-at-once", expected: Expected::PoolFault("before they started an item") },
    Case { misbehaviour: "unknown-workers-end", expected: Expected::Results },
    Case { misbehaviour: "init-failed-garbled", expected: Expected::PoolFault("before they started an item") },
    Case { misbehaviour: "no-hello", expected: Expected::PoolFault("farpool::init()") },
    Case { misbehaviour: "hello-flood", expected: Expected::PoolFault("broke the protocol") },
    Case { misbehaviour: "unknown-workers-end-flood", expected: Expected::PoolFault("broke the protocol") },
    Case { misbehaviour: "spawn-flood", expected: Expected::PoolFault("broke the protocol") },
    Case { misbehaviour: "cleared-flood", expected: Expected::PoolFault("broke the protocol") },
    Case { misbehaviour: "spawn-fails", expected: Expected::PoolFault("starting a worker") },
];

/// A fork server names a worker's process that is not its child, and ends when the agent wants it killed.
fn a_stranger_is_named() -> Result<(), Failed> {
    let mut stranger = Command::new("sleep").arg("3600").process_group(0).spawn()?;
    let outcome = run_items(&format!("names:{}", stranger.id()));
    let ended = stranger.try_wait()?;
    stranger.kill()?;
    stranger.wait()?;
    match (&outcome, ended) {
        (Outcome::Items { results: agent_side::ITEMS, .. }, None) => Ok(()),
        _ => Err(format!("the stranger: {ended:?}; {outcome:?}").into()),
    }
}

/// A fork server that kills no worker: the agent kills the worker's process itself, and the fork server last.
fn a_worker_is_spared() -> Result<(), Failed> {
    // No other process sleeps for this long.
    let seconds = format!("8{}", std::process::id());
    let outcome = run_items(&format!("spares:{seconds}"));
    let left = std::fs::read_dir("/proc")?.flatten().any(|process| {
        std::fs::read(process.path().join("cmdline")).is_ok_and(|line| line == format!("sleep\0{seconds}\0").as_bytes())
    });
    match &outcome {
        Outcome::Items { results, victims }
            if results + 1 == agent_side::ITEMS
                && victims.iter().all(|reported| reported.contains("corrupted"))
                && !left =>
        {
            Ok(())
        }
        _ => Err(format!("its process is left: {left}; {outcome:?}").into()),
    }
}

fn check(case: &Case) -> Result<(), Failed> {
    let outcome = run_items(case.misbehaviour);
    match (&case.expected, &outcome) {
        (Expected::Results, Outcome::Items { results, victims })
            if victims.is_empty() && *results == agent_side::ITEMS =>
        {
            Ok(())
        }
        (Expected::Victim(words), Outcome::Items { results, victims })
            if results + victims.len() == agent_side::ITEMS
                && !victims.is_empty()
                && victims.iter().all(|reported| reported.contains(words)) =>
        {
            Ok(())
        }
        (Expected::End, _) => Ok(()),
        (Expected::PoolFault(words), Outcome::PoolFault(reported)) if reported.contains(words) => Ok(()),
        _ => Err(format!("{}: {outcome:?}", case.misbehaviour).into()),
    }
}
