//! Threads on which a call talks to the coordinator.

use std::io;
use std::panic;
use std::thread;

use crate::cluster::connect::runtime;
use crate::error::{Error, ErrorKind};

/// Runs this on a thread of its own. At the end of it `end` is told why there is none, if that is so.
pub(super) fn start(
    work: impl Future<Output = ()> + Send + 'static,
    end: impl FnOnce(Error) + Send + 'static,
) -> Result<(), Error> {
    let run = move || {
        // If it panics, no caller must wait forever.
        let mut last = LastWord { end: Some(end), why: None };
        match runtime() {
            Ok(runtime) => {
                runtime.block_on(work);
                // Does not wait for threads that read a file or look up a name.
                runtime.shutdown_background();
            }
            Err(error) => last.why = Some(not_started(&error)),
        }
    };
    thread::Builder::new().name(NAME.into()).spawn(run).map(drop).map_err(|error| not_started(&error))
}

/// Runs this on a separate thread, and waits for it.
pub(super) fn wait_for<T: Send>(work: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Error> {
    let _lent = farpool_worker::lend();
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

/// Told when the thread has ended; only the first word counts.
struct LastWord<F: FnOnce(Error)> {
    end: Option<F>,
    why: Option<Error>,
}

impl<F: FnOnce(Error)> Drop for LastWord<F> {
    fn drop(&mut self) {
        let silent = || Error::protocol("the thread that talks to the coordinator ended unexpectedly");
        if let Some(end) = self.end.take() {
            end(self.why.take().unwrap_or_else(silent));
        }
    }
}

const NAME: &str = "farpool-detached";

fn not_started(error: &io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("cannot start the thread that talks to the coordinator: {error}"))
}
