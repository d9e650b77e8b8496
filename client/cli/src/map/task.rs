//! What a worker does for an item: it runs a command, and tells how that ended and what it wrote.

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
use super::keep::{Keeping, Output};
use crate::file_limit;

/// A command to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Work {
    /// Which item it is for; comes back with the outcome.
    pub(super) index: u64,
    pub(super) command: CommandLine,
    /// What it reads from its stdin, which is empty otherwise.
    pub(super) input: Option<Content>,
    pub(super) timeout: Option<Duration>,
    /// How long what it leaves in the background may go on.
    pub(super) grace: Duration,
    pub(super) keeping: Keeping,
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) index: u64,
    pub(super) ended: Ended,
    pub(super) stdout: Output,
    pub(super) stderr: Output,
    /// What it had left in the background, and was killed.
    pub(super) left: Vec<String>,
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
    /// What it wrote could not be kept.
    NotKept(String),
    /// What it wrote could not be printed as it came: the system's number for why.
    NotPrinted(i32),
}

/// Time between SIGTERM and SIGKILL.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Runs the command in a worker, and waits for processes that it leaves in the background. If it fails, the item counts as failed.
pub(super) fn run(work: Work) -> Outcome {
    let outcome = carry_out(&work);
    // Output that cannot be printed ends the map, so another attempt is of no use.
    if !outcome.ended.is_success() && !matches!(outcome.ended, Ended::NotPrinted(_)) {
        farpool::count_as_failed();
    }
    outcome
}

fn carry_out(work: &Work) -> Outcome {
    let start = Instant::now();
    adopt_orphans();
    // With --line-buffer this worker prints what the command writes.
    file_limit::survive();
    let mut left = Vec::new();
    let begun = work.command.spawn(work.input.as_ref()).map_err(|error| work.command.why_not_started(&error));
    let begun = begun.and_then(|child| Capture::start(child, &work.keeping).map_err(|error| not_followed(&error)));
    let (ended, outputs) = match begun {
        Ok(capture) => watch(capture, work, start, &mut left),
        Err(why) => (Ended::NotStarted(why), Ok([Output::Held(Vec::new()), Output::Held(Vec::new())])),
    };
    let (ended, [stdout, stderr]) = match outputs {
        Ok(outputs) => (ended, outputs),
        Err(error) => (not_kept(&error, &work.keeping), [Output::Held(Vec::new()), Output::Held(Vec::new())]),
    };
    Outcome { index: work.index, ended, stdout, stderr, left, host: host(), took: start.elapsed() }
}

/// This host as the cluster knows it, or as it knows itself.
fn host() -> String {
    let told = env::var("FARPOOL_HOST").ok().filter(|host| !host.is_empty());
    told.unwrap_or_else(|| nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned())
}

fn not_followed(error: &io::Error) -> String {
    format!("cannot track the command: {error}")
}

fn watch(
    mut capture: Capture,
    work: &Work,
    start: Instant,
    left: &mut Vec<String>,
) -> (Ended, io::Result<[Output; 2]>) {
    let deadline = work.timeout.map(|timeout| start + timeout);
    let event = follow(&mut capture, work, deadline, left);
    capture.group.signal(Signal::SIGKILL);
    let (status, outputs) = capture.end();
    let ended = match (event, status) {
        (Ok(Event::Reached), Ok(status)) => how(status),
        (Ok(Event::DeadlinePassed), _) => Ended::TimedOut,
        (Ok(Event::Full), _) => Ended::TooMuchOutput,
        (Ok(Event::NotKept(error)), _) => not_kept(&error, &work.keeping),
        (Err(error), _) | (_, Err(error)) => Ended::NotStarted(not_followed(&error)),
    };
    (ended, outputs)
}

/// Follows the command and what it leaves in the background; what is left of both then is to be killed.
fn follow(capture: &mut Capture, work: &Work, deadline: Option<Instant>, left: &mut Vec<String>) -> io::Result<Event> {
    let mut event = capture.run(Until::Exited, deadline)?;
    let mut has_exited = false;
    if matches!(event, Event::Reached) {
        has_exited = true;
        let until = Instant::now() + work.grace;
        event = capture.run(Until::GroupEmpty, Some(deadline.map_or(until, |deadline| deadline.min(until))))?;
    }
    if matches!(event, Event::DeadlinePassed) {
        if has_exited {
            *left = capture.group.members();
        }
        capture.group.signal(Signal::SIGTERM);
        // It may have last words.
        let last = capture.run(Until::GroupEmpty, Some(Instant::now() + LAST_WORDS))?;
        event = match last {
            Event::NotKept(_) | Event::Full => last,
            // How the command itself ended is known.
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

fn not_kept(error: &io::Error, keeping: &Keeping) -> Ended {
    match keeping {
        Keeping::Lines { .. } => Ended::NotPrinted(error.raw_os_error().unwrap_or(Errno::EIO as i32)),
        Keeping::Spooled(_) => {
            let folder = env::temp_dir();
            let way_out = "set TMPDIR to a directory with more space";
            Ended::NotKept(format!("its output could not be kept in {}: {error}; {way_out}", folder.display()))
        }
        Keeping::InMemory => Ended::NotKept(format!("its output could not be read: {error}")),
    }
}
