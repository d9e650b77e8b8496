//! A session's conversation with the coordinator: handles the messages that it receives.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use farpool_net::{Incoming, Secret};
use farpool_proto::v1::ClientEvent;
use farpool_proto::v1::client_event::Body as Event;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use super::backoff::Backoff;
use super::connect;
use super::connect::{Connect, Grpc, runtime};
use super::dial::{ANSWER_TIMEOUT, Dialer, Line};
use super::driver::SessionDriver;
use super::notice::Notice;
use super::shared::Shared;
use super::state::{Link, SessionState};
use super::upload::{Upload, unreadable};
use crate::cluster::executable::Executable;
use crate::error::{Error, ErrorKind};
use crate::front::Front;

/// What a message has beside items or results: those of one message are those of one collection.
const MESSAGE_ROOM: u64 = 64 << 20;

/// Reports to the caller that opens the pool that it is open, or why not.
pub(super) type Opener = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// The settings of a session.
pub(super) struct Terms {
    /// Proves to the coordinator that the session or pool belongs to this client.
    pub(super) secret: Secret,
    pub(super) payload_limit: u64,
    /// How long it tries to reconnect when a connection is lost.
    pub(super) reconnect_timeout: Duration,
    /// The program that it can send to the coordinator.
    pub(super) program: Option<Executable>,
    pub(super) front: Arc<dyn Front>,
}

/// Holds the whole conversation, from connecting to the end of the session. This is the session's thread.
pub(super) fn hold(shared: &Arc<Shared>, driver: &SessionDriver, terms: Terms, opener: Opener) {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = Error::new(ErrorKind::Unavailable, format!("cannot start the pool's thread: {error}"));
            return end(shared, Err(error), Some(opener));
        }
    };
    let own = Arc::clone(shared);
    driver.run(shared, runtime, async move {
        let (connect, mut opener) = (Grpc::new(&own.address), Some(opener));
        let ended = converse(&own, connect, terms, &mut opener).await;
        end(&own, ended, opener);
    });
}

/// Ends the conversation and all waits.
pub(super) fn end(shared: &Shared, ended: Result<(), Error>, opener: Option<Opener>) {
    let error = ended.err();
    shared.end(error.clone());
    if let (Some(opener), Some(error)) = (opener, error) {
        opener(Err(error));
    }
}

/// The conversation; `opener` is `None` once it was told.
pub(super) async fn converse<C: Connect>(
    shared: &Arc<Shared>,
    connect: C,
    terms: Terms,
    opener: &mut Option<Opener>,
) -> Result<(), Error> {
    let Terms { secret, payload_limit, reconnect_timeout, program, front } = terms;
    // The id is as random as the secret, and the times of retries do not give the secret away.
    let seed = u64::from_le_bytes(*secret.id().first_chunk().unwrap_or(&[0; 8]));
    let dialer = Dialer { connect, secret, message_limit: payload_limit.saturating_add(MESSAGE_ROOM) };
    let line = dialer.open(shared).await.map_err(|status| connect::not_opened(&shared.address, &status))?;
    let Line { connection, incoming, .. } = line;
    let mut conversation = Conversation {
        shared,
        dialer,
        connection,
        incoming,
        opening: Opening { opener, welcomed: false, deadline: Some(Instant::now() + ANSWER_TIMEOUT) },
        notice: Notice::default(),
        upload: Upload::new(program),
        front,
        patience: reconnect_timeout,
        backoff: Backoff::new(seed),
    };
    conversation.run().await
}

pub(super) struct Conversation<'a, C: Connect> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) dialer: Dialer<C>,
    pub(super) connection: C::Connection,
    pub(super) incoming: Incoming<ClientEvent>,
    pub(super) opening: Opening<'a>,
    pub(super) notice: Notice,
    pub(super) upload: Upload,
    pub(super) front: Arc<dyn Front>,
    /// How long to try to reconnect.
    pub(super) patience: Duration,
    pub(super) backoff: Backoff,
}

pub(super) struct Opening<'a> {
    opener: &'a mut Option<Opener>,
    /// Whether a coordinator has accepted the pool.
    welcomed: bool,
    deadline: Option<Instant>,
}

/// What the session's thread goes on with.
enum Heard {
    Messages(Result<Option<Vec<ClientEvent>>, Status>),
    Bell,
    Time,
    Uploaded,
}

/// What follows.
pub(super) enum Next {
    Listen,
    /// The connection is lost, for this reason.
    ComeBack(String),
    End,
}

