//! The command line, and the help that teaches it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::map::{MapArguments, help};

/// Where a coordinator listens unless it is told otherwise.
pub(crate) const DEFAULT_ADDRESS: &str = "http://127.0.0.1:7070";

/// Runs commands over a farpool cluster, or over the cores of this machine, and shows what a cluster is doing.
#[derive(Debug, Parser)]
#[command(name = "farpool", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// The coordinator, as http://host:port. Not given: `map` runs on this machine, everything else asks the coordinator
    /// at http://127.0.0.1:7070
    #[arg(long, global = true, env = "FARPOOL_ADDRESS", hide_env_values = true, value_name = "URL")]
    address: Option<String>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command once for each item, over the pool
    #[command(
        long_about = help::LONG,
        after_help = help::SHORT_EXAMPLES,
        after_long_help = help::EXAMPLES
    )]
    Map(Box<MapArguments>),
    /// Show agents, pools and jobs, and what the coordinator holds
    #[command(after_help = STATUS_EXAMPLES)]
    Status(ShowArguments),
    /// Show the agents: their slots, what they run and how fast
    #[command(after_help = AGENTS_EXAMPLES)]
    Agents(ShowArguments),
    /// Show the jobs: how far they are and how fast
    #[command(after_help = JOBS_EXAMPLES)]
    Jobs(ShowArguments),
    /// Show the detached jobs; or print what one of them has brought
    #[command(long_about = RESULTS_LONG, after_help = RESULTS_EXAMPLES)]
    Results(ResultsArguments),
    /// End a job: what runs of it is killed, and its client gets an error
    #[command(after_help = CANCEL_EXAMPLES)]
    Cancel(CancelArguments),
    /// Have an agent finish what runs, give back the rest, and leave
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain(DrainArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    /// One JSON document instead of tables, for programs: keys stay as they are from release to release
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CancelArguments {
    /// The job's number, as `farpool jobs` shows it; or a detached job's name, if there is anything but digits in it
    pub(crate) job: String,
    /// It is a detached job's name, even if it looks like a number
    #[arg(long, conflicts_with = "number")]
    pub(crate) detached: bool,
    /// It is a number, even if a detached job is called so
    #[arg(long)]
    pub(crate) number: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ResultsArguments {
    /// The detached job whose outputs are printed; none: all detached jobs are shown
    pub(crate) name: Option<String>,
    /// Wait for the outputs that are not there yet, until the job has ended
    #[arg(long, requires = "name")]
    pub(crate) wait: bool,
    /// Drop the job and its results when all of it was printed
    #[arg(long, requires = "name")]
    pub(crate) discard: bool,
    /// Write each result as it is encoded to DIR/INDEX instead, with the index of its item, from 0
    #[arg(long, value_name = "DIR", requires = "name")]
    pub(crate) raw: Option<PathBuf>,
    /// Begin each line of output with the item and a tab
    #[arg(long, requires = "name", conflicts_with = "raw")]
    pub(crate) tag: bool,
    /// Write a line of JSON for each item, as `farpool map --results` does
    #[arg(long, value_name = "FILE", requires = "name", conflicts_with = "raw")]
    pub(crate) results: Option<PathBuf>,
    /// Replace the results that are in that file
    #[arg(long, requires = "results")]
    pub(crate) overwrite: bool,
    /// Show the jobs as one JSON document: keys stay as they are from release to release
    #[arg(long, conflicts_with = "name")]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DrainArguments {
    /// The agent's id, as `farpool agents` names it; or its host, if only one agent runs there
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

/// Whether arguments that make no sense were meant for a command whose exit code counts items.
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

`farpool COMMAND --help` tells all about a command.
Exit codes: 0 done, 1 failed, 2 the command line makes no sense.
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
Show the detached jobs that the coordinator keeps; or, with a name, print what
that job has brought.

Of a job of `farpool map --detach` that is what `farpool map` would have printed,
in the order of the input, and the exit code is the same: see
`farpool map --help`. Of a job of another program only the number of results is
shown, and how large they are; --raw writes each of them into a file.

Results stay until they are discarded (--discard, when all of it was printed)
or expire: they can be printed as often as you like. Without --wait, what is
there of a job that goes on is printed, and the exit code is 125.";

const RESULTS_EXAMPLES: &str = "\
Examples:
  farpool map --detach nightly --program ./simulate -a seeds.txt
  farpool results                               what there is
  farpool results nightly --wait                prints outputs as they come
  farpool results nightly --discard > all.txt   and the name is free again
  farpool results squares --raw folder          of a job of another program
  farpool results --json | jq -r '.results[] | select(.failed > 0) | .name'";

const CANCEL_EXAMPLES: &str = "\
Examples:
  farpool jobs                                            tells the names
  farpool cancel 7
  farpool cancel nightly                                  a detached job
  farpool cancel --detached 2026                          one called 2026
  farpool jobs --json | jq -r '.jobs[].job' | xargs -n1 farpool cancel";

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
