//! Runs a command in a worker, and reports how it ended and what it wrote.

use std::env;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::capture::{Capture, Event, Until};
use super::command::CommandLine;
use super::group::adopt_orphans;
use super::item::Content;
use super::keep::{Output, OutputMode};
use crate::file_limit;

/// A command to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Work {
    /// The index of its item, returned with the outcome.
    pub(super) index: u64,
    pub(super) command: CommandLine,
    /// The content of its stdin; `None`: empty.
    pub(super) input: Option<Content>,
    pub(super) timeout: Option<Duration>,
    /// How long processes that it leaves in the background may run.
    pub(super) grace: Duration,
    pub(super) output_mode: OutputMode,
}

/// The outcome of a command.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) index: u64,
    pub(super) ended: Ended,
    pub(super) stdout: Output,
    pub(super) stderr: Output,
    /// Processes that it left in the background and that were killed.
    // Other builds read the results of detached maps.
    #[serde(rename = "left")]
    pub(super) killed_background: Vec<String>,
    pub(super) host: String,
    pub(super) took: Duration,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ended {
    Code(i32),
    Signal(i32),
    TimedOut,
    TooMuchOutput,
    NotStarted(String),
    /// Its output could not be kept.
    NotKept(String),
    /// Its output could not be printed; the error number.
    NotPrinted(i32),
}

/// Time between SIGTERM and SIGKILL.
const TERM_GRACE: Duration = Duration::from_millis(200);

/// Runs the command in a worker, and waits for processes that it leaves in the background. If it fails, the item counts as failed.
pub(super) fn run(work: Work) -> Outcome {
    let outcome = run_command(&work);
    // Output that cannot be printed ends the map, so a retry is pointless.
    if !outcome.ended.is_success() && !matches!(outcome.ended, Ended::NotPrinted(_)) {
        farpool::count_as_failed();
    }
    outcome
}

fn run_command(work: &Work) -> Outcome {
    let start = Instant::now();
    adopt_orphans();
    // With --line-buffer this worker prints what the command writes.
    file_limit::handle_signal();
    let mut killed_background = Vec::new();
    let begun = work.command.spawn(work.input.as_ref()).map_err(|error| work.command.start_error(&error));
    let begun = begun.and_then(|child| Capture::start(child, &work.output_mode).map_err(|error| not_tracked(&error)));
    let (ended, outputs) = match begun {
        Ok(capture) => watch(capture, work, start, &mut killed_background),
        Err(why) => (Ended::NotStarted(why), Ok([Output::Held(Vec::new()), Output::Held(Vec::new())])),
    };
    let (ended, [stdout, stderr]) = match outputs {
        Ok(outputs) => (ended, outputs),
        Err(error) => (not_kept(&error, &work.output_mode), [Output::Held(Vec::new()), Output::Held(Vec::new())]),
    };
    Outcome { index: work.index, ended, stdout, stderr, killed_background, host: host(), took: start.elapsed() }
}

/// Returns this host's name in the cluster, or its own.
fn host() -> String {
    let configured = env::var("FARPOOL_HOST").ok().filter(|host| !host.is_empty());
    configured.unwrap_or_else(|| nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned())
}

fn not_tracked(error: &io::Error) -> String {
    format!("cannot track the command: {error}")
}

fn watch(
    mut capture: Capture,
    work: &Work,
    start: Instant,
    killed_background: &mut Vec<String>,
) -> (Ended, io::Result<[Output; 2]>) {
    let deadline = work.timeout.map(|timeout| start + timeout);
    let event = follow(&mut capture, work, deadline, killed_background);
    capture.group.signal(Signal::SIGKILL);
    let (status, outputs) = capture.end();
    let ended = match (event, status) {
        (Ok(Event::Reached), Ok(status)) => how(status),
        (Ok(Event::DeadlinePassed), _) => Ended::TimedOut,
        (Ok(Event::Full), _) => Ended::TooMuchOutput,
        (Ok(Event::NotKept(error)), _) => not_kept(&error, &work.output_mode),
        (Err(error), _) | (_, Err(error)) => Ended::NotStarted(not_tracked(&error)),
    };
    (ended, outputs)
}

/// Follows the command and its background processes. The caller kills those that remain.
fn follow(
    capture: &mut Capture,
    work: &Work,
    deadline: Option<Instant>,
    killed_background: &mut Vec<String>,
) -> io::Result<Event> {
    let mut event = capture.run(Until::Exited, deadline)?;
    let mut has_exited = false;
    if matches!(event, Event::Reached) {
        has_exited = true;
        let until = Instant::now() + work.grace;
        event = capture.run(Until::GroupEmpty, Some(deadline.map_or(until, |deadline| deadline.min(until))))?;
    }
    if matches!(event, Event::DeadlinePassed) {
        if has_exited {
            *killed_background = capture.group.members();
        }
        capture.group.signal(Signal::SIGTERM);
        // It may still write something.
        let last = capture.run(Until::GroupEmpty, Some(Instant::now() + TERM_GRACE))?;
        event = match last {
            Event::NotKept(_) | Event::Full => last,
            // The command itself has exited, so its outcome is known.
            _ if has_exited => Event::Reached,
            _ => event,
        };
    }
    Ok(event)
}

fn how(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Code(code),
        (None, signal) => Ended::Signal(signal.unwrap_or_default()),
    }
}

fn not_kept(error: &io::Error, output_mode: &OutputMode) -> Ended {
    match output_mode {
        OutputMode::Lines { .. } => Ended::NotPrinted(error.raw_os_error().unwrap_or(Errno::EIO as i32)),
        OutputMode::Spooled(_) => {
            let folder = env::temp_dir();
            let advice = "set TMPDIR to a directory with more space";
            Ended::NotKept(format!("its output could not be kept in {}: {error}; {advice}", folder.display()))
        }
        OutputMode::InMemory => Ended::NotKept(format!("its output could not be read: {error}")),
    }
}
