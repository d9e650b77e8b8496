//! A session's conversation with the coordinator: handles the messages that it receives.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use farpool_net::dial::reason;
use farpool_net::{Incoming, Secret};
use farpool_proto::v1::ClientEvent;
use farpool_proto::v1::client_event::Body as Event;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use super::backoff::Backoff;
use super::connect;
use super::connect::{Connect, Grpc, runtime};
use super::dial::{ANSWER_TIMEOUT, Dialer, NewConnection};
use super::driver::SessionDriver;
use super::notice::Notice;
use super::purpose::Purpose;
use super::reconnect_deadline::ReconnectDeadline;
use super::shared::Shared;
use super::state::{Link, SessionState};
use super::upload::Upload;
use crate::cluster::executable::Executable;
use crate::error::Error;
use crate::front::Front;

/// How much larger than one payload a message may be: its items or results were collected together.
const MESSAGE_ROOM: u64 = 64 << 20;

/// Reports to the caller that its pool is open or its detached job accepted, or why not.
pub(super) type Opener = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// The settings of a session.
pub(super) struct Terms {
    pub(super) purpose: Purpose,
    /// Proves to the coordinator that the session or pool belongs to this client.
    pub(super) secret: Secret,
    pub(super) payload_limit: u64,
    /// How long to try to reconnect when a connection is lost.
    pub(super) reconnect_timeout: Duration,
    /// The program that can be sent to the coordinator.
    pub(super) program: Option<Executable>,
    pub(super) front: Arc<dyn Front>,
}

/// Starts the session's thread.
pub(super) fn start(
    shared: &Arc<Shared>,
    driver: &Arc<SessionDriver>,
    terms: Terms,
    opener: Opener,
) -> Result<(), Error> {
    let own = (Arc::clone(shared), Arc::clone(driver));
    let purpose = terms.purpose.clone();
    thread::Builder::new()
        .name("farpool".into())
        .stack_size(crate::STACK)
        .spawn(move || run_thread(&own.0, &own.1, terms, opener))
        .map(drop)
        .map_err(|error| purpose.not_started(&error))
}

/// Runs the session's thread, from connecting to the end of the session.
fn run_thread(shared: &Arc<Shared>, driver: &SessionDriver, terms: Terms, opener: Opener) {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return end(shared, Err(terms.purpose.not_started(&error)), Some(opener)),
    };
    let (own, connect) = (Arc::clone(shared), Grpc::new(&shared.address));
    driver.run(shared, runtime, async move { drop(run(own, connect, terms, opener).await) });
}

/// Runs the whole conversation as a future.
pub(super) async fn run<C: Connect>(
    shared: Arc<Shared>,
    connect: C,
    terms: Terms,
    opener: Opener,
) -> Result<(), Error> {
    let mut opener = Some(opener);
    let ended = try_run(&shared, connect, terms, &mut opener).await;
    end(&shared, ended.clone(), opener);
    ended
}

/// Ends the conversation and all waits.
fn end(shared: &Shared, ended: Result<(), Error>, opener: Option<Opener>) {
    let error = ended.err();
    shared.end(error.clone());
    if let (Some(opener), Some(error)) = (opener, error) {
        opener(Err(error));
    }
}

/// Runs the conversation; `opener` is `None` once it was called.
async fn try_run<C: Connect>(
    shared: &Arc<Shared>,
    connect: C,
    terms: Terms,
    opener: &mut Option<Opener>,
) -> Result<(), Error> {
    let Terms { purpose, secret, payload_limit, reconnect_timeout, program, front } = terms;
    // The id is as random as the secret, and the times of retries do not give the secret away.
    let seed = u64::from_le_bytes(*secret.id().first_chunk().unwrap_or(&[0; 8]));
    let dialer = Dialer { connect, secret, message_limit: payload_limit.saturating_add(MESSAGE_ROOM) };
    let mut conversation = Conversation {
        shared,
        dialer,
        connected: None,
        opening: Opening { opener, deadline: None },
        notice: Notice::default(),
        upload: Upload::new(program),
        front,
        reconnect_deadline: ReconnectDeadline::new(reconnect_timeout, purpose.stable_after()),
        purpose,
        backoff: Backoff::new(seed),
    };
    conversation.run().await
}

pub(super) struct Conversation<'a, C: Connect> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) purpose: Purpose,
    pub(super) dialer: Dialer<C>,
    /// `None` before the first connection.
    pub(super) connected: Option<(C::Connection, Incoming<ClientEvent>)>,
    pub(super) opening: Opening<'a>,
    pub(super) notice: Notice,
    pub(super) upload: Upload,
    pub(super) front: Arc<dyn Front>,
    pub(super) reconnect_deadline: ReconnectDeadline,
    pub(super) backoff: Backoff,
}

pub(super) struct Opening<'a> {
    opener: &'a mut Option<Opener>,
    deadline: Option<Instant>,
}

/// Why the session's thread wakes up.
enum Wakeup {
    Messages(Result<Option<Vec<ClientEvent>>, Status>),
    Notified,
    Deadline,
    Uploaded,
}

/// What the session's thread does next.
pub(super) enum Next {
    Listen,
    /// The connection is lost, for this reason.
    Reconnect(String),
    End,
}