impl<C: Connect> Conversation<'_, C> {
    async fn run(&mut self) -> Result<(), Error> {
        let mut next = Next::Listen;
        loop {
            next = match next {
                Next::ComeBack(what) => self.come_back(&what).await?,
                Next::End => return Ok(()),
                Next::Listen => match self.listen().await {
                    Heard::Messages(messages) => self.hear(messages)?,
                    Heard::Bell if self.shared.is_abandoned() => Next::End,
                    Heard::Bell => {
                        self.notice.begin_job(Instant::now());
                        Next::Listen
                    }
                    Heard::Time => {
                        self.look_at_the_time()?;
                        Next::Listen
                    }
                    Heard::Uploaded => {
                        let sent = self.upload.continue_if_wanted(&mut self.connection);
                        self.shared.change(|state| self.note_upload(sent, state));
                        Next::Listen
                    }
                },
            };
        }
    }

    async fn listen(&mut self) -> Heard {
        let Conversation { shared, incoming, upload, notice, opening, .. } = self;
        let time = [notice.due(), opening.deadline].into_iter().flatten().min();
        let messages = async {
            shared.gate.pass(|| shared.is_waited_for()).await;
            incoming.next().await
        };
        tokio::select! {
            biased;
            () = shared.bell.notified() => Heard::Bell,
            messages = messages => Heard::Messages(messages),
            () = at(time) => Heard::Time,
            () = upload.ended() => Heard::Uploaded,
        }
    }

    /// Handles the messages of some frames.
    pub(super) fn hear(&mut self, messages: Result<Option<Vec<ClientEvent>>, Status>) -> Result<Next, Error> {
        let messages = match messages {
            // Frames that only acknowledge.
            Ok(Some(messages)) if messages.is_empty() => return Ok(Next::Listen),
            Ok(Some(messages)) => messages,
            Ok(None) if self.opening.welcomed => return Ok(Next::ComeBack("it ended the session".to_owned())),
            Ok(None) => return Err(self.lost("it ended the session")),
            Err(status) if !self.opening.welcomed => {
                return Err(connect::not_opened(&self.shared.address, &status));
            }
            Err(status) if self.incoming.is_garbled() || connect::is_final(&status) => {
                return Err(self.lost(&connect::told(&status)));
            }
            Err(status) => return Ok(Next::ComeBack(connect::told(&status))),
        };
        let shared = self.shared;
        shared.change(|state| {
            for message in messages {
                if let Some(event) = state.hear(message) {
                    self.take_in(event, state);
                }
            }
            if state.link != Link::Up {
                return Err(Error::protocol(format_args!("the first message from {} was not Welcome", shared.address)));
            }
            if let Some(error) = state.inboxes.failure() {
                self.opening.answer(Err(error));
            }
            Ok(if state.inboxes.is_closed() { Next::End } else { Next::Listen })
        })
    }

    /// Handles events that are not about a job.
    fn take_in(&mut self, event: Event, state: &mut SessionState) {
        match event {
            Event::Welcome(welcome) if state.link == Link::Opening => {
                self.shared.note_window(welcome.window);
                state.welcome(welcome, self.opening.welcomed);
                self.opening.welcome(Instant::now());
            }
            Event::PoolOpened(opened) => {
                self.shared.note_slots(state, opened.slots);
                self.notice.resume(opened.slots).iter().for_each(|line| self.front.notice(line));
                self.opening.succeed();
            }
            Event::Waiting(waiting) => {
                let reason = format!("{} (the coordinator is {})", waiting.reason, self.shared.address);
                state.waiting = Some(reason.clone());
                self.notice.wait(reason, state.inboxes.iter().len() > 0, Instant::now());
                self.opening.succeed();
            }
            Event::ProgramWanted(wanted) => {
                let is_ours = self.upload.has(&wanted.digest);
                if is_ours {
                    self.send_program(state);
                }
            }
            Event::Output(printed) => self.front.output(&printed),
            // Already delivered to inboxes, or unknown to this version.
            _ => {}
        }
    }

    fn look_at_the_time(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if self.notice.due().is_some_and(|due| due <= now) {
            let busy = self.shared.open_jobs() > 0;
            self.notice.ring(busy).iter().for_each(|line| self.front.notice(line));
        }
        if self.opening.deadline.is_some_and(|deadline| deadline <= now) {
            if !self.opening.welcomed {
                let silent = format!("it did not answer within {ANSWER_TIMEOUT:?}");
                return Err(connect::unreachable(&self.shared.address, &silent));
            }
            // Where the pool runs will be known later; jobs can be opened until then.
            self.opening.succeed();
        }
        Ok(())
    }

    pub(super) fn send_program(&mut self, state: &mut SessionState) {
        let sent = self.upload.wanted(&mut self.connection);
        self.note_upload(sent, state);
    }

    fn note_upload(&self, sent: io::Result<()>, state: &mut SessionState) {
        if let Err(error) = sent {
            state.inboxes.fail(unreadable(&self.shared.address, &error));
        }
    }

    pub(super) fn lost(&self, what: &str) -> Error {
        connect::lost(&self.shared.address, self.shared.open_jobs(), what)
    }
}

impl Opening<'_> {
    fn welcome(&mut self, now: Instant) {
        self.welcomed = true;
        if self.opener.is_some() {
            self.deadline = Some(now + ANSWER_TIMEOUT);
        }
    }

    pub(super) fn succeed(&mut self) {
        self.answer(Ok(()));
    }

    /// Only the first answer counts.
    fn answer(&mut self, answer: Result<(), Error>) {
        self.deadline = None;
        if let Some(opener) = self.opener.take() {
            opener(answer);
        }
    }
}

pub(super) async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
