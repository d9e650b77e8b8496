//! The compiled half of the Python package `farpool`: how its pools reach workers, and what runs in these.
//!
//! It is one more front over `farpool-session` and one more language over `farpool-worker`; scheduling, retries and supervision
//! are theirs. The other half, in `python/farpool`, has the API of `multiprocessing.Pool`, and decides how functions travel.
//!
//! - `codec.rs` turns Python values into bytes and back.
//! - `session.rs` is a pool, `task.rs` a function with the options of a call. `feeder.rs` pulls and encodes input, `collector.rs`
//!   decodes outcomes. `map.rs`, `async_result.rs` and `imap.rs` are the calls.
//! - `callbacks.rs` is the thread that runs callbacks and prints what workers of clusters print.
//! - `worker.rs` is what runs in fork servers and workers.
//!
//! A thread never waits while it is attached to the interpreter (holds the GIL), and it attaches once for many items.

mod async_result;
mod callbacks;
mod codec;
mod collector;
mod errors;
mod feeder;
mod imap;
mod map;
mod session;
mod task;
mod waiting;
mod worker;

use pyo3::prelude::*;

#[pymodule]
fn _farpool(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<session::Session>()?;
    module.add_class::<task::Task>()?;
    module.add_class::<task::Options>()?;
    module.add_class::<async_result::AsyncResult>()?;
    module.add_class::<imap::IMapIterator>()?;
    module.add_function(wrap_pyfunction!(session::open, module)?)?;
    module.add_function(wrap_pyfunction!(codec::encode_value, module)?)?;
    module.add_function(wrap_pyfunction!(codec::decode_value, module)?)?;
    module.add_function(wrap_pyfunction!(worker::serve, module)?)
}
