//! The command line, and the help that teaches it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::map::{MapArguments, help};

const ADDRESS: &str = "FARPOOL_ADDRESS";
/// Where a coordinator listens by default.
pub(crate) const DEFAULT_ADDRESS: &str = "http://127.0.0.1:7070";

/// Runs commands on a farpool cluster, or on the cores of this machine, and shows what a cluster is doing.
#[derive(Debug, Parser)]
#[command(name = "farpool", version = env!("FARPOOL_VERSION"), max_term_width = 80)]
#[command(after_help = EXAMPLES, after_long_help = [EXAMPLES, ALSO].concat())]
pub(crate) struct Cli {
    /// The coordinator, as http://host:port. Without it, `map` runs on this machine, and everything else asks the
    /// coordinator at http://127.0.0.1:7070
    #[arg(long, global = true, env = ADDRESS, hide_env_values = true, value_name = "URL")]
    address: Option<OsString>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command once per item, in a pool
    #[command(
        override_usage = help::USAGE,
        long_about = help::LONG,
        after_help = help::SHORT_EXAMPLES,
        after_long_help = help::EXAMPLES
    )]
    Map(Box<MapArguments>),
    /// Show agents, pools and jobs, and the coordinator's memory and journal
    #[command(after_help = STATUS_EXAMPLES)]
    Status(ShowArguments),
    /// Show the agents: their slots, what they run, and how fast
    #[command(after_help = AGENTS_EXAMPLES)]
    Agents(ShowArguments),
    /// Show the jobs: their progress and speed
    #[command(after_help = JOBS_EXAMPLES)]
    Jobs(ShowArguments),
    /// Show the detached jobs, or print the results of one
    #[command(long_about = RESULTS_LONG, after_help = RESULTS_EXAMPLES)]
    Results(ResultsArguments),
    /// Cancel a job: its running items are killed, and its client gets an error
    #[command(after_help = CANCEL_EXAMPLES)]
    Cancel(CancelArguments),
    /// Let an agent finish its running items, hand the rest to other agents, and leave
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain(DrainArguments),
    /// Print the completions of a shell
    #[command(hide = true, after_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArguments),
    /// Print the manual page, or write all of them to a directory
    #[command(hide = true, after_help = MAN_EXAMPLES)]
    Man(ManArguments),
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    pub(crate) shell: Shell,
}

