//! The programs that agents wait for, and the clients that were asked to send them.

use std::collections::BTreeMap;

use farpool_common::log::warn;
use farpool_coordinator::ClientId;
use farpool_programs::Digest;
use farpool_proto::v1::ProgramWanted;
use farpool_proto::v1::client_event::Body;
use tokio::sync::oneshot;
use tonic::{Code, Status};

use super::super::clock::nanos;
use super::super::settings::Limits;
use super::clients::Clients;
use super::round::Round;

/// How many clients may send one program at once: a client that is asked later may be faster.
const MAX_UPLOADS: u32 = 4;

/// The programs that are wanted.
pub(super) struct WantedPrograms {
    wanted: BTreeMap<Digest, Wanted>,
    /// How many uploads have succeeded.
    arrived: u64,
    /// How long to wait before another client is asked, in ns.
    patience: u64,
}

/// The result of an upload.
pub(super) enum UploadResult {
    Arrived,
    /// The program may still arrive.
    Pending,
    /// No client can send it.
    Failed(Status),
}

/// The clients that can be asked for programs.
pub(super) struct Askable<'a> {
    pub(super) clients: &'a Clients,
    /// The internal clients of detached jobs, which cannot be asked: the coordinator is the only one that can have
    /// their programs.
    pub(super) internal: Vec<ClientId>,
}

struct Wanted {
    waiting: Vec<oneshot::Sender<Result<(), Status>>>,
    asked: Vec<ClientId>,
    /// When to ask the next client.
    ask_next_at: u64,
    uploads: u32,
}

impl WantedPrograms {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { wanted: BTreeMap::new(), arrived: 0, patience: nanos(limits.upload) }
    }

    pub(super) fn arrived(&self) -> u64 {
        self.arrived
    }

    pub(super) fn next_timer(&self) -> Option<u64> {
        self.wanted.values().map(|wanted| wanted.ask_next_at).min()
    }

    /// Handles an agent's request for a program. `arrived`: how many had arrived before the agent's program was looked up.
    pub(super) fn needed(
        &mut self,
        round: &Round,
        askable: &Askable<'_>,
        (digest, arrived): (Digest, u64),
        reply: oneshot::Sender<Result<(), Status>>,
    ) {
        if arrived != self.arrived {
            // It may have arrived since then. The agent may be gone by now.
            let _ = reply.send(Ok(()));
            return;
        }
        if let Some(wanted) = self.wanted.get_mut(&digest) {
            return wanted.waiting.push(reply);
        }
        let wanted = Wanted { waiting: vec![reply], asked: Vec::new(), ask_next_at: round.now, uploads: 0 };
        self.wanted.insert(digest, wanted);
        self.ask_or_give_up(round, askable, digest, || {
            Status::not_found(format!("no connected client has program {digest}"))
        });
    }

    /// Checks that a client may send a program. `is_for_a_job`: it is the program of a job that is being detached.
    pub(super) fn begin_upload(&mut self, digest: Digest, is_for_a_job: bool) -> Result<(), Status> {
        match self.wanted.get_mut(&digest) {
            None if is_for_a_job => {
                let wanted = Wanted { waiting: Vec::new(), asked: Vec::new(), ask_next_at: u64::MAX, uploads: 1 };
                self.wanted.insert(digest, wanted);
                Ok(())
            }
            None => Err(Status::failed_precondition(format!("nobody asked for program {digest}"))),
            Some(wanted) if wanted.uploads == MAX_UPLOADS => {
                let message = format!("program {digest} is being sent by {MAX_UPLOADS} clients already");
                Err(Status::resource_exhausted(message))
            }
            Some(wanted) => {
                wanted.uploads += 1;
                Ok(())
            }
        }
    }

    /// Handles the end of an upload.
    pub(super) fn end_upload(
        &mut self,
        round: &Round,
        askable: &Askable<'_>,
        digest: Digest,
        outcome: Result<(), Status>,
    ) -> UploadResult {
        self.arrived += u64::from(outcome.is_ok());
        let Some(wanted) = self.wanted.get_mut(&digest) else { return UploadResult::Pending };
        wanted.uploads = wanted.uploads.saturating_sub(1);
        match outcome {
            Ok(()) => {
                self.settle(digest, &Ok(()));
                UploadResult::Arrived
            }
            Err(_) if wanted.uploads > 0 => UploadResult::Pending,
            Err(status) => {
                warn!(round.link.log, %digest, reason = status.message(), "program did not arrive");
                // If only its connection was lost, the client resumes and sends it again, or its session ends too.
                let comes_again = status.code() == Code::Cancelled
                    && wanted.asked.last().is_some_and(|&client| askable.clients.get(client).is_some());
                if self.ask_next(round, askable, digest) || comes_again {
                    return UploadResult::Pending;
                }
                self.settle(digest, &Err(status.clone()));
                UploadResult::Failed(status)
            }
        }
    }

    /// Asks other clients for the programs that this client, which is gone, was asked for.
    pub(super) fn client_has_left(&mut self, round: &Round, askable: &Askable<'_>, id: ClientId) {
        let asked = |wanted: &Wanted| wanted.uploads == 0 && wanted.asked.last() == Some(&id);
        let waiting: Vec<Digest> =
            self.wanted.iter().filter(|(_, wanted)| asked(wanted)).map(|(&digest, _)| digest).collect();
        for digest in waiting {
            let gone = || Status::unavailable(format!("the client that has program {digest} is gone"));
            self.ask_or_give_up(round, askable, digest, gone);
        }
    }

    /// Asks other clients for programs that did not arrive in time.
    pub(super) fn ask_others_if_late(&mut self, round: &Round, askable: &Askable<'_>) {
        let now = round.now;
        self.wanted.retain(|_, wanted| {
            wanted.waiting.retain(|waiting| !waiting.is_closed());
            wanted.uploads > 0 || !wanted.waiting.is_empty()
        });
        let late = self.wanted.iter_mut().filter(|(_, wanted)| wanted.ask_next_at <= now);
        let mut to_ask = Vec::new();
        for (&digest, wanted) in late {
            wanted.ask_next_at = now.saturating_add(self.patience);
            if wanted.uploads == 0 {
                to_ask.push(digest);
            }
        }
        // If there is no other client, the last one can still send it until the agents give up.
        for digest in to_ask {
            self.ask_next(round, askable, digest);
        }
    }

    /// Answers the agents that wait for the program.
    fn settle(&mut self, digest: Digest, outcome: &Result<(), Status>) {
        let Some(wanted) = self.wanted.remove(&digest) else { return };
        for waiting in wanted.waiting {
            let _ = waiting.send(outcome.clone());
        }
    }

    fn ask_or_give_up(&mut self, round: &Round, askable: &Askable<'_>, digest: Digest, why: impl FnOnce() -> Status) {
        if !self.ask_next(round, askable, digest) {
            self.settle(digest, &Err(why()));
        }
    }

    /// Asks a client that was not asked yet. Returns false if there is none.
    fn ask_next(&mut self, round: &Round, askable: &Askable<'_>, digest: Digest) -> bool {
        let Some(wanted) = self.wanted.get_mut(&digest) else { return false };
        let except: Vec<ClientId> = wanted.asked.iter().chain(&askable.internal).copied().collect();
        let Some(id) = round.coordinator.client_with_program(digest.as_bytes(), &except) else { return false };
        let Some(client) = askable.clients.get(id) else { return false };
        wanted.asked.push(id);
        wanted.ask_next_at = round.now.saturating_add(self.patience);
        client.send(Body::ProgramWanted(ProgramWanted { digest: digest.to_bytes() }));
        true
    }
}
