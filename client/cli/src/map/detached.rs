//! `--detach`: a map that the cluster keeps, and what `farpool results` prints of it.

mod input;
mod results;

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::MapError;
use super::plan::Plan;
use super::run;
use super::task::{self, Outcome, Work};
use crate::streams;
use input::{Entry, Input};
pub(crate) use results::print;

/// What a command needs that nobody here waits for.
#[derive(Debug, Serialize, Deserialize)]
struct Errand {
    item: Vec<u8>,
    work: Work,
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
struct Done {
    item: Vec<u8>,
    outcome: Outcome,
}

/// Detaches the map; returns how many items failed, which is none.
pub(super) fn detach(plan: &Plan, name: &str, address: Option<String>) -> Result<u64, MapError> {
    let Some(address) = address else {
        let message =
            "--detach needs a cluster to keep the job: give its coordinator with --address or FARPOOL_ADDRESS";
        return Err(MapError::Told(message.to_owned()));
    };
    let queue = plan.input.read().map_err(MapError::Told)?;
    let pool = run::open(plan, Some(address))?;
    let trouble = Rc::new(RefCell::new(None));
    let input = Input::new(plan, queue, Rc::clone(&trouble));
    let job = plan.job(&pool, carry_out).progress(plan.progress);
    let detached = job.detach(name).map(input).map_err(|error| match trouble.take() {
        Some(trouble) => MapError::Told(trouble),
        None => error.into(),
    })?;
    drop(pool);
    let line = format!("job {} is detached; farpool results {} --wait prints its outputs\n", name, detached.name());
    streams::stdout()
        .and_then(|mut stdout| stdout.write_all(line.as_bytes()))
        .map_err(|error| MapError::of_stdout(&error))?;
    Ok(0)
}

/// Runs in a worker: one attempt at an item.
fn carry_out(entry: Entry) -> Option<Done> {
    let Errand { item, work } = entry.0?;
    Some(Done { item, outcome: task::run(work) })
}
