//! Programs at the edge: received from clients and sent to agents. The loop decides which client is asked for which
//! program ([`driver::programs`](super::driver)).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use farpool_programs::{Digest, InUse, PieceReplies, Pieces, ProgramStore, receive};
use farpool_proto::v1::ProgramPiece;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt, once};
use tonic::Status;

use super::end::{End, blamed};
use super::link::{Input, Link};
use super::meter::Meter;
use super::refusal::shutting_down;

/// The most programs that are sent to agents at once; each takes a few MiB meanwhile.
const MAX_FETCHES: usize = 64;
/// The least throughput of a client's connection, after the time it is given to begin.
const LEAST_BYTES_PER_SECOND: u64 = 256 << 10;

/// The programs of the server.
#[derive(Clone)]
pub(super) struct Programs {
    store: ProgramStore,
    fetches: Arc<Semaphore>,
    link: Link,
}

/// The pieces of a program for an agent.
pub(super) struct Fetched {
    pieces: PieceReplies,
    _permit: OwnedSemaphorePermit,
}

impl Programs {
    pub(super) fn new(store: ProgramStore, link: Link) -> Self {
        Self { store, fetches: Arc::new(Semaphore::new(MAX_FETCHES)), link }
    }

    /// Receives a program that was asked for.
    pub(super) async fn put(
        &self,
        mut sent: impl Stream<Item = Result<ProgramPiece, Status>> + Unpin,
        meter: &Arc<Meter>,
    ) -> Result<(), Status> {
        let patience = self.link.limits.upload;
        let late = |doing| Status::deadline_exceeded(format!("{doing} took too long"));
        let first = timeout(patience, sent.next()).await.map_err(|_| late("the first piece of the program"))?;
        let first = first.transpose().map_err(blamed)?;
        let first = first.ok_or_else(|| Status::invalid_argument("a program ended before its first piece"))?;
        let (digest, size) = (digest(&first.digest)?, first.size);
        if let Err(refused) = self.link.ask(|reply| Input::UploadBegins(digest, reply)).await? {
            // Several clients may have been asked, and another one was faster.
            return if self.get(digest).await?.is_some() { Ok(()) } else { Err(refused) };
        }
        let begun = Upload { digest, link: Some(self.link.clone()) };
        if self.get(digest).await?.is_some() {
            return begun.finish(Ok(())).await;
        }
        let pieces = once(Ok(first)).chain(sent.map(|piece| {
            meter.settle();
            piece.map_err(|status| upload_error(status, digest))
        }));
        let patience = patience + Duration::from_secs(size / LEAST_BYTES_PER_SECOND);
        let received = timeout(patience, receive(pieces, &self.store, |_, _| Ok(()))).await;
        begun.finish(received.unwrap_or_else(|_| Err(late("sending the program"))).map(drop)).await
    }

    /// Returns a program for an agent, as soon as the coordinator has it.
    pub(super) async fn fetch(&self, name: &[u8]) -> Result<Fetched, Status> {
        let digest = digest(name)?;
        let patience = self.link.limits.fetch;
        let late = || Status::deadline_exceeded(format!("program {digest} did not arrive within {patience:?}"));
        let program = timeout(patience, self.wait(digest)).await.map_err(|_| late())??;
        let permit = Arc::clone(&self.fetches).acquire_owned().await.map_err(|_| shutting_down())?;
        let failed = |error| Status::internal(format!("reading program {digest}: {error}"));
        let file = program.open().map_err(failed)?;
        let pieces = Pieces::of_compressed(file, digest, program.size()).replies();
        Ok(Fetched { pieces, _permit: permit })
    }

    /// Returns a program, if it is on disk, and makes it durable. It is not removed while the returned value exists.
    pub(super) async fn pin(&self, digest: Digest) -> Result<Option<InUse>, Status> {
        let Some(program) = self.get(digest).await? else { return Ok(None) };
        let failed = |error: String| Status::unavailable(format!("writing program {digest} to disk: {error}"));
        let synced = self.link.blocking.run(move || program.sync().map(|()| program)).await;
        let synced = synced.map_err(|error| failed(error.to_string()))?;
        synced.map(Some).map_err(|error| failed(error.to_string()))
    }

    async fn wait(&self, digest: Digest) -> Result<InUse, Status> {
        loop {
            // Programs that arrive from now on are noticed: no client is asked for a program that arrived during the
            // search.
            let arrived = self.link.ask(Input::ProgramsArrived).await?;
            if let Some(program) = self.get(digest).await? {
                return Ok(program);
            }
            // It may be removed again before it is read, if others need the room.
            self.link.ask(|reply| Input::ProgramNeeded(digest, arrived, reply)).await??;
        }
    }

    /// Returns the program if it is on disk. Verifying it for the first time takes a while.
    async fn get(&self, digest: Digest) -> Result<Option<InUse>, Status> {
        let store = self.store.clone();
        let got = self.link.blocking.run(move || store.get(&digest)).await;
        got.map_err(|error| Status::internal(format!("reading program {digest}: {error}")))
    }
}

/// An upload. The loop learns how it ends, even if this is dropped.
struct Upload {
    digest: Digest,
    /// `None`: the loop knows.
    link: Option<Link>,
}

impl Upload {
    async fn finish(mut self, outcome: Result<(), Status>) -> Result<(), Status> {
        if let Some(link) = self.link.take() {
            link.send(Input::UploadEnds(self.digest, outcome.clone())).await?;
        }
        outcome
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let (digest, Some(link)) = (self.digest, self.link.take()) else { return };
        tokio::spawn(async move {
            let _ = link.send(Input::UploadEnds(digest, Err(upload_cut_off(digest)))).await;
        });
    }
}

/// Returns the error for a broken upload. A client whose connection is lost may send the program again.
fn upload_error(status: Status, digest: Digest) -> Status {
    match End::of(status, false) {
        End::Final(status) => status,
        End::Intended | End::Broken(_) => upload_cut_off(digest),
    }
}

fn upload_cut_off(digest: Digest) -> Status {
    Status::cancelled(format!("the client stopped sending program {digest}"))
}

fn digest(bytes: &[u8]) -> Result<Digest, Status> {
    Digest::try_from(bytes).map_err(|error| Status::invalid_argument(error.to_string()))
}

impl Stream for Fetched {
    type Item = Result<ProgramPiece, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.pieces).poll_next(context)
    }
}
