//! Which programs agents wait for, and who was asked to send them.

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
use super::Driver;

/// Uploads of one program at once: somebody may be asked who is faster than whoever was asked first.
const MAX_UPLOADS: u32 = 4;

/// What is waited for.
pub(super) struct Programs {
    wanted: BTreeMap<Digest, Wanted>,
    /// Uploads that have gone well.
    came: u64,
    /// How long a client has before another one is asked, in ns.
    patience: u64,
}

struct Wanted {
    waiting: Vec<oneshot::Sender<Result<(), Status>>>,
    asked: Vec<ClientId>,
    /// When to ask the next one, if nobody sends it by then.
    ask_next_at: u64,
    uploads: u32,
}

impl Programs {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { wanted: BTreeMap::new(), came: 0, patience: nanos(limits.upload) }
    }

    pub(super) fn came(&self) -> u64 {
        self.came
    }

    pub(super) fn next_timer(&self) -> Option<u64> {
        self.wanted.values().map(|wanted| wanted.ask_next_at).min()
    }

    /// Tells those who wait for the program.
    fn settle(&mut self, digest: Digest, outcome: &Result<(), Status>) {
        let Some(wanted) = self.wanted.remove(&digest) else { return };
        for waiting in wanted.waiting {
            let _ = waiting.send(outcome.clone());
        }
    }
}

impl Driver {
    /// `came` is how many had come before it was looked for.
    pub(super) fn program_needed(&mut self, digest: Digest, came: u64, reply: oneshot::Sender<Result<(), Status>>) {
        if came != self.programs.came {
            // It may be among those. If whoever asks is gone, nobody needs to know.
            let _ = reply.send(Ok(()));
            return;
        }
        if let Some(wanted) = self.programs.wanted.get_mut(&digest) {
            return wanted.waiting.push(reply);
        }
        let wanted = Wanted { waiting: vec![reply], asked: Vec::new(), ask_next_at: self.now, uploads: 0 };
        self.programs.wanted.insert(digest, wanted);
        self.ask_or_give_up(digest, || Status::not_found(format!("no connected client has program {digest}")));
    }

    pub(super) fn upload_begins(&mut self, digest: Digest, reply: oneshot::Sender<Result<(), Status>>) {
        let may = match self.programs.wanted.get_mut(&digest) {
            None if self.detached.wants(digest) => {
                let wanted = Wanted { waiting: Vec::new(), asked: Vec::new(), ask_next_at: u64::MAX, uploads: 1 };
                self.programs.wanted.insert(digest, wanted);
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
        };
        let begins = may.is_ok();
        if reply.send(may).is_err() && begins {
            self.upload_ends(digest, Err(Status::cancelled("the client is gone")));
        }
    }

    pub(super) fn upload_ends(&mut self, digest: Digest, outcome: Result<(), Status>) {
        self.programs.came += u64::from(outcome.is_ok());
        let Some(wanted) = self.programs.wanted.get_mut(&digest) else { return };
        wanted.uploads = wanted.uploads.saturating_sub(1);
        match outcome {
            Ok(()) => {
                self.programs.settle(digest, &Ok(()));
                self.with_detached(|detached, turn| detached.program_came(turn, digest));
            }
            Err(_) if wanted.uploads > 0 => {}
            Err(status) => {
                warn!(self.link.log, %digest, reason = status.message(), "program did not arrive");
                // Whose connection is lost comes back and sends it again, or is lost too.
                let comes_again = status.code() == Code::Cancelled
                    && wanted.asked.last().is_some_and(|client| self.clients.contains_key(client));
                if !self.ask_next(digest) && !comes_again {
                    self.with_detached(|detached, turn| detached.program_failed(turn, digest, &status));
                    self.programs.settle(digest, &Err(status));
                }
            }
        }
    }

    pub(super) fn client_has_left(&mut self, id: ClientId) {
        let asked = |wanted: &Wanted| wanted.uploads == 0 && wanted.asked.last() == Some(&id);
        let waiting = self.programs.wanted.iter().filter(|(_, wanted)| asked(wanted));
        let waiting: Vec<_> = waiting.map(|(&digest, _)| digest).collect();
        for digest in waiting {
            let gone = || Status::unavailable(format!("the client that has program {digest} is gone"));
            self.ask_or_give_up(digest, gone);
        }
    }

    /// Asks others where those who were asked have not sent anything in time.
    pub(super) fn tend_programs(&mut self) {
        let now = self.now;
        if self.programs.next_timer().is_none_or(|timer| timer > now) {
            return;
        }
        self.programs.wanted.retain(|_, wanted| {
            wanted.waiting.retain(|waiting| !waiting.is_closed());
            wanted.uploads > 0 || !wanted.waiting.is_empty()
        });
        let late = self.programs.wanted.iter_mut().filter(|(_, wanted)| wanted.ask_next_at <= now);
        let mut to_ask = Vec::new();
        for (&digest, wanted) in late {
            wanted.ask_next_at = now.saturating_add(self.programs.patience);
            if wanted.uploads == 0 {
                to_ask.push(digest);
            }
        }
        // If nobody is left, whoever was asked last can still send it, until those who wait give up.
        for digest in to_ask {
            self.ask_next(digest);
        }
    }

    fn ask_or_give_up(&mut self, digest: Digest, why: impl FnOnce() -> Status) {
        if !self.ask_next(digest) {
            self.programs.settle(digest, &Err(why()));
        }
    }

    /// Asks a client that was not asked yet; false: there is none.
    fn ask_next(&mut self, digest: Digest) -> bool {
        let Some(wanted) = self.programs.wanted.get_mut(&digest) else { return false };
        // Detached jobs have their programs here, or nobody has.
        let except: Vec<ClientId> = wanted.asked.iter().copied().chain(self.detached.played()).collect();
        let Some(id) = self.coordinator.client_with_program(digest.as_bytes(), &except) else { return false };
        let Some(client) = self.clients.get(&id) else { return false };
        wanted.asked.push(id);
        wanted.ask_next_at = self.now.saturating_add(self.programs.patience);
        client.tell(Body::ProgramWanted(ProgramWanted { digest: digest.to_bytes() }));
        true
    }
}
