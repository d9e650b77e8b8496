//! Jobs on their way in. All or nothing: what is not complete does not run, and goes if nobody goes on with it.

use std::collections::VecDeque;
use std::net::SocketAddr;

use farpool_common::log::{info, warn};
use farpool_coordinator::convert::{OfOneJob, of_one_job};
use farpool_net::Outgoing;
use farpool_programs::Digest;
use farpool_proto::v1::client_event::Body;
use farpool_proto::v1::{ClientEvent, ClientMessage, Durable};
use farpool_store::{Entry, JobStoreErrorKind};
use prost::Message;
use tokio::sync::mpsc;
use tonic::Status;

use super::super::super::clock::nanos;
use super::super::super::end::End;
use super::super::super::link::{Said, Says, StreamId, shown, shutting_down};
use super::super::Driver;
use super::begin::status;
use super::durable::Then;

/// A job that is not complete.
#[derive(Default)]
pub(super) struct Receiving {
    /// None: its client may come back.
    pub(super) stream: Option<Stream>,
    /// Since when there is none.
    pub(super) since: u64,
    /// Its number in messages, and how long an item may be.
    pub(super) named: u64,
    pub(super) payload_limit: u64,
    pub(super) program: Option<Digest>,
    /// The program, as long as it is not here.
    pub(super) wants: Option<Digest>,
    /// How many items are durable, as was said on its stream; none: that was not said yet.
    pub(super) told: Option<u64>,
    /// What came and has no room in the store yet.
    pub(super) parked: VecDeque<ClientMessage>,
    /// Bytes of a message that is not whole.
    pub(super) partial: u64,
    /// Its turn is over and it waits for the next.
    pub(super) waits: bool,
    /// No more items come, and that is in the store.
    pub(super) input_ended: bool,
    pub(super) completes: bool,
}

/// The stream that a job comes on.
pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) outgoing: Outgoing<ClientEvent>,
    pub(super) turns: mpsc::Sender<()>,
    pub(super) address: Option<SocketAddr>,
}

/// Why a message is not taken in.
enum NotTaken {
    /// There is no room for now.
    Yet(ClientMessage),
    Ever(Status),
    /// There will be none either: the job goes.
    Full(Status),
}

impl Stream {
    pub(super) fn tell(&self, body: Body) {
        self.outgoing.push(ClientEvent { body: Some(body) });
    }

    pub(super) fn is_gone(&self) -> bool {
        self.outgoing.is_gone()
    }
}

impl Receiving {
    pub(super) fn held(&self) -> u64 {
        let parked: usize = self.parked.iter().map(Message::encoded_len).sum();
        self.partial + parked as u64
    }

    /// Whether somebody waits for the disk to take something of it. `items`: so many have come.
    pub(super) fn waits_for_disk(&self, items: Option<u64>) -> bool {
        self.stream.is_some() && (self.told != items || self.input_ended || !self.parked.is_empty())
    }

    /// Since when nobody goes on with it, if it is so.
    pub(super) fn away_since(&self) -> Option<u64> {
        (self.stream.is_none() && !self.completes).then_some(self.since)
    }
}

impl Driver {
    pub(in super::super) fn detach_says(
        &mut self,
        Says { id, said, passed: _passed, .. }: Says<ClientMessage, StreamId>,
    ) {
        let Some(&job) = self.detached.streams.get(&id) else { return };
        let Some(receiving) = self.detached.receiving.get_mut(&job) else { return };
        match said {
            Said::Messages { messages, partial } => {
                receiving.parked.extend(messages);
                (receiving.partial, receiving.waits) = (partial as u64, true);
                self.take_what_came(job);
            }
            // It has said all, and waits for the last word.
            Said::Gone(End::Meant) if receiving.input_ended && receiving.parked.is_empty() => {}
            Said::Gone(_) => self.lose_stream(job),
        }
    }

    /// Jobs whose streams nobody reads any more.
    pub(in super::super) fn look_at_detaching(&mut self) {
        let gone = self
            .detached
            .receiving
            .iter()
            .filter(|(_, receiving)| receiving.stream.as_ref().is_some_and(Stream::is_gone));
        let gone: Vec<u64> = gone.map(|(job, _)| *job).collect();
        gone.into_iter().for_each(|job| self.lose_stream(job));
    }

