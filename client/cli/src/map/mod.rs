//! `farpool map`: runs a command once per item, on a pool.

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

/// The exit codes of `farpool map`, apart from the number of failed items.
pub(crate) mod exit_code {
    /// More items failed than the exit code can count.
    pub(crate) const MANY_FAILED: u8 = 101;
    /// farpool itself failed, or the command line is invalid.
    pub(crate) const OWN_FAILURE: u8 = 125;
    /// What the shell reports for a program killed by SIGPIPE.
    pub(crate) const READER_GONE: u8 = 128 + 13;
}

/// Why a map could not finish. Failed items are no such reason.
#[derive(Debug)]
enum MapError {
    /// The reader of the output has exited, which is no error to report.
    ReaderGone,
    /// This signal interrupted it.
    Interrupted(i32),
    Failed(String),
}

/// Runs `farpool map`.
pub(crate) fn run(arguments: MapArguments, address: Option<String>) -> ExitCode {
    // The words are the last arguments.
    let dashes = std::env::args_os().rev().nth(arguments.words.len()).is_some_and(|argument| argument == "--");
    if arguments.program.is_some() {
        let instead = "write farpool map 'LINE' ::: ITEM...";
        let _ = writeln!(io::stderr(), "farpool: --program will be removed in the next release: {instead}");
    }
    let done = Plan::resolve(arguments, dashes).map_err(MapError::Failed).and_then(|plan| run_plan(plan, address));
    end(done)
}

/// Returns the exit code of a map, or of printing its results.
fn end(done: Result<u64, MapError>) -> ExitCode {
    match done {
        Ok(failed) => ExitCode::from(u8::try_from(failed).unwrap_or(u8::MAX).min(exit_code::MANY_FAILED)),
        Err(MapError::ReaderGone) => ExitCode::from(exit_code::READER_GONE),
        // The code that the shell reports.
        Err(MapError::Interrupted(signal)) => {
            ExitCode::from(u8::try_from(128 + signal).unwrap_or(exit_code::OWN_FAILURE))
        }
        Err(MapError::Failed(message)) => {
            let _ = writeln!(io::stderr(), "farpool: {}", Lines(&message));
            ExitCode::from(exit_code::OWN_FAILURE)
        }
    }
}

/// Carries out the plan. Returns how many items failed.
fn run_plan(plan: Plan, address: Option<String>) -> Result<u64, MapError> {
    match &plan.detach {
        _ if plan.dry_run => dry_run::print(&plan),
        Some(name) => detached::detach(&plan, name, address),
        None => run::run(&plan, address),
    }
}

impl MapError {
    /// Returns the error for a failed write to stdout.
    fn of_stdout(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::Failed(format!("cannot write to stdout: {error}")),
        }
    }

    /// Returns the error for a failed write of commands' stderr.
    fn of_stderr(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::Failed(format!("cannot write to stderr: {error}")),
        }
    }
}

impl From<farpool::Error> for MapError {
    fn from(error: farpool::Error) -> Self {
        Self::Failed(error.plain().to_string())
    }
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReaderGone => f.write_str("the reader of the output has exited"),
            Self::Interrupted(signal) => write!(f, "interrupted by signal {signal}"),
            Self::Failed(message) => f.write_str(message),
        }
    }
}
