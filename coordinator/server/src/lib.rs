//! The coordinator as a server: gRPC at the edge, one loop inside.
//!
//! Everything runs on one thread. Each session has a task that reads its frames and sends them, one at a time, to the
//! loop (`driver`). The loop owns the [`Coordinator`](farpool_coordinator::Coordinator). It handles all waiting inputs,
//! schedules once, and puts the resulting messages into the sessions' queues, from which gRPC takes them. No other task
//! holds state that matters: the tasks at the edge (`sessions`, `operators`, `programs`) send the loop an `Input` and
//! wait for its answer.
//!
//! A session is read only in its turn, and the loop gives it the next turn when it has handled the last messages. So
//! the loop can stop any client by not giving it a turn (`driver::memory`).

mod accept;
mod blocking;
mod cgroup;
mod clock;
mod detached;
mod driver;
mod end;
mod flags;
mod frames;
mod greeting;
mod heap;
mod host;
mod in_process;
mod link;
mod meter;
mod operators;
mod origin;
mod programs;
mod published;
mod published_method;
mod refusal;
mod router;
mod services;
mod sessions;
mod settings;

use std::future::Future;
use std::io;
use std::sync::Arc;

pub use farpool_common::log::Log;
use farpool_common::log::{info, warn};
use farpool_net::http2;
use farpool_store::JobStore;
/// The store of detached jobs on this host.
pub use farpool_store::log as journal;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot};
use tonic_health::ServingStatus;

use blocking::Blocking;
use driver::{Driver, Opened};
#[doc(hidden)]
pub use in_process::Server;
use link::Link;
pub use settings::{Limits, Settings};

/// The most inputs that wait for the loop. It takes all of them at once, so the queue is rarely full.
const INPUTS: usize = 256;

/// Serves until `shutdown` has completed and all pools that were open then have ended.
///
/// It must be called on a runtime of one thread (see [`tokio::runtime::Builder::new_current_thread`]): more threads
/// would only cost wake-ups.
///
/// Detached jobs are in the journal of the settings, if there is one.
///
/// # Errors
/// If the directory of programs, or the journal, cannot be used.
pub async fn run(
    settings: Settings,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), io::Error> {
    let store = open_journal(&settings)?;
    run_with(settings, store, listener, shutdown).await
}

/// Serves like [`run`], with detached jobs in any store; `None`: no job can be detached.
///
/// # Errors
/// If the directory of programs cannot be used.
pub async fn run_with(
    settings: Settings,
    store: Option<Box<dyn JobStore>>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), io::Error> {
    let log = settings.log.clone();
    let (inputs, received) = mpsc::channel(INPUTS);
    let (drained, limits) = (Arc::new(Notify::new()), settings.limits.clone());
    let link =
        Link { inputs, drained, log: log.clone(), limits, blocking: Blocking::Threads, meters: settings.meters() };
    let (stop, stopped) = oneshot::channel::<()>();
    let (programs, opened) = Opened::open(store, &settings, &link)?;
    let (health, router) = services::services(&settings, &link, &programs)?;
    // Peers that wait for this log line can connect from then on.
    let address = listener.local_addr()?;
    info!(log, address = %format_args!("http://{address}"), "listening");
    let connections = accept::accept(listener, &settings, log.clone());
    health.report(ServingStatus::Serving).await;
    let server = http2::server(settings.heartbeat_timeout, settings.stream_window());
    let server = tokio::spawn(server.serve_with_incoming_shutdown(router, connections, async {
        let _ = stopped.await;
    }));
    Driver::new(&settings, link, received, health, opened).run(shutdown).await;
    drop(stop);
    // Gives peers time to read why their sessions end.
    let aborted = server.abort_handle();
    let _ = tokio::time::timeout(settings.limits.farewell, server).await;
    aborted.abort();
    Ok(())
}

/// Opens the journal of the settings, if there is one.
fn open_journal(settings: &Settings) -> io::Result<Option<Box<dyn JobStore>>> {
    let Some(journal) = settings.journal.clone() else { return Ok(None) };
    // Peers cannot cause log lines yet, so no limit is needed.
    let log = settings.log.without_limits();
    let warn = |warning: String| warn!(log, detail = warning, "journal warning");
    Ok(Some(Box::new(journal::Journal::open(journal, warn).map_err(io::Error::other)?)))
}
