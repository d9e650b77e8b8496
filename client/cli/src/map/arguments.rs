//! The options of `farpool map` as given.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use farpool_common::units::{self, ByteSize};

#[derive(Debug, Args)]
pub(crate) struct MapArguments {
    /// The command, then ::: and the items. A single word is a line for the shell
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub(super) words: Vec<OsString>,

    /// Read the items from a file instead of stdin
    #[arg(short, long, value_name = "FILE")]
    pub(super) arg_file: Option<PathBuf>,

    /// Give this many items to one command: {} is all of them, {1} {2} ... are single ones
    #[arg(short = 'n', long, value_name = "N", value_parser = units::count)]
    pub(super) max_args: Option<u32>,

    /// Cut each item into columns {1} {2} ... at this string: `,`, `\t`, or one space for any number of spaces and tabs
    #[arg(long, value_name = "STRING", allow_hyphen_values = true, conflicts_with = "max_args")]
    pub(super) colsep: Option<OsString>,

    /// Cut the input into blocks of whole lines: each command reads one block from its stdin
    #[arg(long, conflicts_with_all = ["max_args", "colsep"])]
    pub(super) pipe: bool,

    /// Size of the blocks, up to 256MiB; a longer line is a block of its own
    #[arg(long, value_name = "SIZE", default_value = "1MiB", requires = "pipe", value_parser = block)]
    pub(super) block: usize,

    /// Items end with a NUL byte instead of a newline, as from `find -print0`
    #[arg(short = '0', long)]
    pub(super) null: bool,

    /// Print outputs as items finish, instead of in input order
    #[arg(long)]
    pub(super) unordered: bool,

    /// Continue after an item has failed, instead of skipping the remaining items
    #[arg(long)]
    pub(super) keep_going: bool,

    /// Kill an item's command after this time: 10s, 500ms, 2m, 1h
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub(super) timeout: Option<Duration>,

    /// Retry a failed command up to this many times
    ///
    /// Attempts whose worker or host is lost count too. The next attempt may be on another host. Without this option, failed
    /// commands are not retried, and commands whose worker or host is lost are retried twice. With 0, no command runs twice.
    /// Once an item has failed for good, failed commands of other items are not retried either, unless --keep-going is given.
    #[arg(long, value_name = "N", value_parser = units::count_or_zero)]
    pub(super) retries: Option<u32>,

    /// How many commands run at once [default: all slots of the cluster, or all cores of this machine]
    #[arg(short = 'j', long, value_name = "N", value_parser = units::count)]
    pub(super) processes: Option<u32>,

    /// Give this many consecutive items to one worker, which runs them one after another
    #[arg(long, value_name = "N", value_parser = units::count)]
    pub(super) chunksize: Option<u32>,

    /// Run commands only on hosts with this label; can be given more than once
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub(super) require: Vec<(String, String)>,

    /// Priority among the pool's jobs: the highest goes first; may be negative
    #[arg(long, value_name = "N", allow_hyphen_values = true, default_value_t = 0, value_parser = priority)]
    pub(super) priority: i32,

    /// Pass this variable to commands on a cluster, with VALUE or its value here; can be given more than once
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(super) env: Vec<OsString>,

    /// While slots are idle, run stragglers a second time elsewhere: the first outcome counts
    #[arg(long)]
    pub(super) speculate: bool,

    /// Hand the whole job to the cluster under this name and return: `farpool results NAME` prints the outputs later
    #[arg(long, value_name = "NAME", conflicts_with_all = ["unordered", "tag", "results"])]
    pub(super) detach: Option<String>,

    /// Show progress on stderr, if that is a terminal
    #[arg(long)]
    pub(super) progress: bool,

    /// Start each line of output with the item and a tab
    #[arg(long)]
    pub(super) tag: bool,

    /// Print each line of output as soon as it arrives, instead of whole outputs in input order
    ///
    /// A line above 1 MiB is printed in pieces, and lines of other items may come between them.
    #[arg(long, conflicts_with_all = ["detach", "progress"])]
    pub(super) line_buffer: bool,

    /// How long processes that a command leaves in the background may run after it exits; then they are killed and named
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = units::duration_or_zero)]
    pub(super) grace: Duration,

    /// Print the commands instead of running them
    #[arg(long)]
    pub(super) dry_run: bool,

    /// Write a line of JSON for each item as soon as it has finished: item, index, exit_code, signal, timed_out, error, host,
    /// seconds, attempts, program, digest
    #[arg(long, value_name = "FILE")]
    pub(super) results: Option<PathBuf>,

    /// Resume from the results of an earlier run: items that have a result are skipped
    #[arg(long, requires = "results", conflicts_with = "overwrite")]
    pub(super) resume: bool,

    /// Like --resume, and run failed items again
    #[arg(long, requires = "results", conflicts_with = "overwrite")]
    pub(super) retry_failed: bool,

    /// Replace the results in the file
    #[arg(long, requires = "results")]
    pub(super) overwrite: bool,

    /// Deprecated, removed in the next release: the command as one line for the shell, with the items after `--`
    ///
    /// Write `farpool map 'LINE' ::: ITEM...` instead, which can resume from the same results file. {1} {2} ... are not placeholders here.
    #[arg(long, value_name = "LINE", hide_short_help = true)]
    pub(super) program: Option<OsString>,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is written KEY=VALUE, as in gpu=a100".to_owned()),
    }
}

fn priority(text: &str) -> Result<i32, String> {
    text.trim().parse().map_err(|_| format!("write a whole number from {} to {}", i32::MIN, i32::MAX))
}

fn block(text: &str) -> Result<usize, String> {
    let ByteSize(bytes) = text.parse()?;
    match usize::try_from(bytes) {
        Ok(bytes) if (1..=super::blocks::MAX_BLOCK_BYTES).contains(&bytes) => Ok(bytes),
        _ => Err(format!("a block must be from 1 byte to {} MiB", super::blocks::MAX_BLOCK_BYTES >> 20)),
    }
}
