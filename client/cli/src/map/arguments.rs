//! The options of `farpool map`, as given and as resolved.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use farpool::{Job, Pool};
use farpool_common::units;

use super::items::Source;
use super::records::{Mode, Place};
use super::template::Template;

#[derive(Debug, Args)]
pub(crate) struct MapArguments {
    /// The command, run by `sh -c`: {} is the item, which is appended if there is no placeholder
    #[arg(long, value_name = "COMMAND")]
    program: OsString,

    /// Read the items from a file instead of stdin
    #[arg(short, long, value_name = "FILE", conflicts_with = "items")]
    arg_file: Option<PathBuf>,

    /// Items end with a NUL byte instead of a newline, as from `find -print0`
    #[arg(short = '0', long)]
    null: bool,

    /// Print outputs as items finish, instead of in input order
    #[arg(long)]
    unordered: bool,

    /// Continue after an item has failed, instead of starting no more items
    #[arg(long)]
    keep_going: bool,

    /// Kill an item's command after this time: 10s, 500ms, 2m, 1h
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    timeout: Option<Duration>,

    /// Retry a failed command up to this many times
    ///
    /// Without this option, failed commands are not retried, and commands whose worker or host is lost are retried twice.
    /// With 0, no command runs twice.
    #[arg(long, value_name = "N")]
    retries: Option<u32>,

    /// Commands that run at once [default: as many as there are slots, or cores]
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    processes: Option<u32>,

    /// Give this many consecutive items to one worker, which runs them one after another
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    chunksize: Option<u32>,

    /// Run commands only on hosts with this label; can be given more than once
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    require: Vec<(String, String)>,

    /// Priority: among the pool's jobs the highest goes first; it may be negative
    #[arg(long, value_name = "N", allow_hyphen_values = true, default_value_t = 0)]
    priority: i32,

    /// Pass this variable to commands on a cluster, with its value here or this one; can be given more than once
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<OsString>,

    /// While slots are idle, run stragglers a second time elsewhere: the first outcome counts
    #[arg(long)]
    speculate: bool,

    /// Hand the whole job to the cluster under this name and return: `farpool results NAME` prints the outputs later
    #[arg(long, value_name = "NAME", conflicts_with_all = ["unordered", "tag", "results"])]
    detach: Option<String>,

    /// Show progress on stderr, if that is a terminal
    #[arg(long)]
    progress: bool,

    /// Start each line of output with the item and a tab
    #[arg(long)]
    tag: bool,

    /// Print each line of output as soon as it arrives, instead of whole outputs in input order
    ///
    /// A line above 1 MiB is printed in pieces, and lines of other items may come between them.
    #[arg(long, conflicts_with_all = ["detach", "progress"])]
    line_buffer: bool,

    /// How long processes that a command leaves in the background may run after it exits; then they are killed and named
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = units::duration_or_zero)]
    grace: Duration,

    /// Print the commands instead of running them
    #[arg(long)]
    dry_run: bool,

    /// Write a line of JSON for each item as soon as it has finished: item, index, exit_code, signal, timed_out, error, host,
    /// seconds, attempts, program, digest
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,

    /// Resume from the results of an earlier run: items that have a result are skipped
    #[arg(long, requires = "results", conflicts_with = "overwrite")]
    resume: bool,

    /// Like --resume, and run failed items again
    #[arg(long, requires = "results", conflicts_with = "overwrite")]
    retry_failed: bool,

    /// Replace the results in the file
    #[arg(long, requires = "results")]
    overwrite: bool,

    /// The items, instead of stdin
    #[arg(last = true, value_name = "ITEM")]
    items: Vec<OsString>,
}

/// What to do.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) template: Template,
    pub(super) source: Source,
    pub(super) separator: u8,
    pub(super) ordered: bool,
    pub(super) keep_going: bool,
    pub(super) timeout: Option<Duration>,
    /// How often a command that fails is run again.
    pub(super) retries: u32,
    /// How often one is run again whose worker or host is lost; `None`: as usual.
    pub(super) retries_of_lost: Option<u32>,
    pub(super) processes: Option<usize>,
    /// Items of a chunk; `None`: farpool chooses.
    pub(super) chunksize: Option<u64>,
    pub(super) require: Vec<(String, String)>,
    pub(super) priority: i32,
    pub(super) speculate: bool,
    /// What it is called if the cluster is to keep it.
    pub(super) detach: Option<String>,
    /// Variables that were chosen, with their values.
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) progress: bool,
    pub(super) tag: bool,
    /// Lines are printed as they come.
    pub(super) line_buffer: bool,
    /// How long what a command leaves in the background may go on.
    pub(super) grace: Duration,
    pub(super) dry_run: bool,
    pub(super) results: Option<Place>,
}

impl MapArguments {
    /// Checks what clap cannot. `items_follow`: there is a `--`, so that no item behind it means no item at all.
    pub(super) fn resolve(self, items_follow: bool) -> Result<Plan, String> {
        let template = Template::parse(&self.program.into_vec()).map_err(|error| error.to_string())?;
        if self.speculate && self.retries == Some(0) {
            return Err(
                "--speculate may run a command twice, but --retries 0 forbids that: drop one of them".to_owned()
            );
        }
        let mode = match (self.overwrite, self.retry_failed) {
            (true, _) => Mode::Overwrite,
            (false, failed) if failed || self.resume => Mode::Resume { failed },
            _ => Mode::New,
        };
        let source = match self.arg_file {
            Some(path) => Source::File(path),
            None if items_follow => Source::Arguments(self.items.into_iter().map(OsStringExt::into_vec).collect()),
            None => Source::Stdin,
        };
        Ok(Plan {
            template,
            source,
            separator: if self.null { 0 } else { b'\n' },
            ordered: !self.unordered,
            keep_going: self.keep_going,
            timeout: self.timeout,
            retries: self.retries.unwrap_or(0),
            retries_of_lost: self.retries,
            processes: self.processes.map(|processes| processes as usize),
            chunksize: self.chunksize.map(u64::from),
            require: self.require,
            priority: self.priority,
            speculate: self.speculate,
            detach: self.detach,
            environment: self.env.iter().map(variable).collect::<Result<_, _>>()?,
            progress: self.progress,
            tag: self.tag,
            line_buffer: self.line_buffer,
            grace: self.grace,
            dry_run: self.dry_run,
            results: self.results.map(|path| Place { path, mode }),
        })
    }
}

impl Plan {
    /// A job of this function with the options that were given.
    pub(super) fn job<'p, F>(&self, pool: &'p Pool, f: F) -> Job<'p, F> {
        let label = String::from_utf8_lossy(self.template.text());
        let mut job = pool.job(f).label(label).priority(self.priority).speculate(self.speculate);
        if let Some(items) = self.chunksize {
            job = job.chunksize(items);
        }
        if let Some(retries) = self.retries_of_lost {
            job = job.retries(retries);
        }
        job
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE, as in gpu=a100".to_owned()),
    }
}

fn variable(text: &OsString) -> Result<(OsString, OsString), String> {
    let bytes = text.as_bytes();
    let (name, value) = match bytes.iter().position(|&byte| byte == b'=') {
        Some(at) => (OsStr::from_bytes(&bytes[..at]), Some(OsStr::from_bytes(&bytes[at + 1..]).to_owned())),
        None => (text.as_os_str(), env::var_os(text)),
    };
    match value {
        _ if name.is_empty() => Err(format!("--env {} names no variable", text.display())),
        None => Err(format!("--env {0}: this variable is not set here; set it with --env {0}=VALUE", text.display())),
        Some(value) => Ok((name.to_owned(), value)),
    }
}
