//! The journal on a real disk: killed at any moment, damaged, and with no space left.

mod damaged;
mod full;
mod killed;
mod scratch;

use farpool_store::{JobStore, Outcomes};
use tokio::runtime::Builder;

/// Bytes of a record's header.
const HEADER: usize = 16;

/// Returns all outcomes of a job, which must exist.
fn outcomes(store: &dyn JobStore, job: u64) -> Vec<Outcomes> {
    let reading = store.read_outcomes(job, 0, false, u64::MAX).expect("the job has no outcomes");
    let runtime = Builder::new_current_thread().build().expect("cannot create a runtime");
    let read = runtime.block_on(reading.into_future());
    assert!(read.unread.is_none(), "{:?}", read.unread);
    read.parts
}
