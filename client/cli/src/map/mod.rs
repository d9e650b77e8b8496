//! `farpool map`: a command once an item, over the pool.

mod arguments;
mod blocks;
mod board;
mod capture;
mod columns;
mod combinations;
mod command;
pub(crate) mod detached;
mod dry_run;
mod feed;
mod finished;
mod group;
pub(crate) mod help;
mod interrupt;
mod item;
mod items;
mod keep;
mod outputs;
mod placeholder;
mod plan;
mod printed;
mod progress;
mod queue;
mod quotes;
mod records;
mod run;
mod segment;
mod sink;
mod spool;
mod tag;
mod task;
mod template;
mod words;

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use farpool_proto::text::Lines;

pub(crate) use arguments::MapArguments;
use plan::Plan;

/// What `farpool map` ends with, beside the number of failed items.
pub(crate) mod exit_code {
    /// More items have failed than a number can tell.
    pub(crate) const MANY_FAILED: u8 = 101;
    /// It is not the items.
    pub(crate) const OWN_FAILURE: u8 = 125;
    /// As the shell reports a program that wrote where nobody reads.
    pub(crate) const NOBODY_READS: u8 = 128 + 13;
}

/// Why a map could not be brought to its end; items that fail are no such reason.
#[derive(Debug)]
enum MapError {
    /// Nobody reads the output any more: that is nothing to talk about.
    NobodyReads,
    /// This signal ends it.
    Interrupted(i32),
    Told(String),
}

/// Runs `farpool map`.
pub(crate) fn run(arguments: MapArguments, address: Option<String>) -> ExitCode {
    // The words are the last of all arguments.
    let dashes = std::env::args_os().rev().nth(arguments.words.len()).is_some_and(|argument| argument == "--");
    let done = Plan::resolve(arguments, dashes).map_err(MapError::Told).and_then(|plan| carry_out(plan, address));
    end(done)
}

/// How a map, or the printing of its results, ends: with the number of items that failed, or with why there is none.
fn end(done: Result<u64, MapError>) -> ExitCode {
    match done {
        Ok(failed) => ExitCode::from(u8::try_from(failed).unwrap_or(u8::MAX).min(exit_code::MANY_FAILED)),
        Err(MapError::NobodyReads) => ExitCode::from(exit_code::NOBODY_READS),
        // As the shell reports it.
        Err(MapError::Interrupted(signal)) => {
            ExitCode::from(u8::try_from(128 + signal).unwrap_or(exit_code::OWN_FAILURE))
        }
        Err(MapError::Told(message)) => {
            let _ = writeln!(io::stderr(), "farpool: {}", Lines(&message));
            ExitCode::from(exit_code::OWN_FAILURE)
        }
    }
}

/// Returns how many items failed.
fn carry_out(plan: Plan, address: Option<String>) -> Result<u64, MapError> {
    match &plan.detach {
        _ if plan.dry_run => dry_run::print(&plan),
        Some(name) => detached::detach(&plan, name, address),
        None => run::run(&plan, address),
    }
}

impl MapError {
    /// Writing to stdout failed.
    fn of_stdout(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::NobodyReads,
            _ => Self::Told(format!("cannot write to stdout: {error}")),
        }
    }

    /// Writing what commands wrote to stderr failed.
    fn of_stderr(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::NobodyReads,
            _ => Self::Told(format!("cannot write to stderr: {error}")),
        }
    }
}

impl From<farpool::Error> for MapError {
    fn from(error: farpool::Error) -> Self {
        Self::Told(error.to_string())
    }
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NobodyReads => f.write_str("the reader of the output has exited"),
            Self::Interrupted(signal) => write!(f, "interrupted by signal {signal}"),
            Self::Told(message) => f.write_str(message),
        }
    }
}
