//! How a job begins to come in: as a new one, or where it was.

use farpool_common::log::warn;
use farpool_coordinator::Principal;
use farpool_coordinator::convert::of_one_job;
use farpool_proto::text;
use farpool_proto::v1::client_event::Body;
use farpool_proto::v1::{ClientEvent, ClientMessage, Detach, Durable, client_message};
use farpool_store::{JobStore, JobStoreError, JobStoreErrorKind, Known, Phase};
use prost::Message;
use tonic::Status;

use super::super::super::link::{Joins, Said, Says, StreamId, shown, shutting_down};
use super::super::Driver;
use super::durable::Then;
use super::program::digest_of;
use super::receive::{Receiving, Stream};

/// A stream of Detach that begins.
pub(super) type DetachJoins = Joins<ClientEvent, ClientMessage, StreamId>;

impl Driver {
    pub(in super::super) fn detach_joins(&mut self, joins: DetachJoins) {
        self.begin_or_park(joins, None);
    }

    /// `cannot_keep`: why no new job is taken.
    pub(super) fn begin_or_park(&mut self, joins: DetachJoins, cannot_keep: Option<Status>) {
        let store = self.detached.store.as_deref();
        if store.is_some_and(|store| !has_room(store, &joins.messages, cannot_keep.is_some())) {
            return self.detached.parked.push_back(joins);
        }
        let Joins { outgoing, turns, principal, address, messages, passed: _passed, id: reply } = joins;
        outgoing.for_one_connection();
        let id = self.detached.stream_id();
        let stream = Stream { id, outgoing: outgoing.clone(), turns, address };
        let mut messages = messages.into_iter();
        let first = messages.next().and_then(|message| message.body);
        let begun = match first {
            _ if self.drain.is_some() => Err(shutting_down()),
            Some(client_message::Body::Detach(detach)) => {
                self.begin_to_receive(principal, *detach, stream, cannot_keep)
            }
            _ => Err(Status::invalid_argument("a stream of Detach begins with Detach")),
        };
        if let Err(status) = begun {
            warn!(self.link.log, address = shown(address), reason = status.message(), "job not detached");
            return outgoing.fail(status);
        }
        let _ = reply.send(id);
        let said = Said::Messages { messages: messages.collect(), partial: 0 };
        self.detach_says(Says { id, connection: 0, said, passed: None });
    }

    /// A job that is new, or goes on, or was complete. `cannot_keep`: why no new one is taken.
    fn begin_to_receive(
        &mut self,
        owner: Principal,
        detach: Detach,
        stream: Stream,
        cannot_keep: Option<Status>,
    ) -> Result<(), Status> {
        let Detach { name, id, pool, job, result, format, secret: _ } = detach;
        let tenant = owner.tenant().to_owned();
        let (pool, job) = (pool.unwrap_or_default(), job.unwrap_or_default());
        let settings = pool.settings.clone().unwrap_or_default();
        let digest = digest_of(&pool).ok_or_else(|| Status::invalid_argument("Detach without a program"))?;
        let now = self.now_ms();
        let store = self.detached.store.as_mut().ok_or_else(no_journal)?;
        if id.len() != 16 {
            return Err(Status::invalid_argument(format!("a detached job's id of {} bytes, not 16", id.len())));
        }
        if let Some(there) = store.find(&tenant, &name) {
            if there.known.id != id || there.known.owner != owner {
                return Err(Status::already_exists(format!("there already is a job {name:?}")));
            }
            if there.phase() != Phase::Feeding && !self.detached.receiving.contains_key(&there.number) {
                let items = there.counts().items;
                stream.tell(Body::Durable(Durable { items, complete: true }));
                stream.outgoing.finish();
                return Ok(());
            }
        } else if let Some(why) = cannot_keep {
            return Err(why);
        } else {
            let label = job.label.chars().take(MAX_LABEL).collect();
            let known = Known { owner, name: name.clone(), id: id.clone(), result, format, label, named: job.job };
            check_name(&known)?;
            // What cannot run later is refused now.
            for body in
                [client_message::Body::OpenPool(pool.clone().into()), client_message::Body::OpenJob(job.clone().into())]
            {
                of_one_job(ClientMessage { body: Some(body) })
                    .map_err(|refused| Status::invalid_argument(refused.to_string()))?;
            }
            let number = store.open(known, &pool, &job, now).map_err(|error| status(&error))?;
            self.detached.receiving.insert(number, Receiving::default());
        }
        let Some(there) = store.find(&tenant, &name) else { return Err(Status::internal("the job is gone at once")) };
        let (number, items) = (there.number, there.counts().items);
        let receiving = self.detached.receiving.entry(number).or_default();
        if let Some(older) = receiving.stream.take() {
            self.detached.streams.remove(&older.id);
            older.outgoing.fail(Status::aborted(format!("job {name:?} continues on another stream")));
        }
        receiving.parked.clear();
        (receiving.partial, receiving.waits, receiving.input_ended) = (0, false, receiving.completes);
        receiving.told = None;
        (receiving.named, receiving.payload_limit) = (job.job, settings.payload_limit);
        receiving.program = Some(digest);
        self.detached.streams.insert(stream.id, number);
        self.detached.then.push(Then::Received(number, stream.id, items));
        if stream.is_gone() {
            receiving.stream = Some(stream);
            self.lose_stream(number);
            return Ok(());
        }
        receiving.stream = Some(stream);
        if !self.detached.pins.contains_key(&number) {
            self.pin(number, digest);
        }
        Ok(())
    }
}

/// Whether it is known now if a job can come: there is room for it, or there will be none by itself. `given_up`: nothing can be written,
/// and has not been for too long.
fn has_room(store: &dyn JobStore, messages: &[ClientMessage], given_up: bool) -> bool {
    let bytes = messages.first().map_or(0, |message| message.encoded_len() as u64);
    match store.takes(2 * bytes).map_err(|error| error.kind()) {
        Err(JobStoreErrorKind::Busy) => false,
        Err(JobStoreErrorKind::Io) => given_up,
        _ => true,
    }
}

/// Characters of a label that are kept for lists.
const MAX_LABEL: usize = 256;

/// Bytes that the type of results may have.
const MAX_RESULT: usize = 4096;

fn check_name(known: &Known) -> Result<(), Status> {
    if !text::is_plain(&known.name) {
        return Err(Status::invalid_argument("a job's name must not contain control characters"));
    }
    if known.result.len() > MAX_RESULT {
        let length = known.result.len();
        return Err(Status::invalid_argument(format!(
            "the result type has {length} bytes, and the limit is {MAX_RESULT}"
        )));
    }
    Ok(())
}

pub(super) fn no_journal() -> Status {
    Status::failed_precondition("this coordinator keeps no journal: start it with --journal DIR")
}

pub(super) fn status(error: &JobStoreError) -> Status {
    let message = error.to_string();
    match error.kind() {
        JobStoreErrorKind::Full => Status::resource_exhausted(message),
        JobStoreErrorKind::Busy | JobStoreErrorKind::Io => Status::unavailable(message),
        JobStoreErrorKind::NameTaken => Status::already_exists(message),
        JobStoreErrorKind::NotFound => Status::not_found(message),
        JobStoreErrorKind::Invalid => Status::invalid_argument(message),
        _ => Status::internal(message),
    }
}
