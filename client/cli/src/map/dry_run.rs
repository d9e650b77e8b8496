//! `--dry-run`: prints the commands without running them.

use std::io::{BufWriter, Write};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::MapError;
use super::item::MAX_VALUE_BYTES;
use super::plan::Plan;
use crate::streams;

pub(super) fn print(plan: &Plan) -> Result<u64, MapError> {
    let queue = plan.input.read().map_err(MapError::Failed)?;
    let mut stdout = BufWriter::new(streams::stdout().map_err(|error| MapError::of_stdout(&error))?);
    let mut number = 0;
    while let Some(item) = queue.pop(Duration::MAX) {
        let mut line = plan.command(&item, number).shown();
        number += 1;
        if item.cut {
            return Err(MapError::Failed(format!(
                "item {number} is longer than the {MAX_VALUE_BYTES} bytes that Linux allows"
            )));
        }
        line.push(b'\n');
        stdout.write_all(&line).map_err(|error| MapError::of_stdout(&error))?;
    }
    stdout.flush().map_err(|error| MapError::of_stdout(&error))?;
    match queue.poll(&Context::from_waker(Waker::noop())) {
        Poll::Ready(Err(error)) => Err(MapError::Failed(format!("cannot read the items: {error}"))),
        _ => Ok(0),
    }
}
