//! Threads on which a call talks to the coordinator.

use std::io;
use std::panic;
use std::thread;

use tokio::runtime;

use crate::error::{Error, ErrorKind};
use crate::worker;

/// Runs this on a thread of its own; `refuse` is told if that is not possible.
pub(super) fn start(
    work: impl Future<Output = ()> + Send + 'static,
    refuse: impl FnOnce(Error) + Send + 'static,
) -> Result<(), Error> {
    let run = move || match runtime() {
        Ok(runtime) => {
            runtime.block_on(work);
            // Not waiting for whoever reads a file or looks up a name.
            runtime.shutdown_background();
        }
        Err(error) => refuse(not_started(&error)),
    };
    thread::Builder::new().name(NAME.into()).spawn(run).map(drop).map_err(|error| not_started(&error))
}

/// Waits for this, which runs on a thread of its own.
pub(super) fn wait_for<T: Send>(work: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Error> {
    let _lent = worker::lend();
    let run = || {
        let runtime = runtime().map_err(|error| not_started(&error))?;
        let done = runtime.block_on(work);
        runtime.shutdown_background();
        done
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name(NAME.into()).spawn_scoped(scope, run);
        let thread = thread.map_err(|error| not_started(&error))?;
        thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}

const NAME: &str = "farpool-detached";

fn runtime() -> io::Result<runtime::Runtime> {
    runtime::Builder::new_current_thread().enable_io().enable_time().build()
}

fn not_started(error: &io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("starting a thread that talks to the coordinator: {error}"))
}
