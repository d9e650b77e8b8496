//! The items of jobs: what they do, and which of their outcomes are right.

use std::fs::OpenOptions;
use std::io::Write;
use std::thread;
use std::time::Duration;

use farpool::{Error, ErrorKind};
use farpool_testkit::random::mix;
use nix::sys::signal::{Signal, raise};
use serde::{Deserialize, Serialize};

/// An item.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    /// The file where it records its start.
    pub(crate) log: String,
    pub(crate) item: u64,
    pub(crate) nap: Duration,
    pub(crate) behavior: Behavior,
    pub(crate) ballast: Vec<u8>,
}

/// Its behaviour when it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Behavior {
    Returns,
    Panics,
    KillsItsWorker,
}

/// The result of an item: its number, and values computed from its input.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    item: u64,
    sum: u64,
    ballast: Vec<u8>,
}

impl Answer {
    /// Returns the sum over its item's input.
    pub(crate) fn sum(&self) -> u64 {
        self.sum
    }
}

/// Runs an item, in a worker.
pub(crate) fn work(task: Task) -> Answer {
    // An agent that was declared lost may run items of a job that has ended, and whose log is gone.
    if let Ok(mut log) = OpenOptions::new().append(true).open(&task.log) {
        let _ = log.write_all(format!("{}\n", task.item).as_bytes());
    }
    thread::sleep(task.nap);
    match task.behavior {
        Behavior::Returns => answer(&task),
        Behavior::Panics => panic!("item {} panics on purpose", task.item),
        Behavior::KillsItsWorker => {
            let _ = raise(Signal::SIGKILL);
            answer(&task)
        }
    }
}

fn answer(task: &Task) -> Answer {
    let sum = task.ballast.iter().fold(mix(task.item), |sum, byte| sum.rotate_left(3) ^ u64::from(*byte));
    Answer { item: task.item, sum, ballast: task.ballast.iter().map(|byte| !byte).collect() }
}

/// The kinds of right outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    Done,
    Panicked,
    /// Its workers or agents died more often than it may be retried.
    Lost(LostBy),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LostBy {
    Worker,
    Agent,
}

impl Fate {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Fate::Done => "done",
            Fate::Panicked => "panicked",
            Fate::Lost(LostBy::Worker) => "WorkerDied",
            Fate::Lost(LostBy::Agent) => "AgentLost",
        }
    }
}

/// Returns the item of an outcome.
pub(crate) fn item_of(outcome: &Result<Answer, Error>) -> Option<u64> {
    match outcome {
        Ok(answer) => Some(answer.item),
        Err(error) => error.item(),
    }
}

/// Checks that this may be the outcome of the task.
pub(crate) fn judge(task: &Task, retries: u32, outcome: &Result<Answer, Error>) -> Result<Fate, String> {
    let item = task.item;
    let error = match outcome {
        Ok(result) if task.behavior == Behavior::Returns && *result == answer(task) => return Ok(Fate::Done),
        Ok(Answer { item: other, sum, .. }) => {
            return Err(format!("item {item}, which {:?}, gave the result of item {other}, {sum}", task.behavior));
        }
        Err(error) => error,
    };
    let words = format!("item {item} panics on purpose");
    let lost = |by| match error.attempts() == retries + 1 {
        true => Ok(Fate::Lost(by)),
        false => {
            Err(format!("item {item} failed after {} attempts and not {}: {error}", error.attempts(), retries + 1))
        }
    };
    match error.kind() {
        ErrorKind::Panicked if task.behavior == Behavior::Panics && error.message().contains(&words) => {
            Ok(Fate::Panicked)
        }
        ErrorKind::WorkerDied => lost(LostBy::Worker),
        ErrorKind::AgentLost => lost(LostBy::Agent),
        _ => Err(format!("item {item}, which {:?}, failed: {error}", task.behavior)),
    }
}
