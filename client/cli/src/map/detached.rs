//! `--detach`: a map that the cluster keeps, and the results that `farpool results` prints.

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
use input::{DetachedInput, Entry};
pub(crate) use results::print;

/// An item of a detached map and its command.
#[derive(Debug, Serialize, Deserialize)]
struct DetachedItem {
    #[serde(with = "serde_bytes")]
    item: Vec<u8>,
    work: Work,
}

/// The outcome of an item.
#[derive(Debug, Serialize, Deserialize)]
struct Done {
    #[serde(with = "serde_bytes")]
    item: Vec<u8>,
    outcome: Outcome,
}

/// Detaches the map. Returns the number of failed items, which is 0.
pub(super) fn detach(plan: &Plan, name: &str, address: Option<String>) -> Result<u64, MapError> {
    let Some(address) = address else {
        let message =
            "--detach needs a cluster to keep the job: give its coordinator with --address or FARPOOL_ADDRESS";
        return Err(MapError::Failed(message.to_owned()));
    };
    let queue = plan.input.read().map_err(MapError::Failed)?;
    let pool = run::open(plan, Some(address))?;
    let failure = Rc::new(RefCell::new(None));
    let input = DetachedInput::new(plan, queue, Rc::clone(&failure));
    let job = plan.job(&pool, run_item).progress(plan.progress);
    let detached = job.detach(name).map(input).map_err(|error| match failure.take() {
        Some(failure) => MapError::Failed(failure),
        None => error.into(),
    })?;
    drop(pool);
    let line = format!("job {} is detached; farpool results {} --wait prints its outputs\n", name, detached.name());
    streams::stdout()
        .and_then(|mut stdout| stdout.write_all(line.as_bytes()))
        .map_err(|error| MapError::of_stdout(&error))?;
    Ok(0)
}

/// Runs one attempt of an item, in a worker.
fn run_item(entry: Entry) -> Option<Done> {
    let DetachedItem { item, work } = entry.0?;
    Some(Done { item, outcome: task::run(work) })
}
