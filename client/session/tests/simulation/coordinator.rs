//! The coordinator: the real one, without a network.

use std::ffi::OsString;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use farpool_coordinator_server::journal;
use farpool_coordinator_server::{Log, Server, Settings};
use farpool_proto::v1::StatusReply;
use farpool_testkit::random::Random;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::disk::Disk;
use crate::network::{HEARTBEAT, Network};
use crate::process::Process;
use crate::program::programs;
use crate::trace;

/// The running coordinator, if there is one.
#[derive(Clone, Default)]
pub(crate) struct Address(Arc<Mutex<Option<Server>>>);

impl Address {
    pub(crate) fn server(&self) -> Option<Server> {
        self.0.lock().expect("a thread panicked while it held the lock").clone()
    }
}

pub(crate) struct Coordinator {
    address: Address,
    settings: Settings,
    process: Option<Process>,
    /// Asks it to end when it can.
    shutdown: Arc<Notify>,
    /// The disk for detached jobs, if it keeps any.
    pub(crate) disk: Option<Disk>,
    /// When the history began.
    began: Instant,
}

/// The start of a history, in ms since 1970.
const BEGAN_MS: u64 = 1_795_000_000_000;

impl Coordinator {
    pub(crate) fn new(address: Address, random: &mut Random) -> Self {
        let arguments = ["farpool-coordinator", "--memory", "64MiB", "--programs", "/nowhere"].map(OsString::from);
        let mut settings = Settings::load(arguments).expect("the settings were refused");
        settings.limits.check = true;
        settings.log = Log::silent();
        settings.heartbeat_timeout = HEARTBEAT;
        settings.reconnect_grace = Duration::from_millis(random.pick(&[0, 200, 2000, 2000, 4000]));
        // With small windows clients wait for room.
        settings.window = random.pick(&[200, 2000, 64 << 20]);
        Self { address, settings, process: None, shutdown: Arc::default(), disk: None, began: Instant::now() }
    }

    /// Makes it keep detached jobs; call it before the start.
    pub(crate) fn keep_jobs(&mut self, random: &mut Random) {
        // With small windows jobs are given out in many parts.
        self.settings.window = random.pick(&[50, 200, 2000, 64 << 20]);
        let mut journal = journal::Settings::new("simulated");
        journal.size = random.pick(&[32 << 10, 64 << 10, 256 << 10, 4 << 20]);
        journal.backlog = random.pick(&[2000, 64 << 20]);
        self.settings.limits.detach = Duration::from_secs(random.pick(&[2, 20, 60]));
        self.settings.programs.clone_from(&programs().directory);
        self.settings.journal = Some(journal);
        self.disk = Some(Disk::new(random.fork()));
    }

    /// Returns how long it waits for a client that was detaching a job to reconnect.
    pub(crate) fn detach_timeout(&self) -> Duration {
        self.settings.limits.detach
    }

    /// Returns whether an incoming job may be refused for lack of room or time.
    pub(crate) fn may_refuse_jobs(&self) -> bool {
        let small = self.settings.journal.as_ref().is_some_and(|journal| journal.size < 1 << 20);
        small || self.settings.limits.detach < Duration::from_secs(60)
    }

    /// Returns the most bytes of a journal without jobs: some segments, each extended by one record.
    pub(crate) fn journal_rest(&self) -> u64 {
        self.settings.journal.as_ref().map_or(0, |journal| 8 * (journal.size / 128 + 1024))
    }

    /// Starts it, if it does not run. Returns whether that succeeded.
    pub(crate) fn start(&mut self, random: &mut Random) -> bool {
        if self.process.is_some() {
            return true;
        }
        trace::log(format_args!("the coordinator starts"));
        self.settings.id = id(random);
        let settings = self.settings.clone();
        let now_ms = BEGAN_MS + self.began.elapsed().as_millis() as u64;
        self.shutdown = Arc::default();
        let shutdown = Arc::clone(&self.shutdown).notified_owned();
        let (server, run): (_, Pin<Box<dyn Future<Output = ()> + Send>>) = match &self.disk {
            None => {
                let (server, run) = Server::new(settings, pending());
                (server, Box::pin(run))
            }
            Some(disk) => match Server::with_journal(settings, Arc::clone(disk.inner()), now_ms, shutdown) {
                Ok((server, run)) => (server, Box::pin(run_then_unregister(run, self.address.clone()))),
                Err(error) if disk.is_failing() => {
                    trace::log(format_args!("the coordinator ends: {error}"));
                    return false;
                }
                Err(error) => {
                    trace::violation(format_args!("the coordinator does not start: {error}"));
                    return true;
                }
            },
        };
        *self.address.0.lock().expect("a thread panicked while it held the lock") = Some(server);
        self.process = Some(Process::start(run));
        true
    }

    pub(crate) async fn kill(&mut self, network: &Network) {
        let Some(process) = self.process.take() else { return };
        trace::log(format_args!("the coordinator is killed"));
        network.cut(|_| true);
        self.address.0.lock().expect("a thread panicked while it held the lock").take();
        process.kill().await;
        if let Some(disk) = &mut self.disk {
            disk.crash();
        }
    }

    /// Asks it to end; it does when the pools of its clients have ended.
    pub(crate) fn ask_to_end(&self) {
        self.shutdown.notify_one();
    }

    /// Completes when its disk hangs.
    pub(crate) async fn hangs(&self) {
        match &self.disk {
            Some(disk) => disk.hangs().await,
            None => pending().await,
        }
    }

    pub(crate) fn stop(&self, stop: bool) {
        if let Some(process) = &self.process {
            process.stop(stop);
        }
    }

    /// Returns the status that operators see.
    pub(crate) async fn status(&self) -> StatusReply {
        match self.address.server() {
            Some(server) => server.status().await.unwrap_or_default(),
            None => StatusReply::default(),
        }
    }
}

async fn run_then_unregister(run: impl Future<Output = ()>, address: Address) {
    run.await;
    trace::log(format_args!("the coordinator has ended"));
    address.0.lock().expect("a thread panicked while it held the lock").take();
}

/// Draws the secret of an agent, a pool or a job.
pub(crate) fn secret(random: &mut Random) -> Bytes {
    [id(random), id(random)].concat().into()
}

/// Draws 16 bytes.
fn id(random: &mut Random) -> [u8; 16] {
    (u128::from(random.next()) << 64 | u128::from(random.next())).to_le_bytes()
}