impl<C: Connect> Conversation<'_, C> {
    async fn run(&mut self) -> Result<(), Error> {
        let mut next = self.begin().await?;
        loop {
            next = match next {
                Next::Reconnect(what) => self.reconnect(&what).await?,
                Next::End => return Ok(()),
                Next::Listen => match self.listen().await {
                    Wakeup::Messages(messages) => self.handle_messages(messages)?,
                    Wakeup::Notified if self.shared.is_abandoned() => Next::End,
                    Wakeup::Notified => {
                        self.notice.begin_job(Instant::now());
                        Next::Listen
                    }
                    Wakeup::Deadline => {
                        self.check_deadlines()?;
                        Next::Listen
                    }
                    Wakeup::Uploaded => {
                        self.continue_upload();
                        Next::Listen
                    }
                },
            };
        }
    }

    /// Connects for the first time.
    async fn begin(&mut self) -> Result<Next, Error> {
        if self.purpose.is_job() {
            return self.connect_with_retries().await;
        }
        let new = self.dialer.open(self.shared).await.map_err(|status| self.purpose.refused(&status))?;
        let NewConnection { connection, incoming, .. } = new;
        self.connected = Some((connection, incoming));
        self.opening.deadline = Some(Instant::now() + ANSWER_TIMEOUT);
        Ok(Next::Listen)
    }

    async fn listen(&mut self) -> Wakeup {
        let Conversation { shared, connected, upload, notice, opening, .. } = self;
        let time = [notice.due(), opening.deadline].into_iter().flatten().min();
        let messages = async {
            shared.gate.pass(|| shared.is_waited_for()).await;
            match connected {
                Some((_, incoming)) => incoming.next().await,
                None => Ok(None),
            }
        };
        tokio::select! {
            biased;
            () = shared.wake_up.notified() => Wakeup::Notified,
            messages = messages => Wakeup::Messages(messages),
            () = at(time) => Wakeup::Deadline,
            () = upload.ended() => Wakeup::Uploaded,
        }
    }

    /// Handles the messages of some frames.
    pub(super) fn handle_messages(
        &mut self,
        messages: Result<Option<Vec<ClientEvent>>, Status>,
    ) -> Result<Next, Error> {
        let messages = match messages {
            // Frames that only acknowledge.
            Ok(Some(messages)) if messages.is_empty() => return Ok(Next::Listen),
            Ok(Some(messages)) => messages,
            Ok(None) if self.is_welcomed() => return Ok(Next::Reconnect(self.purpose.ended_early().to_owned())),
            Ok(None) => {
                return Err(connect::lost(
                    &self.shared.address,
                    self.shared.open_jobs(),
                    "the coordinator ended the session",
                ));
            }
            Err(status) if !self.is_welcomed() => return Err(self.purpose.refused(&status)),
            Err(status) if self.peer_broke_protocol() => {
                return Err(self.purpose.garbled(self.shared.open_jobs(), &status));
            }
            Err(status) if connect::is_final(&status) => {
                return Err(self.purpose.ended(self.shared.open_jobs(), &status));
            }
            Err(status) => return Ok(Next::Reconnect(reason(&status))),
        };
        let shared = self.shared;
        shared.change(|state| {
            let before = state.kept.progress();
            for message in messages {
                match state.receive(message) {
                    Ok(Some(event)) => self.handle_event(event, state),
                    Ok(None) => {}
                    Err(violation) => return Err(self.purpose.violation(&violation)),
                }
            }
            if state.link != Link::Up {
                return Err(self.purpose.not_welcomed());
            }
            if let Some(error) = state.inboxes.failure() {
                self.opening.answer(Err(error));
            }
            if state.kept.progress() > before {
                self.reconnect_deadline.note_progress();
            }
            // When its only job has ended, the session is over.
            let is_over = state.inboxes.is_closed() || (self.purpose.is_job() && state.is_done());
            Ok(if is_over { Next::End } else { Next::Listen })
        })
    }

    /// Handles events that are not about a job.
    fn handle_event(&mut self, event: Event, state: &mut SessionState) {
        match event {
            Event::Welcome(welcome) if state.link == Link::Opening => {
                self.shared.note_limits(&welcome);
                state.welcome(welcome);
                self.opening.welcome(Instant::now());
            }
            Event::Durable(_) => self.opening.succeed(),
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

    fn check_deadlines(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if self.notice.due().is_some_and(|due| due <= now) {
            let busy = self.shared.open_jobs() > 0;
            self.notice.report(busy).iter().for_each(|line| self.front.notice(line));
        }
        if self.opening.deadline.is_some_and(|deadline| deadline <= now) {
            if !self.is_welcomed() {
                let silent = format!("it did not answer within {ANSWER_TIMEOUT:?}");
                return Err(connect::unreachable(&self.shared.address, &silent));
            }
            // It is not known yet where the pool runs, but jobs can be opened.
            self.opening.succeed();
        }
        Ok(())
    }

    pub(super) fn send_program(&mut self, state: &mut SessionState) {
        let Some((connection, _)) = &mut self.connected else { return };
        let sent = self.upload.begin_if_free(connection);
        self.note_upload(sent, state);
    }

    fn continue_upload(&mut self) {
        let Some((connection, _)) = &mut self.connected else { return };
        let sent = self.upload.continue_if_wanted(connection);
        self.shared.change(|state| self.note_upload(sent, state));
    }

    fn note_upload(&self, sent: io::Result<()>, state: &mut SessionState) {
        if let Err(error) = sent {
            state.inboxes.fail(self.purpose.unreadable(&error));
        }
    }

    fn is_welcomed(&self) -> bool {
        self.shared.state().welcomed
    }

    fn peer_broke_protocol(&self) -> bool {
        self.connected.as_ref().is_some_and(|(_, incoming)| incoming.peer_broke_protocol())
    }
}

impl Opening<'_> {
    fn welcome(&mut self, now: Instant) {
        if self.deadline.is_some() && self.opener.is_some() {
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
