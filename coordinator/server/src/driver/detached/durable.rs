//! What follows when something is durable.
//!
//! The store is given what there is when it writes nothing, and what comes meanwhile goes together.

use farpool_common::log::{error, info, warn};
use farpool_coordinator::ClientId;
use farpool_proto::v1::client_event::Body;
use farpool_proto::v1::{ClosePool, Durable, client_message};
use tokio::sync::oneshot;
use tonic::Status;

use super::super::super::link::StreamId;
use super::super::Driver;
use super::refuse::Failing;

/// What waits for the disk.
pub(super) enum Then {
    /// What the client of a pool heard up to this message counts as taken in.
    Acknowledge(ClientId, u64),
    /// Items may be given out: it is noted that they may have been.
    Give(ClientId),
    /// Items in front of this index came on a stream.
    Received(u64, StreamId, u64),
    /// A job is complete.
    Complete(u64),
    /// A job has ended.
    Ended(u64),
    /// Somebody is told that something was done.
    Answer(oneshot::Sender<Result<(), Status>>),
}

impl Driver {
    /// Gives the store what there is, if it writes nothing else.
    pub(in super::super) fn write_down(&mut self) {
        if self.detached.store.as_ref().is_some_and(|store| store.is_idle()) {
            self.number();
            self.follow_durable();
        }
    }

    /// Takes note of what was written.
    pub(super) fn take_progress(&mut self) {
        // It can be mended by now.
        let refusal = self.cannot_keep();
        let Some(store) = &mut self.detached.store else { return };
        let progress = store.progress();
        for warning in progress.warnings {
            warn!(self.link.log, detail = warning, "journal warning");
        }
        let before = self.detached.failing.as_ref();
        if progress.failed.as_ref() != before.map(|failing| &failing.why) {
            let directory = store.location();
            match &progress.failed {
                Some(why) => {
                    error!(self.link.log, %directory, error = %why, "cannot write to the journal; detached jobs wait");
                }
                None => info!(self.link.log, %directory, "the journal is writable again"),
            }
            self.detached.failing = progress.failed.map(|why| Failing::new(why, before, self.now));
        }
        if let Some(why) = refusal {
            progress.withdrawn.into_iter().for_each(|job| self.refuse(job, why.clone()));
        }
        self.number();
        self.follow_durable();
        self.refuse_what_cannot_be_kept();
        self.take_parked();
    }

    /// Hands over what was written, and remembers what follows from that.
    fn number(&mut self) {
        let Some(store) = &mut self.detached.store else { return };
        let number = store.flush();
        self.detached.waiting.extend(self.detached.then.drain(..).map(|then| (number, then)));
    }

    fn follow_durable(&mut self) {
        let Some(durable) = self.detached.store.as_ref().map(|store| store.acknowledged()) else { return };
        let mut news = Vec::new();
        while self.detached.waiting.front().is_some_and(|(number, _)| *number <= durable) {
            let Some((_, then)) = self.detached.waiting.pop_front() else { break };
            match then {
                Then::Acknowledge(id, heard) => {
                    self.coordinator.client_acknowledged(id, heard, self.now, &mut self.out);
                    news.extend(self.detached.runs.get(&id).map(|run| run.job));
                }
                Then::Give(id) => self.was_noted(id),
                Then::Received(job, stream, items) => self.say_received(job, stream, items),
                Then::Complete(job) => self.complete(job),
                Then::Ended(job) => {
                    self.detached.ending.remove(&job);
                    news.push(job);
                    // Not earlier: the agents have its outcomes as long as it is open.
                    if let Some(&id) = self.detached.clients.get(&job) {
                        self.say_for(id, client_message::Body::ClosePool(ClosePool { now: false }));
                    }
                }
                Then::Answer(reply) => drop(reply.send(Ok(()))),
            }
        }
        self.serve_jobs(&news);
    }

    fn say_received(&mut self, job: u64, stream: StreamId, items: u64) {
        let Some(receiving) = self.detached.receiving.get_mut(&job) else { return };
        if let Some(on) = receiving.stream.as_ref().filter(|on| on.id == stream) {
            on.tell(Body::Durable(Durable { items, complete: false }));
            receiving.told = Some(items);
        }
    }
}
