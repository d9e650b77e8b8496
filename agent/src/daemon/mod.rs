//! The daemon: an [`Agent`](crate::Agent) in a session with a coordinator.
//!
//! Everything is one task on one thread, since each hand-over to another costs more than all that is done for an item:
//! it waits for the coordinator's commands and for the agent's epoll at once. Only files are read and written
//! elsewhere.
//!
//! A session that ends takes its pools with it: nothing of them is wanted any more. The daemon then tries to get a new
//! one, for ever.

mod backoff;
mod connection;
mod disk;
mod log;
mod pools;
mod programs;
mod reactor;
mod session;
mod settings;
mod signals;
mod workplace;

use std::process::ExitCode;
use std::sync::Arc;

use tokio::runtime::Builder;
use tokio::time::{Instant, sleep};

use backoff::Backoff;
use connection::Connector;
use disk::Disk;
use log::{Changes, log};
use session::{End, Session};
use settings::Settings;
use signals::Signals;

/// The whole program.
pub fn main() -> ExitCode {
    let settings = match Settings::load(std::env::args_os()) {
        Ok(settings) => settings,
        Err(error) => error.exit(),
    };
    let runtime = Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        // Spawned, since tokio looks at its epoll once more before it goes on with what it blocks on.
        Ok(runtime) => {
            runtime.block_on(async { tokio::spawn(run(settings)).await.map_err(|error| error.to_string())? })
        }
        Err(error) => Err(format!("starting: {error}")),
    };
    match outcome {
        Ok(code) => code,
        Err(text) => {
            log(text);
            ExitCode::FAILURE
        }
    }
}

/// Serves until it is told to leave; the error says why it never will.
async fn run(settings: Settings) -> Result<ExitCode, String> {
    let mut signals = Signals::new().map_err(|error| format!("listening to signals: {error}"))?;
    let disk = Arc::new(Disk::open(&settings)?);
    log(format_args!("{settings} programs={}", disk.programs.directory().display()));
    let connector = Connector::new(&settings);
    let (mut backoff, mut changes) = (Backoff::new(), Changes::new(&settings.coordinator));
    loop {
        let connected = tokio::select! {
            _ = signals.next() => return Ok(ExitCode::SUCCESS),
            connected = connector.connect() => connected,
        };
        let end = match connected {
            Ok(connection) => {
                changes.connected(&connection.release);
                let since = Instant::now();
                let mut session = Session::new(&settings, Arc::clone(&disk), connection)?;
                let end = session.serve(&mut signals).await;
                let told = !matches!(end, End::Killed(_)) && session.stop_everything(&mut signals).await;
                backoff.lasted(since.elapsed());
                match end {
                    // It was told to leave just now, and nothing is left to be done.
                    End::Lost(_) if told => End::Left,
                    end => end,
                }
            }
            Err(end) => end,
        };
        match end {
            End::Left => return Ok(ExitCode::SUCCESS),
            End::Killed(code) => return Ok(code.into()),
            End::Refused(reason) => return Err(reason),
            End::Lost(reason) => changes.lost(reason),
        }
        tokio::select! {
            _ = signals.next() => return Ok(ExitCode::SUCCESS),
            () = sleep(backoff.next()) => {}
        }
    }
}
