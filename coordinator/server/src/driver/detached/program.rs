//! The programs of detached jobs, which are durable before these are complete.

use farpool_programs::{Digest, InUse};
use farpool_proto::v1::client_event::Body;
use farpool_proto::v1::{OpenPool, Program, ProgramWanted};
use tonic::{Code, Status};

use super::super::super::link::{Input, WasRead};
use super::super::Driver;
use super::Detached;

impl Detached {
    /// Whether a job that is being detached waits for this program.
    pub(in super::super) fn journal_wants(&self, digest: Digest) -> bool {
        self.receiving.values().any(|receiving| receiving.wants == Some(digest))
    }
}

/// Which program the pool runs, if it says so in a way that can be understood.
pub(super) fn digest_of(pool: &OpenPool) -> Option<Digest> {
    let program = Program::unpacked(&pool.program).ok()??;
    Digest::try_from(&program.digest[..]).ok()
}

impl Driver {
    /// A program has come.
    pub(in super::super) fn program_came(&mut self, digest: Digest) {
        let waiting = self.detached.receiving.iter().filter(|(_, receiving)| receiving.wants == Some(digest));
        let waiting: Vec<u64> = waiting.map(|(job, _)| *job).collect();
        waiting.into_iter().for_each(|job| self.pin(job, digest));
    }

    /// A program was sent, and cannot be had all the same.
    pub(in super::super) fn program_failed(&mut self, digest: Digest, why: &Status) {
        // It cannot be written. Whose connection is lost comes back, and what is none may come from somebody else.
        if !matches!(why.code(), Code::ResourceExhausted | Code::Internal) {
            return;
        }
        let waiting = self.detached.receiving.iter().filter(|(_, receiving)| receiving.wants == Some(digest));
        let waiting: Vec<u64> = waiting.map(|(job, _)| *job).collect();
        waiting.into_iter().for_each(|job| self.refuse(job, not_kept(why)));
    }

    /// Has the program of a job looked for, and made durable.
    pub(super) fn pin(&mut self, job: u64, digest: Digest) {
        let Some(programs) = self.detached.programs.clone() else { return };
        let link = self.link.clone();
        tokio::spawn(async move {
            let pinned = programs.pin(digest).await;
            let _ = link.send(Input::WasRead(WasRead::Program(job, pinned))).await;
        });
    }

    pub(super) fn is_pinned(&mut self, job: u64, pinned: Result<Option<InUse>, Status>) {
        let Some(receiving) = self.detached.receiving.get_mut(&job) else { return };
        match pinned {
            Ok(Some(program)) => {
                receiving.wants = None;
                self.detached.pins.insert(job, program);
                self.try_to_complete(job);
            }
            Ok(None) => {
                let Some(digest) = receiving.program else { return };
                receiving.wants = Some(digest);
                if let Some(stream) = &receiving.stream {
                    stream.tell(Body::ProgramWanted(ProgramWanted { digest: digest.to_bytes() }));
                }
            }
            Err(why) => self.refuse(job, not_kept(&why)),
        }
    }
}

/// What whoever detaches a job is told whose program cannot be kept. To send it once more would not help.
fn not_kept(why: &Status) -> Status {
    Status::failed_precondition(format!("the job's program cannot be kept: {}. Nothing of the job is", why.message()))
}