    /// There is room again, or may be.
    pub(super) fn take_parked(&mut self) {
        let cannot_keep = self.cannot_keep();
        for joins in std::mem::take(&mut self.detached.parked) {
            self.begin_or_park(joins, cannot_keep.clone());
        }
        let waiting =
            |receiving: &Receiving| !receiving.parked.is_empty() || (receiving.input_ended && !receiving.completes);
        let waiting: Vec<u64> =
            self.detached.receiving.iter().filter(|(_, receiving)| waiting(receiving)).map(|(job, _)| *job).collect();
        waiting.into_iter().for_each(|job| self.take_what_came(job));
    }

    fn take_what_came(&mut self, job: u64) {
        let mut refused = None;
        while let Some(receiving) = self.detached.receiving.get_mut(&job)
            && let Some(message) = receiving.parked.pop_front()
        {
            match self.take_in_part(job, message) {
                Ok(()) => {}
                Err(NotTaken::Yet(message)) => {
                    self.detached.receiving.entry(job).or_default().parked.push_front(message);
                    break;
                }
                Err(NotTaken::Ever(status)) => {
                    refused = Some((status, false));
                    break;
                }
                Err(NotTaken::Full(status)) => {
                    refused = Some((status, true));
                    break;
                }
            }
        }
        if let Some((status, forget)) = refused {
            self.break_off(job, status);
            if forget {
                self.forget_job(job);
            }
            return;
        }
        let items = self.detached.store.as_ref().and_then(|store| store.job(job)).map(|job| job.counts().items);
        if let Some(receiving) = self.detached.receiving.get(&job)
            && let (Some(stream), Some(items)) = (&receiving.stream, items)
        {
            let received = Then::Received(job, stream.id, items);
            self.detached.then.push(received);
        }
        self.try_to_complete(job);
        self.give_turns();
    }

    fn take_in_part(&mut self, job: u64, message: ClientMessage) -> Result<(), NotTaken> {
        let wrong = |text: String| NotTaken::Ever(Status::invalid_argument(text));
        let Some(receiving) = self.detached.receiving.get_mut(&job) else { return Ok(()) };
        let Some(store) = &mut self.detached.store else { return Ok(()) };
        let (named, limit) = (receiving.named, receiving.payload_limit);
        if receiving.completes {
            // It was said before, on another stream.
            return Ok(());
        }
        if receiving.input_ended {
            return Err(wrong("a message behind EndItems".to_owned()));
        }
        match of_one_job(message.clone()).map_err(|refused| wrong(refused.to_string()))? {
            OfOneJob::Items(of, batch) if of == named => {
                let next = store.job(job).map_or(0, |job| job.counts().items);
                if batch.first != next {
                    return Err(wrong(format!("items from {} on come where item {next} is the next", batch.first)));
                }
                if let Some((item, bytes)) = batch.longer_than(limit) {
                    return Err(wrong(format!("item {item} has {bytes} bytes, and the pool's limit is {limit}")));
                }
                let items = Entry::Items { first: batch.first, data: batch.data, ends: batch.ends };
                store.append(job, items).map_err(|error| match error.kind() {
                    JobStoreErrorKind::Busy | JobStoreErrorKind::Io => NotTaken::Yet(message),
                    JobStoreErrorKind::Full => NotTaken::Full(status(&error)),
                    _ => NotTaken::Ever(status(&error)),
                })
            }
            OfOneJob::End(of) if of == named => {
                receiving.input_ended = true;
                Ok(())
            }
            _ => Err(wrong(format!("a stream of Detach has Items and EndItems, of job {named}"))),
        }
    }

    /// Writes down that a job is complete, if it is, and its program here.
    pub(super) fn try_to_complete(&mut self, number: u64) {
        let now = self.now_ms();
        let Some(receiving) = self.detached.receiving.get_mut(&number) else { return };
        let Some(store) = &mut self.detached.store else { return };
        let is_here = self.detached.pins.contains_key(&number) && receiving.parked.is_empty();
        let Some(job) = store.job(number).filter(|_| receiving.input_ended && !receiving.completes && is_here) else {
            return;
        };
        let items = job.counts().items;
        // While nothing can be written it is tried with each progress.
        if store.append(number, Entry::ItemsEnded { end: items, now_ms: now }).is_ok() {
            receiving.completes = true;
            self.detached.then.push(Then::Complete(number));
        }
    }

