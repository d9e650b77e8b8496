//! The command line, and the help that teaches it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::map::{MapArguments, help};

/// Where a coordinator listens unless it is told otherwise.
pub(crate) const DEFAULT_ADDRESS: &str = "http://127.0.0.1:7070";

/// Runs commands on a farpool cluster, or on the cores of this machine, and shows what a cluster is doing.
#[derive(Debug, Parser)]
#[command(name = "farpool", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// The coordinator, as http://host:port. Without it, `map` runs on this machine, and everything else asks the
    /// coordinator at http://127.0.0.1:7070
    #[arg(long, global = true, env = "FARPOOL_ADDRESS", hide_env_values = true, value_name = "URL")]
    address: Option<String>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command once per item, in a pool
    #[command(
        long_about = help::LONG,
        after_help = help::SHORT_EXAMPLES,
        after_long_help = help::EXAMPLES
    )]
    Map(Box<MapArguments>),
    /// Show agents, pools and jobs, and what the coordinator holds
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
    /// Let an agent finish its running items, give back the rest, and leave
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain(DrainArguments),
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
    /// The agent's id, as `farpool agents` shows it, or its host, if only one agent runs there
    pub(crate) agent: String,
    /// Return only when the agent has left
    #[arg(long)]
    pub(crate) wait: bool,
}

impl Cli {
    /// The address that was given. An empty one is none, so that `FARPOOL_ADDRESS= farpool map` runs on this machine.
    pub(crate) fn address(&self) -> Option<String> {
        self.address.clone().filter(|address| !address.is_empty())
    }
}

/// Whether invalid arguments were meant for a command whose exit code counts items.
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
  farpool map --program 'gzip -9' -- *.log       on every core of this machine
  export FARPOOL_ADDRESS=http://node1:7070
  farpool map --program 'gzip -9' -- *.log       on a cluster with a shared disk
  farpool status                                 what the cluster is doing

For details of a command: `farpool COMMAND --help`.
Exit codes: 0 success, 1 failure, 2 invalid command line.
`farpool map` and `farpool results` have their own: they count the items that
failed.";

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
the results so far are printed and the exit code is 125, unless you give --wait.";

const RESULTS_EXAMPLES: &str = "\
Examples:
  farpool map --detach nightly --program ./simulate -a seeds.txt
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
  farpool drain --wait node3 && ssh node3 reboot    returns when it has left";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_that_count_items_are_recognised_behind_global_options() {
        let counts = |line: &str| counts_items(line.split(' ').map(OsString::from));
        assert!(counts("map --wrong") && counts("--address x map") && counts("--address=x results -q"));
        assert!(!counts("status map") && !counts("--address map") && !counts("--map"));
    }
}
