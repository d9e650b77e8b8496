//! Fetches the programs of pools before they start, and keeps the programs of running pools in use.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use bytes::Bytes;
use farpool_agent::fork_server;
use farpool_link::item_token::{self, ITEM_VARIABLE};
use farpool_link::message::PROGRAM_VARIABLE;
use farpool_programs::Digest;
use farpool_proto::limits;
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::{FailureKind, Program, StartJob, StartPool};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet, spawn_blocking};

use super::connector::Coordinator;
use super::disk::Disk;
use super::programs::{FoundProgram, NotFound};
use super::settings::Settings;
use super::workplace::Workplace;

/// The pools of an agent.
#[derive(Debug)]
pub(super) struct Pools {
    disk: Arc<Disk>,
    coordinator: Coordinator,
    /// The coordinator's address, for pools that tasks open.
    address: String,
    /// The name of this host in the cluster.
    host: String,
    /// The agent's part of the tokens that workers give to their items.
    token: String,
    waiting: HashMap<u64, Waiting>,
    preparations: JoinSet<PreparationResult>,
    running: HashMap<u64, Resources>,
}

/// A pool that is being prepared.
#[derive(Debug)]
struct Waiting {
    start: StartPool,
    /// Jobs to start once the pool has started.
    jobs: Vec<StartJob>,
    preparation: AbortHandle,
}

/// The files that a pool needs while it runs.
#[derive(Debug)]
struct Resources {
    program: FoundProgram,
    workplace: Workplace,
}

/// The outcome of a preparation: the pool's program, and its files.
type PreparationResult = Result<(Program, Resources), Refusal>;

/// A pool whose preparation has ended.
#[derive(Debug)]
pub(super) enum Prepared {
    /// It can start, and then these jobs.
    Ready(Box<StartPool>, fork_server::Program, Vec<StartJob>),
    /// It cannot start.
    Refused(u64, Refusal),
}

/// Why a pool cannot be started here.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) kind: FailureKind,
    pub(super) message: String,
    /// Whether it is this host's fault: no other pool can start either.
    pub(super) host_fault: bool,
}

impl Pools {
    pub(super) fn new(disk: Arc<Disk>, coordinator: Coordinator, settings: &Settings) -> Pools {
        let (address, host) = (settings.coordinator.to_string(), settings.host.clone());
        let token = item_token::of_agent(&settings.secret.id()).unwrap_or_default();
        let (waiting, preparations, running) = Default::default();
        Pools { disk, coordinator, address, host, token, waiting, preparations, running }
    }

    /// Starts to prepare a pool.
    ///
    /// # Errors
    /// If there is already a pool with this number.
    pub(super) fn prepare(&mut self, start: StartPool) -> Result<(), String> {
        let pool = start.pool;
        if self.waiting.contains_key(&pool) || self.running.contains_key(&pool) {
            return Err(format!("pool {pool} was started twice"));
        }
        let (disk, coordinator) = (Arc::clone(&self.disk), self.coordinator.clone());
        let preparation = self.preparations.spawn(prepare(disk, coordinator, start.program.clone()));
        self.waiting.insert(pool, Waiting { start, jobs: Vec::new(), preparation });
        Ok(())
    }

    /// Returns whether [`Pools::next`] has anything to wait for.
    pub(super) fn is_preparing(&self) -> bool {
        !self.preparations.is_empty()
    }

    /// Takes a command for a pool that is being prepared, and leaves others in place. Returns the number of a pool
    /// whose preparation it stopped.
    pub(super) fn intercept(&mut self, command: &mut Option<Command>) -> Option<u64> {
        match command.take()? {
            Command::StopPool(stop) if self.waiting.contains_key(&stop.pool) => {
                let waiting = self.waiting.remove(&stop.pool)?;
                waiting.preparation.abort();
                return Some(stop.pool);
            }
            Command::ResizePool(resize) if self.waiting.contains_key(&resize.pool) => {
                self.waiting.get_mut(&resize.pool)?.start.processes = resize.processes;
            }
            Command::StartJob(start) if self.waiting.contains_key(&start.pool) => {
                self.waiting.get_mut(&start.pool)?.jobs.push(start);
            }
            Command::EndJob(end) => {
                let waiting =
                    self.waiting.values_mut().find(|waiting| waiting.jobs.iter().any(|job| job.job == end.job));
                match waiting {
                    Some(waiting) => waiting.jobs.retain(|job| job.job != end.job),
                    None => *command = Some(Command::EndJob(end)),
                }
            }
            other => *command = Some(other),
        }
        None
    }

