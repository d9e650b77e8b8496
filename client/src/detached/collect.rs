use farpool_session::detached::{JobReader, ReadEnd, Step};

use super::cancelled;
use super::outcomes::decode;
use crate::args::Data;
use crate::error::Error;

/// The most results to reserve memory for: lengths from an iterator or a coordinator are only hints.
const MOST_AT_ONCE: u64 = 1 << 20;

/// Returns all results, or the error of the lowest item that failed.
pub(super) fn collect<R: Data>(mut reader: JobReader, name: &str) -> Result<Vec<R>, Error> {
    let (mut values, mut failed) = (Vec::new(), None);
    loop {
        match reader.step(decode) {
            Step::Wait => reader.wait(None),
            // Items without an outcome are skipped: the job's end becomes the error.
            Step::Missing(_) => {}
            Step::Outcome(_, Ok(value)) if failed.is_none() => {
                if values.is_empty() {
                    values.reserve(reader.items().min(MOST_AT_ONCE) as usize);
                }
                values.push(value);
            }
            // The outcome is an error already.
            Step::Outcome(_, Ok(_)) => {}
            Step::Outcome(_, Err(error)) => {
                values = Vec::new();
                failed.get_or_insert(error);
                reader.skip_same_failure();
            }
            Step::Ended(ReadEnd::Finished) => return failed.map_or(Ok(values), |error| Err(Error::from(error))),
            Step::Ended(ReadEnd::Failed(error) | ReadEnd::Broken(error)) => return Err(error.into()),
            Step::Ended(ReadEnd::Cancelled | ReadEnd::Running) => return Err(cancelled("get", name, reader.items())),
        }
    }
}
