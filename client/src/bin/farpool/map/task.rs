//! What a worker does for an item: it runs a command, and tells how that ended and what it wrote.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::capture::{Capture, Event};

/// A command to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Work {
    /// Which item it is for; comes back with the outcome.
    pub(super) index: u64,
    pub(super) command: Vec<u8>,
    pub(super) timeout: Option<Duration>,
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) index: u64,
    pub(super) ended: Ended,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
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
}

/// Time between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_millis(200);
/// What one item may write: a little less than a pool's largest result.
const MOST_OUTPUT: usize = (1 << 30) - (1 << 20);

/// Runs the command; what it leaves in the background ends with it.
pub(super) fn run(work: Work) -> Outcome {
    let start = Instant::now();
    let mut capture = Capture::default();
    let ended = match spawn(&work.command) {
        Ok(mut child) => match watch(&mut child, &mut capture, work.timeout.map(|timeout| start + timeout)) {
            Ok(ended) => ended,
            Err(error) => {
                end_group(&child, Signal::SIGKILL);
                let _ = child.wait();
                Ended::NotStarted(format!("cannot follow the command: {error}"))
            }
        },
        Err(error) => Ended::NotStarted(why_not_started(&error)),
    };
    let (stdout, stderr) = capture.into_parts();
    Outcome { index: work.index, ended, stdout, stderr, host: host(), took: start.elapsed() }
}

/// This host as the cluster knows it, or as it knows itself.
fn host() -> String {
    let told = env::var("FARPOOL_HOST").ok().filter(|host| !host.is_empty());
    told.unwrap_or_else(|| nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned())
}

fn spawn(command: &[u8]) -> io::Result<Child> {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(OsStr::from_bytes(command));
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A process group of its own can be killed without this worker. Whatever leaves it is ended with the pool.
    shell.process_group(0).spawn()
}

fn why_not_started(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ArgumentListTooLong => "the command is longer than the 128 KiB that Linux allows".to_owned(),
        io::ErrorKind::InvalidInput => "the item holds a NUL byte, which no command line can".to_owned(),
        _ => format!("cannot start /bin/sh: {error}"),
    }
}

fn watch(child: &mut Child, capture: &mut Capture, deadline: Option<Instant>) -> io::Result<Ended> {
    capture.start(child)?;
    let event = capture.run(deadline, MOST_OUTPUT)?;
    if event != Event::Exited {
        end_group(child, Signal::SIGTERM);
        // It may have last words. With too much output there is no room for them.
        if event == Event::DeadlinePassed {
            capture.run(Some(Instant::now() + GRACE), MOST_OUTPUT)?;
        }
    }
    // The child is not reaped yet, so nobody else can have got the group's number.
    end_group(child, Signal::SIGKILL);
    capture.drain(MOST_OUTPUT)?;
    let status = child.wait()?;
    Ok(match event {
        Event::Exited => how(status),
        Event::DeadlinePassed => Ended::TimedOut,
        Event::Full => Ended::TooMuchOutput,
    })
}

fn how(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Code(code),
        (None, signal) => Ended::Signal(signal.unwrap_or_default()),
    }
}

fn end_group(child: &Child, signal: Signal) {
    // An error means that nobody is left in it.
    let _ = killpg(Pid::from_raw(child.id().cast_signed()), signal);
}
