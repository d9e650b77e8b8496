//! `farpool`: runs commands on a pool, and shows and controls clusters.
//!
//! It is a farpool program like any other: `map` runs commands in workers, on this machine or on a cluster.

mod cli;
mod file_limit;
mod generated;
mod map;
mod operators;
mod streams;
mod text;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use cli::{Cli, Command};

/// Something failed; the message is on stderr.
const FAILURE: u8 = 1;
/// The command line is invalid.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    farpool::init();
    file_limit::handle_signal();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    let address = match cli.address() {
        Ok(address) => address,
        Err(error) => return explain(&error),
    };
    let counts_items = matches!(cli.command, Command::Map(_) | Command::Results(_));
    if let Some(Err(error)) = address.as_deref().filter(|_| counts_items).map(operators::check_address) {
        let _ = writeln!(io::stderr(), "farpool: {error}");
        return ExitCode::from(map::exit_code::OWN_FAILURE);
    }
    let done = match cli.command {
        Command::Map(arguments) => return map::run(*arguments, address),
        Command::Status(arguments) => operators::status(address, arguments),
        Command::Agents(arguments) => operators::agents(address, arguments),
        Command::Jobs(arguments) => operators::jobs(address, arguments),
        Command::Results(arguments) => return operators::results(address, &arguments),
        Command::Cancel(arguments) => match arguments.check() {
            Ok(()) => operators::cancel(address, &arguments),
            Err(error) => return explain(&error),
        },
        Command::Drain(arguments) => operators::drain(address, &arguments),
        Command::Completions(arguments) => return end(generated::completions(arguments.shell)),
        Command::Man(arguments) => return end(generated::manuals(arguments.folder.as_deref())),
    };
    end(done)
}

fn end(done: Result<(), impl Display>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not eprintln, which panics if stderr has no reader.
            let _ = writeln!(io::stderr(), "farpool: {error}");
            ExitCode::from(FAILURE)
        }
    }
}

/// Prints help, the version, or why the command line is invalid.
fn explain(error: &clap::Error) -> ExitCode {
    // The reader may have exited, which is no error.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        // The small exit codes of these commands count failed items.
        _ if cli::counts_items(std::env::args_os().skip(1)) => ExitCode::from(map::exit_code::OWN_FAILURE),
        _ => ExitCode::from(USAGE),
    }
}
