use farpool_session::detached::{End, Reading, Step};

use super::cancelled;
use super::outcomes::decode;
use crate::args::Data;
use crate::error::Error;

/// Most results to reserve memory for: lengths from an iterator or a coordinator are only hints.
const MOST_AT_ONCE: u64 = 1 << 20;

/// All results, or the error of the lowest item that failed.
pub(super) fn collect<R: Data>(mut reading: Reading, name: &str) -> Result<Vec<R>, Error> {
    let (mut values, mut failed) = (Vec::new(), None);
    loop {
        match reading.step(decode) {
            Step::Wait => reading.wait(),
            // Items without an outcome are skipped: the job's end becomes the error.
            Step::Missing(_) => {}
            Step::Outcome(_, Ok(value)) if failed.is_none() => {
                if values.is_empty() {
                    values.reserve(reading.items().min(MOST_AT_ONCE) as usize);
                }
                values.push(value);
            }
            // The outcome is an error already.
            Step::Outcome(_, Ok(_)) => {}
            Step::Outcome(_, Err(error)) => {
                values = Vec::new();
                failed.get_or_insert(error);
                reading.pass_over_alike();
            }
            Step::Ended(End::Finished) => return failed.map_or(Ok(values), |error| Err(Error::from(error))),
            Step::Ended(End::Failed(error) | End::Broken(error)) => return Err(error.into()),
            Step::Ended(End::Cancelled | End::Running) => return Err(cancelled("get", name, reading.items())),
        }
    }
}