/// Shells that completions can be printed for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Args)]
pub(crate) struct ManArguments {
    /// Where to write the pages: farpool.1, farpool-map.1, ...
    #[arg(value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    /// Print one JSON document instead of tables, for scripts: its keys are stable across releases
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CancelArguments {
    /// The job's number, as `farpool jobs` shows it, or a detached job's name, if it is not all digits
    pub(crate) job: String,
    /// Take JOB as a detached job's name, even if it looks like a number
    #[arg(long, conflicts_with = "number")]
    pub(crate) detached: bool,
    /// Take JOB as a number, even if a detached job has that name
    #[arg(long)]
    pub(crate) number: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ResultsArguments {
    /// The detached job whose outputs to print; without it, all detached jobs are listed
    pub(crate) name: Option<String>,
    /// Wait for missing outputs, until the job has ended
    #[arg(long, requires = "name")]
    pub(crate) wait: bool,
    /// Drop the job and its results after printing all of them
    #[arg(long, requires = "name")]
    pub(crate) discard: bool,
    /// Write each encoded result to DIR/INDEX instead, where INDEX is the item's index, from 0
    #[arg(long, value_name = "DIR", requires = "name")]
    pub(crate) raw: Option<PathBuf>,
    /// Start each line of output with the item and a tab
    #[arg(long, requires = "name", conflicts_with = "raw")]
    pub(crate) tag: bool,
    /// Write a line of JSON for each item, as `farpool map --results` does
    #[arg(long, value_name = "FILE", requires = "name", conflicts_with = "raw")]
    pub(crate) results: Option<PathBuf>,
    /// Replace the results in that file
    #[arg(long, requires = "results")]
    pub(crate) overwrite: bool,
    /// Print the jobs as one JSON document: its keys are stable across releases
    #[arg(long, conflicts_with = "name")]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DrainArguments {
    /// The agent's id or the beginning of it, as `farpool agents` shows it, or its host, if only one agent runs there
    pub(crate) agent: String,
    /// Return only when the agent has left
    #[arg(long)]
    pub(crate) wait: bool,
}

impl Cli {
    /// Returns the given address. An empty one counts as unset, so that `FARPOOL_ADDRESS= farpool map` runs on this machine.
    ///
    /// # Errors
    /// If it is not UTF-8.
    pub(crate) fn address(&self) -> Result<Option<String>, clap::Error> {
        let Some(address) = self.address.clone().filter(|address| !address.is_empty()) else { return Ok(None) };
        address.into_string().map(Some).map_err(|address| {
            let from_environment = std::env::var_os(ADDRESS).is_some_and(|value| value == address);
            let whose = if from_environment { ADDRESS } else { "--address" };
            let why = format!("{whose} is {address:?}, which is not UTF-8: write an address such as http://node1:7070");
            Cli::command().error(ErrorKind::InvalidUtf8, why)
        })
    }
}

impl CancelArguments {
    /// Checks the arguments as far as clap cannot.
    pub(crate) fn check(&self) -> Result<(), clap::Error> {
        if !self.number || !self.job.is_empty() && self.job.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(());
        }
        let why = format!(
            "--number takes a job's number, as `farpool jobs` shows it, but '{}' is not a number; for a detached \
             job's name, leave --number out",
            self.job.escape_debug()
        );
        Err(Cli::command().error(ErrorKind::ValueValidation, why))
    }
}

/// Returns whether these invalid arguments were meant for a command whose exit code counts failed items.
pub(crate) fn counts_items(mut arguments: impl Iterator<Item = OsString>) -> bool {
    while let Some(argument) = arguments.next() {
        if argument == "--address" {
            arguments.next();
        } else if !argument.as_encoded_bytes().starts_with(b"-") {
            return argument == "map" || argument == "results";
        }
    }
    false
}

// Lines fit a terminal of 80 columns.

const EXAMPLES: &str = "\
Examples:
  farpool map gzip -9 ::: *.log                  on every core of this machine
  export FARPOOL_ADDRESS=http://node1:7070
  farpool map gzip -9 ::: *.log                  on a cluster with a shared disk
  farpool status                                 what the cluster is doing

For details of a command: `farpool COMMAND --help`.
Exit codes: 0 success, 1 failure, 2 invalid command line.
`farpool map` and `farpool results` have their own: they count the items that
failed.";

const ALSO: &str = "

Shell completions: `farpool completions bash|zsh|fish`. Manual pages:
`farpool man [DIR]`.";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  farpool completions bash > ~/.local/share/bash-completion/completions/farpool
  farpool completions zsh > ~/.zfunc/_farpool
  farpool completions fish > ~/.config/fish/completions/farpool.fish";

const MAN_EXAMPLES: &str = "\
Examples:
  farpool man ~/.local/share/man/man1
  farpool man | man -l -";

const STATUS_EXAMPLES: &str = "\
Examples:
  farpool status
  farpool --address http://node1:7070 status
  farpool status --json | jq '[.agents[].slots] | add'    slots of the cluster";

const AGENTS_EXAMPLES: &str = "\
Examples:
  farpool agents
  farpool agents --json | jq -r '.agents[] | select(.busy == 0) | .host'";

const JOBS_EXAMPLES: &str = "\
Examples:
  farpool jobs
  watch farpool jobs
  farpool jobs --json | jq -r '.jobs[] | select(.failed > 0) | .job'";

const RESULTS_LONG: &str = "\
Show the detached jobs that the coordinator keeps; or, with a name, print the
results of that job.

For a job of `farpool map --detach`, it prints what `farpool map` would have
printed, in input order, and the exit code is the same: see
`farpool map --help`. For a job of another program, it shows only the number and
size of the results; --raw writes each of them to a file.

Results stay until they are discarded (--discard, after printing all of them) or
expire: you can print them as often as you like. If the job is still running,
the results so far are printed and the exit code is 125, unless you give --wait.
It is also 125 if the job was cancelled or could not run, even if --discard has
dropped it.";

const RESULTS_EXAMPLES: &str = "\
Examples:
  farpool map --detach nightly ./simulate :::: seeds.txt
  farpool results                               lists all detached jobs
  farpool results nightly --wait                prints outputs as they arrive
  farpool results nightly --discard > all.txt   frees the name, too
  farpool results squares --raw folder          for a job of another program
  farpool results --json | jq -r '.results[] | select(.failed > 0) | .name'";

const CANCEL_EXAMPLES: &str = "\
Examples:
  farpool jobs                                            shows the numbers
  farpool cancel 7
  farpool cancel nightly                                  a detached job
  farpool cancel --detached 2026                          one named 2026
  farpool jobs --json | jq -r '.jobs[].job' | xargs farpool cancel --number";

const DRAIN_EXAMPLES: &str = "\
Examples:
  farpool drain node3                               returns at once
  farpool drain 0193f2a4                            one agent of several on a host
  farpool drain --wait node3 && ssh node3 reboot    returns when it has left";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_that_count_items_are_recognised_after_global_options() {
        let counts = |line: &str| counts_items(line.split(' ').map(OsString::from));
        assert!(counts("map --wrong") && counts("--address x map") && counts("--address=x results -q"));
        assert!(!counts("status map") && !counts("--address map") && !counts("--map"));
    }
}
