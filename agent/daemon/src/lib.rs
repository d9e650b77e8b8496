//! The daemon: runs workers on this host in sessions with a coordinator.
//!
//! The daemon is one task on one thread, which waits for the coordinator's commands and for the agent's epoll at once.
//! Handing an item to another thread would cost more than the work itself. Only files are read and written on other
//! threads.
//!
//! Workers outlive connections and coordinators: see `session`. The daemon retries forever to get a session.

mod connector;
mod disk;
mod health;
mod host;
mod inherited;
pub mod ledger;
mod pools;
mod programs;
mod reactor;
mod session;
mod settings;
mod signals;
mod workplace;

/// The daemon's session, for a simulation of whole clusters with other workers and connections.
#[doc(hidden)]
pub mod simulation {
    pub use farpool_common::log::Log;

    pub use crate::session::{CommandFrames, Connect, Connecting, End, Session, SessionSettings, Workers};
}

use std::process::ExitCode;
use std::sync::Arc;

use farpool_common::log::{error, info, warn};
use tokio::runtime::Builder;

use connector::Connector;
use disk::Disk;
use host::Host;
use session::{End, Session, SessionSettings};
use settings::Settings;
use signals::signals;

/// Runs the program.
pub fn main() -> ExitCode {
    // Tasks run as the same user. This keeps them from reading this process's environment and memory and from tracing
    // it. It also prevents core dumps. Programs that it executes are not affected. All supported kernels can do it.
    let _ = nix::sys::prctl::set_dumpable(false);
    let settings = match Settings::load(std::env::args_os()) {
        Ok(settings) => settings,
        Err(error) => error.exit(),
    };
    let log = settings.log.clone();
    inherited::close_on_exec();
    inherited::unblock_signals();
    let runtime = Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        // Spawned, because tokio polls its epoll once more before it resumes the future that it blocks on.
        Ok(runtime) => {
            runtime.block_on(async { tokio::spawn(run(settings)).await.map_err(|error| error.to_string())? })
        }
        Err(error) => Err(format!("cannot start the runtime: {error}")),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            error!(log, error, "agent failed");
            ExitCode::FAILURE
        }
    }
}

/// Serves until a signal or the coordinator makes it leave. The error says why it cannot.
async fn run(settings: Settings) -> Result<ExitCode, String> {
    farpool_link::check_file_limit()?;
    signals::survive_file_limit().map_err(|error| format!("cannot set up signals: {error}"))?;
    let mut signals = signals(&settings.log).map_err(|error| format!("cannot set up signals: {error}"))?;
    let disk = Arc::new(Disk::open(&settings)?);
    settings.announce(disk.programs.directory());
    for directory in &settings.program_directories {
        if let Err(error) = std::fs::read_dir(directory) {
            let directory = directory.display();
            warn!(settings.log, %directory, %error, "cannot read a program directory; skipping it until it is readable");
        }
    }
    let connector = Connector::new(&settings);
    let host = Host::new(&settings, disk, connector.coordinator())?;
    let settings = SessionSettings {
        hello: settings.hello(),
        leave_timeout: settings.heartbeat_timeout,
        orphan_timeout: settings.orphan_timeout,
        seed: farpool_common::backoff::random_seed(),
        coordinator: settings.coordinator.to_string(),
        log: settings.log.clone(),
    };
    let log = settings.log.clone();
    match Session::new(connector, host, settings).serve(&mut signals).await {
        End::Left => {
            info!(log, "agent stopped");
            Ok(ExitCode::SUCCESS)
        }
        End::Killed(code) => Ok(code.into()),
        End::Refused(reason) => Err(reason),
    }
}
