//! The command line, and the help that teaches it.

use std::ffi::OsString;

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
    /// The job, as `farpool jobs` names it
    pub(crate) job: String,
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

/// Whether arguments that make no sense were meant for `farpool map`.
pub(crate) fn is_map(mut arguments: impl Iterator<Item = OsString>) -> bool {
    while let Some(argument) = arguments.next() {
        if argument == "--address" {
            arguments.next();
        } else if !argument.as_encoded_bytes().starts_with(b"-") {
            return argument == "map";
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
`farpool map` has its own: it counts the items that failed.";

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

const CANCEL_EXAMPLES: &str = "\
Examples:
  farpool jobs                                            tells the names
  farpool cancel 7
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
    fn map_is_recognised_behind_global_options() {
        let is_map = |line: &str| is_map(line.split(' ').map(OsString::from));
        assert!(is_map("map --wrong") && is_map("--address x map") && is_map("--address=x map -q"));
        assert!(!is_map("status map") && !is_map("--address map") && !is_map("--map"));
    }
}