    /// A job is complete, and that is durable: it runs.
    pub(super) fn complete(&mut self, number: u64) {
        let Some(receiving) = self.detached.receiving.remove(&number) else { return };
        let Some(job) = self.detached.store.as_ref().and_then(|store| store.job(number)) else { return };
        let items = job.counts().items;
        info!(self.link.log, job = job.name(), items, "job detached");
        if let Some(stream) = receiving.stream {
            self.detached.streams.remove(&stream.id);
            stream.tell(Body::Durable(Durable { items, complete: true }));
            stream.outgoing.finish();
        }
        self.start(number);
        self.serve_jobs(&[number]);
    }

    /// Ends the stream that a job comes on.
    pub(super) fn break_off(&mut self, job: u64, status: Status) {
        let Some(receiving) = self.detached.receiving.get(&job) else { return };
        if let Some(stream) = &receiving.stream {
            let address = shown(stream.address);
            info!(self.link.log, address, reason = status.message(), "detach stream closed");
            stream.outgoing.fail(status);
        }
        self.lose_stream(job);
    }

    pub(super) fn lose_stream(&mut self, job: u64) {
        let Some(receiving) = self.detached.receiving.get_mut(&job) else { return };
        if let Some(stream) = receiving.stream.take() {
            self.detached.streams.remove(&stream.id);
        }
        receiving.parked.clear();
        (receiving.partial, receiving.waits, receiving.since) = (0, false, self.now);
        receiving.input_ended = receiving.completes;
    }

    /// A job that was not complete when the coordinator ended.
    pub(super) fn expect_rest(&mut self, job: u64) {
        self.detached.receiving.insert(job, Receiving { since: self.now, ..Receiving::default() });
    }

    /// Drops what nobody goes on with, also while nothing can be written: it may be what has filled the disk.
    pub(super) fn forget_unfinished(&mut self) {
        let Some(since) = self.now.checked_sub(nanos(self.link.limits.detach)) else { return };
        let late = |receiving: &Receiving| receiving.away_since().is_some_and(|away| away <= since);
        let late: Vec<u64> =
            self.detached.receiving.iter().filter(|(_, receiving)| late(receiving)).map(|(job, _)| *job).collect();
        for number in late {
            if let Some(job) = self.detached.store.as_ref().and_then(|store| store.job(number)) {
                warn!(self.link.log, job = job.name(), "job dropped: its client did not finish detaching it");
            }
            let forgotten = self.detached.store.as_mut().map(|store| store.forget_incomplete(number));
            if let Some(Err(error)) = forgotten {
                warn!(self.link.log, %error, "cannot drop a detached job");
            }
            self.has_gone(number);
        }
    }

    /// Lets those go on that wait for their turn: all, or while the memory is full only one of those that hold something.
    pub(super) fn give_turns(&mut self) {
        let full = self.memory.is_full();
        let mut favoured = false;
        for receiving in self.detached.receiving.values_mut() {
            let goes_on = !full || (receiving.partial > 0 && !std::mem::replace(&mut favoured, true));
            if receiving.waits && goes_on && receiving.parked.is_empty() {
                receiving.waits = false;
                // There is room, since its last turn is over; or it is gone.
                let _ = receiving.stream.as_ref().map(|stream| stream.turns.try_send(()));
            }
        }
    }

    /// The server ends.
    pub(in super::super) fn dismiss_detached(&mut self) {
        self.detached.parked.drain(..).for_each(|joins| joins.outgoing.fail(shutting_down()));
        let receiving = std::mem::take(&mut self.detached.receiving).into_values();
        receiving.filter_map(|receiving| receiving.stream).for_each(|stream| stream.outgoing.fail(shutting_down()));
        let attached = std::mem::take(&mut self.detached.attached).into_values();
        attached.for_each(|attached| attached.outgoing.fail(shutting_down()));
        self.detached.close();
    }
}
