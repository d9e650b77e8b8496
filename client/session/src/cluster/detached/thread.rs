//! Threads on which a call talks to the coordinator.

use std::io;
use std::panic;
use std::thread;

use crate::cluster::connect::runtime;
use crate::error::{Error, ErrorKind};

/// Runs this on a separate thread, and waits for it.
pub(super) fn wait_for<T: Send>(work: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Error> {
    let _lent = farpool_worker::lend();
    let run = || {
        let runtime = runtime().map_err(|error| not_started(&error))?;
        let done = runtime.block_on(work);
        // Does not wait for threads that read a file or look up a name.
        runtime.shutdown_background();
        done
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("farpool-detached".into()).spawn_scoped(scope, run);
        let thread = thread.map_err(|error| not_started(&error))?;
        thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}

fn not_started(error: &io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("cannot start the thread that talks to the coordinator: {error}"))
}
