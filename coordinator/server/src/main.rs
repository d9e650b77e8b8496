//! `farpool-coordinator`: see `--help`.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use farpool_common::log::{error, info};
use farpool_coordinator_server::{self as server, Settings};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

fn main() -> ExitCode {
    let settings = Settings::load(std::env::args_os()).unwrap_or_else(|error| error.exit());
    protect_memory();
    raise_open_files();
    // A parent that handles signals in a thread of its own blocks them, including those that end this daemon.
    let _ = SigSet::empty().thread_set_mask();
    let log = settings.log.clone();
    match serve(settings) {
        Ok(code) => code,
        Err(error) => {
            error!(log, %error, "cannot serve");
            ExitCode::FAILURE
        }
    }
}

/// Protects clients' items and programs' environments: other processes of the same user cannot read them, and core
/// files do not contain them.
fn protect_memory() {
    // Every kernel that this runs on supports it.
    let _ = nix::sys::prctl::set_dumpable(false);
}

/// Raises the limit of open files: each connection is one, and the default limit is low.
fn raise_open_files() {
    // If that fails, connections wait when files run out.
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

fn serve(settings: Settings) -> io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // From here on, signals do not kill the process.
        let mut signals = Signals::new()?;
        // Writing beyond the limit of file sizes (ulimit -f) becomes an error, instead of killing this process.
        drop(signal(SignalKind::from_raw(nix::libc::SIGXFSZ))?);
        let mut hangup = signal(SignalKind::hangup())?;
        let listener =
            TcpListener::bind(settings.listen).await.map_err(|error| cannot_listen(settings.listen, &error))?;
        let log = settings.log.clone();
        settings.announce();
        let (shutdown, asked) = oneshot::channel::<()>();
        // A task, since tokio polls its epoll once more before it continues the future it blocks on. The loop inside
        // then runs after all sessions with input, and handles everything from them in one round.
        let server = tokio::spawn(server::run(settings, listener, async {
            let _ = asked.await;
        }));
        let at_once = async {
            let signal = signals.next().await.1;
            info!(log, signal, "shutting down; a second signal ends it at once");
            let _ = shutdown.send(());
            signals.next().await.0
        };
        let hangups = async {
            // A closed terminal does not end the daemon.
            while hangup.recv().await.is_some() {
                info!(log, "SIGHUP ignored; there is nothing to reload");
            }
            std::future::pending().await
        };
        tokio::select! {
            number = hangups => number,
            ended = server => {
                ended??;
                info!(log, "coordinator stopped");
                Ok(ExitCode::SUCCESS)
            }
            number = at_once => Ok(ExitCode::from(128 + number)),
        }
    })
}

/// The signals that end a server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Returns the number and the name of the next one.
    async fn next(&mut self) -> (u8, &'static str) {
        tokio::select! {
            _ = self.terminate.recv() => (15, "SIGTERM"),
            _ = self.interrupt.recv() => (2, "SIGINT"),
        }
    }
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> io::Error {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another coordinator may be running: stop it, or choose another port with --listen"
        }
        io::ErrorKind::AddrNotAvailable => "; this host has no such address: choose another one with --listen",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need privileges: choose another one with --listen",
        _ => "; choose another address with --listen",
    };
    io::Error::other(format!("cannot listen on {address}: {error}{advice}"))
}
