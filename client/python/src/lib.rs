//! The compiled half of the Python package `farpool`: the sessions of its pools, and the workers' loop.
//!
//! It is a front of `farpool-session` and a language of `farpool-worker`; scheduling, retries and supervision are theirs. The other
//! half, in `python/farpool`, has the API of `multiprocessing.Pool` and packs functions.
//!
//! - `codec.rs` turns Python values into bytes and back: `native.rs` common ones, `instance.rs` instances of classes, `common.rs` what
//!   many items have in common. `memory.rs` holds the contents of arrays.
//! - `session.rs` has the pool, `task.rs` a packed function and the options of a call, `progress.rs` the count for its progress bar.
//! - `feeder.rs` pulls and encodes input, `collector.rs` decodes outcomes. `map.rs`, `async_result.rs` and `imap.rs` have the calls.
//! - `detached.rs` has jobs that a coordinator keeps.
//! - `background.rs` lets threads of this module run Python code until the interpreter shuts down.
//! - `callbacks.rs` has the thread that runs callbacks and prints the output of workers on clusters.
//! - `worker.rs` runs in fork servers and workers.
//!
//! No thread waits while it is attached to the interpreter (holds the GIL), and each attaches once for many items.

mod async_result;
mod background;
mod callbacks;
mod codec;
mod collector;
mod common;
mod detached;
mod errors;
mod feeder;
mod imap;
mod instance;
mod map;
mod memory;
mod native;
mod progress;
mod session;
mod shared;
mod task;
mod waiting;
mod worker;

use pyo3::prelude::*;
use pyo3::types::PyType;

#[pymodule]
fn _farpool(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<session::Session>()?;
    module.add_class::<task::Task>()?;
    module.add_class::<task::Options>()?;
    module.add_class::<progress::Progress>()?;
    module.add_class::<async_result::AsyncResult>()?;
    module.add_class::<imap::IMapIterator>()?;
    module.add_class::<detached::DetachedJob>()?;
    module.add_class::<detached::Outcomes>()?;
    module.add_class::<shared::SharedHandle>()?;
    module.add_class::<shared::SharedMemory>()?;
    module.add_function(wrap_pyfunction!(session::open, module)?)?;
    module.add_function(wrap_pyfunction!(detached::attach, module)?)?;
    module.add_function(wrap_pyfunction!(session::end_threads, module)?)?;
    module.add_function(wrap_pyfunction!(codec::encode_value, module)?)?;
    module.add_function(wrap_pyfunction!(codec::decode_value, module)?)?;
    module.add_function(wrap_pyfunction!(shared::find_shared, module)?)?;
    module.add_function(wrap_pyfunction!(worker::slot, module)?)?;
    module.add_function(wrap_pyfunction!(worker::serve, module)?)
}

/// Returns `class[item]`, for annotations.
fn generic_alias<'py>(class: &Bound<'py, PyType>, item: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    class.py().import("types")?.getattr("GenericAlias")?.call1((class, item))
}
