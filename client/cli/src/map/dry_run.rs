//! `--dry-run`: the commands, and nothing run.

use std::io::{BufWriter, Write};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::MapError;
use super::item::LONGEST;
use super::plan::Plan;
use crate::streams;

pub(super) fn print(plan: &Plan) -> Result<u64, MapError> {
    let queue = plan.input.read().map_err(MapError::Told)?;
    let mut stdout = BufWriter::new(streams::stdout().map_err(|error| MapError::of_stdout(&error))?);
    let mut number = 0;
    while let Some(item) = queue.pop(Duration::MAX) {
        let mut line = plan.command(&item, number).shown();
        number += 1;
        if item.cut {
            return Err(MapError::Told(format!("item {number} is longer than the {LONGEST} bytes that Linux allows")));
        }
        line.push(b'\n');
        stdout.write_all(&line).map_err(|error| MapError::of_stdout(&error))?;
    }
    stdout.flush().map_err(|error| MapError::of_stdout(&error))?;
    match queue.poll(&Context::from_waker(Waker::noop())) {
        Poll::Ready(Err(error)) => Err(MapError::Told(format!("cannot read the items: {error}"))),
        _ => Ok(0),
    }
}