    /// Waits for the next preparation to end; forever if there is none. Cancel-safe.
    pub(super) async fn next(&mut self) -> Prepared {
        loop {
            let Some(outcome) = self.preparations.join_next_with_id().await else { std::future::pending().await };
            if let Some(prepared) = self.prepared(outcome) {
                return prepared;
            }
        }
    }

    /// Releases the files of a stopped pool.
    pub(super) fn stopped(&mut self, pool: u64) {
        if let Some(resources) = self.running.remove(&pool) {
            // Removing a directory blocks.
            spawn_blocking(move || drop(resources));
        }
    }

    /// Aborts all preparations, and returns their pools' numbers.
    pub(super) fn abort_all(&mut self) -> Vec<u64> {
        self.preparations.abort_all();
        self.waiting.drain().map(|(pool, _)| pool).collect()
    }

    /// Handles an ended preparation. `None`: the pool was stopped meanwhile.
    fn prepared(&mut self, outcome: Result<(Id, PreparationResult), JoinError>) -> Option<Prepared> {
        let (id, outcome) = match outcome {
            Ok(ended) => ended,
            Err(error) => {
                let message = format!("cannot prepare the program: {error}");
                (error.id(), Err(Refusal { kind: FailureKind::Unavailable, message, host_fault: true }))
            }
        };
        let pool = self.waiting.iter().find(|(_, waiting)| waiting.preparation.id() == id).map(|(pool, _)| *pool)?;
        let Waiting { start, jobs, .. } = self.waiting.remove(&pool)?;
        let (program, resources) = match outcome {
            Ok(there) => there,
            Err(refusal) => return Some(Prepared::Refused(pool, refusal)),
        };
        let program = self.program(&program, &resources);
        self.running.insert(pool, resources);
        Some(Prepared::Ready(start.into(), program, jobs))
    }

    fn program(&self, program: &Program, resources: &Resources) -> fork_server::Program {
        let text = |bytes: &Bytes| OsString::from_vec(bytes.to_vec());
        let digest = Digest::try_from(&program.digest[..]).map(|digest| digest.to_string()).unwrap_or_default();
        let own = [
            ("FARPOOL_ADDRESS", self.address.as_str()),
            ("FARPOOL_HOST", self.host.as_str()),
            (ITEM_VARIABLE, self.token.as_str()),
            (PROGRAM_VARIABLE, &digest),
        ];
        let chosen = program.environment.iter().map(|variable| (text(&variable.name), text(&variable.value)));
        let own = own.map(|(name, value)| (name.into(), value.into()));
        fork_server::Program {
            path: resources.program.path().to_owned(),
            arguments: program.arguments.iter().map(text).collect(),
            // These are last: of two variables with the same name, the last one wins.
            environment: Some(chosen.chain(own).collect()),
            directory: Some(resources.workplace.path().to_owned()),
            keep: false,
        }
    }
}

async fn prepare(disk: Arc<Disk>, coordinator: Coordinator, packed: Bytes) -> PreparationResult {
    let rejected = |message| Refusal { kind: FailureKind::ProgramRejected, message, host_fault: false };
    let unavailable = |message, host_fault| Refusal { kind: FailureKind::Unavailable, message, host_fault };
    let program = Program::unpacked(&packed)
        .map_err(|error| rejected(format!("the description of the pool's program is malformed: {error}")))?;
    let program = program.ok_or_else(|| rejected("the pool does not say which program it runs".to_owned()))?;
    let digest = Digest::try_from(&program.digest[..]).map_err(|error| rejected(error.to_string()))?;
    check(&program).map_err(rejected)?;
    let found = disk.programs.get(digest, program.size, coordinator).await;
    let found = found.map_err(|NotFound { why, host_fault }| {
        unavailable(format!("cannot get program {digest}: {why}"), host_fault)
    })?;
    let directory = program.directory.to_vec();
    let workplace = spawn_blocking(move || disk.workplaces.find(directory)).await;
    let workplace = workplace.map_err(std::io::Error::other).flatten();
    let workplace =
        workplace.map_err(|error| unavailable(format!("cannot create a directory for the workers: {error}"), true))?;
    Ok((program, Resources { program: found, workplace }))
}

/// Rejects arguments and variables with which no process can start, or which exceed the limits.
fn check(program: &Program) -> Result<(), String> {
    limits::program(program).map_err(|beyond| beyond.to_string())?;
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if let Some(argument) = program.arguments.iter().find(|argument| argument.contains(&0)) {
        return Err(format!("an argument contains a zero byte: {:?}", shown(argument)));
    }
    for variable in &program.environment {
        let (name, value) = (&variable.name, &variable.value);
        if name.is_empty() || name.contains(&b'=') || name.contains(&0) || value.contains(&0) {
            return Err(format!("an environment variable has an invalid name or value: {:?}", shown(name)));
        }
    }
    Ok(())
}
