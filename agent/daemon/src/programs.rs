//! Finds or fetches the programs that pools run.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use farpool_common::log::{Log, info};
use farpool_net::dial;
use farpool_programs::{Digest, Form, InUse, ProgramDirectories, ProgramStore, receive};
use farpool_proto::v1::FetchProgramRequest;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tonic::{Code, Status};

use super::connector::{Coordinator, client};
use super::settings::Settings;

/// How long an interrupted fetch waits for another connection.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// The programs of this host.
#[derive(Debug)]
pub(super) struct Programs {
    /// Directories that the operator fills.
    directories: Arc<ProgramDirectories>,
    store: ProgramStore,
    /// One lookup at a time for each program, so that the next one finds what was fetched.
    turns: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
    log: Log,
}

/// A program on this host. One in the store stays while this value lives.
#[derive(Debug)]
pub(super) enum FoundProgram {
    /// In a directory that the operator fills.
    InDirectory(PathBuf),
    /// In the store.
    Stored(InUse),
}

/// Why a program is not available.
#[derive(Debug)]
pub(super) struct NotFound {
    /// The reason, a fragment.
    pub(super) why: String,
    /// Whether it is this host's fault: it has no room, or cannot store it.
    pub(super) host_fault: bool,
}

impl NotFound {
    fn host_fault(why: impl Display) -> Self {
        Self { why: why.to_string(), host_fault: true }
    }
}

impl FoundProgram {
    pub(super) fn path(&self) -> &Path {
        match self {
            FoundProgram::InDirectory(path) => path,
            FoundProgram::Stored(stored) => stored.path(),
        }
    }
}

impl Programs {
    pub(super) fn open(settings: &Settings) -> Result<Programs, String> {
        let directories = ProgramDirectories::new(settings.program_directories.iter().cloned());
        let mut failure = String::new();
        for directory in &settings.programs {
            match ProgramStore::open(directory, Form::Executable, settings.program_cache) {
                Ok(store) => {
                    let (directories, turns) = (Arc::new(directories), Mutex::default());
                    return Ok(Programs { directories, store, turns, log: settings.log.clone() });
                }
                Err(error) => failure = error.to_string(),
            }
        }
        Err(failure)
    }

    /// Returns the directory of the program store.
    pub(super) fn directory(&self) -> &Path {
        self.store.directory()
    }

    /// Finds a program on this host, or fetches it.
    pub(super) async fn get(
        &self,
        digest: Digest,
        size: u64,
        coordinator: Coordinator,
    ) -> Result<FoundProgram, NotFound> {
        let turn = self.turn(digest);
        let _turn = turn.lock().await;
        let (directories, store) = (Arc::clone(&self.directories), self.store.clone());
        let search = spawn_blocking(move || match directories.find(&digest, size) {
            Some(path) => Some(FoundProgram::InDirectory(path)),
            None => store.get(&digest).map(FoundProgram::Stored),
        });
        match search.await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => self.fetch(digest, size, coordinator).await.map(FoundProgram::Stored),
            Err(error) => Err(NotFound::host_fault(error)),
        }
    }

    fn turn(&self, digest: Digest) -> Arc<tokio::sync::Mutex<()>> {
        // The map is consistent even if a holder of the lock panicked.
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        turns.get(&digest).and_then(Weak::upgrade).unwrap_or_else(|| {
            let turn = Arc::default();
            turns.insert(digest, Arc::downgrade(&turn));
            turn
        })
    }

    async fn fetch(&self, digest: Digest, size: u64, mut coordinator: Coordinator) -> Result<InUse, NotFound> {
        // A program that does not fit need not be sent.
        self.store.check_size(size).map_err(NotFound::host_fault)?;
        loop {
            let (status, host_fault) = match self.fetch_once(digest, &mut coordinator).await {
                Ok(fetched) => {
                    info!(self.log, %digest, bytes = fetched.size(), "program fetched");
                    return Ok(fetched);
                }
                Err(failed) => failed,
            };
            // The fetch can be retried on the next connection.
            let lost = status.source().is_some();
            if lost && timeout(RECONNECT_TIMEOUT, coordinator.changed()).await.is_ok_and(|changed| changed.is_ok()) {
                continue;
            }
            let why = match status.message() {
                "" => status.code().to_string(),
                message => message.to_owned(),
            };
            return Err(NotFound { why, host_fault });
        }
    }

    /// Fetches a program once. The error also says whether it may be this host's fault.
    async fn fetch_once(&self, digest: Digest, coordinator: &mut Coordinator) -> Result<InUse, (Status, bool)> {
        let endpoint = coordinator.borrow_and_update().clone();
        let missing = || (Status::unavailable("the agent is not connected to the coordinator"), false);
        // A separate connection: a fetch may wait for a client to send the program, and a connection carries a limited
        // number of calls.
        let channel = dial::connect(&endpoint.ok_or_else(missing)?).await;
        let channel = channel.map_err(|error| (Status::from_error(error.into()), false))?;
        let reply = client(channel).fetch_program(FetchProgramRequest { digest: digest.to_bytes() }).await;
        let reply = reply.map_err(|status| (status, false))?;
        let received = receive(reply.into_inner(), &self.store, |sent, _| match *sent == digest {
            true => Ok(()),
            false => Err(Status::invalid_argument(format!("requested program {digest}, but received {sent}"))),
        })
        .await;
        // The codes that the program store uses for its own failures.
        let host_fault = |code: Code| matches!(code, Code::ResourceExhausted | Code::Internal);
        received.map_err(|status| {
            let host_fault = host_fault(status.code()) && status.source().is_none();
            (status, host_fault)
        })
    }
}
