use std::io;
use std::sync::Arc;
use std::time::Duration;

use farpool_net::{Incoming, Outgoing, outgoing};
use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{ClientEvent, ClientMessage, Detach, Durable};
use tokio::time::timeout;
use tonic::Status;

use super::super::super::connect::Connect;
use super::super::super::state::message;
use super::super::super::upload::{Upload, unreadable};
use super::super::attempts::{Attempts, Trouble};
use super::super::keeper::Keeper;
use super::super::outbox::{Outbox, Untrue};
use super::super::refusal::Subject;
use crate::cluster::executable::Executable;
use crate::counted::Counted;
use crate::error::{Error, ErrorKind};

/// The coordinator only says how far it is.
const MESSAGE_LIMIT: u64 = 16 << 20;
/// How long the coordinator may take to drop a job that is no longer wanted. If it takes longer, it drops the job later, because
/// no client resumes sending.
const DROPPING: Duration = Duration::from_secs(2);

/// Sends a job, and resumes after lost connections.
pub(super) struct Sender<'a, C> {
    connect: C,
    subject: Subject,
    outbox: &'a Outbox,
    attempts: Attempts,
    detach: Detach,
    program: Option<Executable>,
}

/// A connection on which the job is being sent.
struct Line<K> {
    connection: K,
    outgoing: Outgoing<ClientMessage>,
    incoming: Incoming<ClientEvent>,
    /// The coordinator has reported its progress.
    answered: bool,
    upload: Upload,
}

enum Heard {
    Bell,
    Messages(Result<Option<Vec<ClientEvent>>, Trouble>),
    Uploaded,
}

impl<'a, C: Connect<Connection: Keeper>> Sender<'a, C> {
    pub(super) fn new(
        connect: C,
        subject: Subject,
        attempts: Attempts,
        outbox: &'a Outbox,
        detach: Detach,
        program: Option<Executable>,
    ) -> Self {
        Self { connect, subject, outbox, attempts, detach, program }
    }

    /// Returns when the whole job is durable, or no longer wanted.
    pub(super) async fn run(mut self) -> Result<(), Error> {
        loop {
            let trouble = match self.attempt().await {
                Ok(()) => return Ok(()),
                Err(trouble) => trouble,
            };
            if self.outbox.is_abandoned() {
                return Ok(());
            }
            let again = self.attempts.again(trouble, &self.subject);
            tokio::select! {
                biased;
                () = until_abandoned(self.outbox) => return Ok(()),
                again = again => again?,
            }
        }
    }

    /// Sends the job on a connection, until the whole job is durable or no longer wanted.
    async fn attempt(&mut self) -> Result<(), Trouble> {
        let mut line = tokio::select! {
            biased;
            () = until_abandoned(self.outbox) => return Ok(()),
            line = self.connect() => line?,
        };
        loop {
            match self.listen(&mut line).await {
                Heard::Bell if self.outbox.is_abandoned() => {
                    self.drop_all(line).await;
                    return Ok(());
                }
                Heard::Bell if line.answered => self.say(&line),
                Heard::Bell => {}
                Heard::Uploaded => self.sent(line.upload.continue_if_wanted(&mut line.connection))?,
                Heard::Messages(messages) => {
                    let Some(messages) = messages? else {
                        return Err(Trouble::Lost(Status::unavailable(
                            "it ended the call before the whole job was durable",
                        )));
                    };
                    for event in messages.into_iter().filter_map(|message| message.body) {
                        if self.take_in(event, &mut line)? {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    async fn connect(&self) -> Result<Line<C::Connection>, Trouble> {
        let (outgoing, frames) = outgoing(0, Arc::default());
        outgoing.for_one_connection();
        outgoing.push(message(Body::Detach(Box::new(self.detach.clone()))));
        let call = async {
            let mut connection = self.connect.connect().await?;
            let events = connection.detach(frames).await?;
            Ok((connection, events))
        };
        let (connection, events) = self.attempts.answer(call).await?;
        let incoming = outgoing.incoming(events, MESSAGE_LIMIT);
        Ok(Line { connection, outgoing, incoming, answered: false, upload: Upload::new(self.program.clone()) })
    }

    async fn listen(&self, line: &mut Line<C::Connection>) -> Heard {
        let Line { incoming, upload, answered, .. } = line;
        let messages = async {
            let heard = match answered {
                true => incoming.next().await.map_err(Trouble::Lost),
                false => self.attempts.answer(incoming.next()).await,
            };
            match heard {
                Err(Trouble::Lost(status)) if incoming.is_garbled() => {
                    Err(self.nonsense(&format!("sent an invalid frame: {}", status.message())))
                }
                heard => heard,
            }
        };
        tokio::select! {
            biased;
            () = self.outbox.rung() => Heard::Bell,
            messages = messages => Heard::Messages(messages),
            () = upload.ended() => Heard::Uploaded,
        }
    }

    fn say(&self, line: &Line<C::Connection>) {
        line.outgoing.extend(self.outbox.unsent(self.job()).into_iter().map(message));
    }

    /// Returns whether the whole job is durable.
    fn take_in(&mut self, event: Event, line: &mut Line<C::Connection>) -> Result<bool, Trouble> {
        match event {
            Event::Durable(Durable { complete: true, .. }) => {
                self.outbox.note_complete().map_err(|untrue| self.untrue(&untrue))?;
                return Ok(true);
            }
            Event::Durable(durable) => {
                let anew = !std::mem::replace(&mut line.answered, true);
                let before = self.outbox.count();
                self.outbox.note_durable(durable.items, anew).map_err(|untrue| self.untrue(&untrue))?;
                if anew {
                    self.attempts.note_answer();
                    self.say(line);
                }
                if durable.items > before {
                    self.attempts.note_progress();
                }
            }
            Event::ProgramWanted(wanted) => {
                let is_ours = line.upload.has(&wanted.digest);
                if is_ours {
                    self.sent(line.upload.wanted(&mut line.connection))?;
                }
            }
            // Unknown to this version.
            _ => {}
        }
        Ok(false)
    }

    fn sent(&self, program: io::Result<()>) -> Result<(), Trouble> {
        program.map_err(|error| {
            let error = unreadable(&self.subject.place().address, &error);
            Trouble::Final(self.subject.tell(error))
        })
    }

    /// Makes the coordinator drop its part of the job, if it is known to have this one.
    async fn drop_all(&self, mut line: Line<C::Connection>) {
        if line.answered {
            let (name, id) = self.subject.job().parts();
            let _ = timeout(DROPPING, line.connection.discard(name, id)).await;
        }
    }

    fn job(&self) -> u64 {
        self.detach.job.as_ref().map_or(0, |job| job.job)
    }

    fn untrue(&self, untrue: &Untrue) -> Trouble {
        match untrue {
            Untrue::TooMany => self.nonsense("reports items as durable that it was never sent"),
            Untrue::Lost => {
                let message = format!(
                    "the coordinator at {} has dropped the incomplete job: the connection was lost for too long, or the job \
                     was discarded; detach it again",
                    self.subject.place().address
                );
                Trouble::Final(self.subject.tell(Error::new(ErrorKind::Unavailable, message)))
            }
        }
    }

    fn nonsense(&self, what: &str) -> Trouble {
        let error = Error::protocol(format_args!("the coordinator at {} {what}", self.subject.place().address));
        Trouble::Final(self.subject.tell(error))
    }
}

/// Completes when the job is no longer wanted.
async fn until_abandoned(outbox: &Outbox) {
    while !outbox.is_abandoned() {
        outbox.rung().await;
    }
}
