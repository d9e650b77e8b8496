//! The session's thread: what it hears from the coordinator, and what it does about it.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use farpool_net::{Frames, Incoming};
use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::clients_client::ClientsClient;
use farpool_proto::v1::{ClientEvent, ClientMessage};
use tokio::runtime;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::Status;
use tonic::transport::Channel;

use super::notice::Notice;
use super::shared::{Shared, State};
use super::{connect, output, program};
use crate::error::{Error, ErrorKind};

/// How long the coordinator may take to accept the pool, and after that to say where it runs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// What a message has beside items or results: those of one message are those of one collection.
const MESSAGE_ROOM: u64 = 64 << 20;

/// Whoever opens the pool: it waits for the window, or for the reason why there is no pool.
type Opener = SyncSender<Result<u64, Error>>;

/// Holds the whole conversation, from connecting to the end of the session.
pub(super) fn hold(shared: &Arc<Shared>, frames: Frames<ClientMessage>, payload_limit: u64, opener: Opener) {
    let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = Error::new(ErrorKind::Unavailable, format!("starting the pool's thread: {error}"));
            let _ = opener.send(Err(error.clone()));
            return shared.end(Some(error));
        }
    };
    let mut opener = Some(opener);
    let ended = runtime.block_on(converse(shared, frames, payload_limit, &mut opener));
    // Not waiting for whoever reads a file or looks up a name.
    runtime.shutdown_background();
    let error = ended.err();
    shared.end(error.clone());
    if let (Some(opener), Some(error)) = (opener, error) {
        let _ = opener.send(Err(error));
    }
}

async fn converse(
    shared: &Arc<Shared>,
    frames: Frames<ClientMessage>,
    payload_limit: u64,
    opener: &mut Option<Opener>,
) -> Result<(), Error> {
    let address = &shared.address;
    let mut clients = connect::connect(address).await?;
    let answered = timeout(ANSWER_TIMEOUT, clients.session(frames)).await.map_err(|_| silent(shared))?;
    let stream = answered.map_err(|status| connect::not_opened(address, &status))?.into_inner();
    let incoming = shared.incoming(stream, payload_limit.saturating_add(MESSAGE_ROOM));
    let deadline = Some(Instant::now() + ANSWER_TIMEOUT);
    let mut conversation = Conversation {
        shared,
        clients,
        incoming,
        opening: Opening { opener, window: None, deadline },
        notice: Notice::default(),
        upload: None,
    };
    conversation.run().await
}

fn silent(shared: &Shared) -> Error {
    connect::unreachable(&shared.address, &format!("it did not answer within {ANSWER_TIMEOUT:?}"))
}

struct Conversation<'a> {
    shared: &'a Arc<Shared>,
    clients: ClientsClient<Channel>,
    incoming: Incoming<ClientEvent>,
    opening: Opening<'a>,
    notice: Notice,
    /// The program on its way to the coordinator.
    upload: Option<JoinHandle<()>>,
}

struct Opening<'a> {
    opener: &'a mut Option<Opener>,
    /// What each job may send; none: the coordinator has not accepted the pool.
    window: Option<u64>,
    deadline: Option<Instant>,
}

/// What the session's thread goes on with.
enum Heard {
    Messages(Result<Option<Vec<ClientEvent>>, Status>),
    Bell,
    Time,
    Uploaded,
}

impl Conversation<'_> {
    async fn run(&mut self) -> Result<(), Error> {
        loop {
            match self.listen().await {
                Heard::Messages(messages) => {
                    if self.hear(messages)? {
                        return Ok(());
                    }
                }
                Heard::Bell if self.shared.is_abandoned() => return Ok(()),
                Heard::Bell => self.notice.begin_job(Instant::now()),
                Heard::Time => self.look_at_the_time()?,
                Heard::Uploaded => self.upload = None,
            }
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
            () = end_of(upload) => Heard::Uploaded,
        }
    }

    /// Takes in a frame; returns whether it was the last one.
    fn hear(&mut self, messages: Result<Option<Vec<ClientEvent>>, Status>) -> Result<bool, Error> {
        let messages = match messages {
            Ok(Some(messages)) => messages,
            Ok(None) => return Err(self.lost("it ended the session")),
            Err(status) if self.opening.window.is_none() => {
                return Err(connect::not_opened(&self.shared.address, &status));
            }
            Err(status) => return Err(self.lost(&connect::told(&status))),
        };
        let shared = self.shared;
        shared.change(|state| {
            for message in messages {
                if let Some(event) = state.inboxes.deliver(message) {
                    self.take_in(event, state);
                }
            }
            if self.opening.window.is_none() {
                return Err(Error::protocol(format_args!("{} did not begin with its welcome", shared.address)));
            }
            if let Some(error) = state.inboxes.failure() {
                self.opening.answer(Err(error));
            }
            Ok(state.inboxes.is_closed())
        })
    }

    /// What is not about a job.
    fn take_in(&mut self, event: Event, state: &mut State) {
        match event {
            Event::Welcome(welcome) => {
                self.opening.window = Some(welcome.window);
                self.opening.deadline = Some(Instant::now() + ANSWER_TIMEOUT);
            }
            Event::PoolOpened(opened) => {
                self.shared.note_slots(state, opened.slots);
                self.notice.go_on(opened.slots).iter().for_each(|line| output::say(line));
                self.opening.succeed();
            }
            Event::Waiting(waiting) => {
                let reason = format!("{} (the coordinator is {})", waiting.reason, self.shared.address);
                state.waiting = Some(reason.clone());
                self.notice.wait(reason, state.inboxes.iter().len() > 0, Instant::now());
                self.opening.succeed();
            }
            Event::ProgramWanted(wanted) => self.send_program(&wanted.digest, state),
            Event::Output(printed) => output::print(&printed),
            // Delivered to inboxes, or nothing that this version knows.
            _ => {}
        }
    }

    fn look_at_the_time(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if self.notice.due().is_some_and(|due| due <= now) {
            let busy = self.shared.open_jobs() > 0;
            self.notice.ring(busy).iter().for_each(|line| output::say(line));
        }
        if self.opening.deadline.is_some_and(|deadline| deadline <= now) {
            if self.opening.window.is_none() {
                return Err(silent(self.shared));
            }
            // Where it runs will be known some time; until then jobs can be opened.
            self.opening.succeed();
        }
        Ok(())
    }

    fn send_program(&mut self, wanted: &[u8], state: &mut State) {
        let is_ours = program::digest().is_ok_and(|digest| digest.as_bytes() == wanted);
        if !is_ours || self.upload.is_some() {
            return;
        }
        match program::upload() {
            Err(error) => {
                let message = format!("reading this program for {}: {error}", self.shared.address);
                state.inboxes.fail(Error::new(ErrorKind::Unavailable, message));
            }
            Ok(pieces) => {
                let mut clients = self.clients.clone();
                // Another client may have sent it first. If nobody can, the coordinator fails the pool and says why.
                self.upload = Some(tokio::spawn(async move { drop(clients.put_program(pieces).await) }));
            }
        }
    }

    fn lost(&self, what: &str) -> Error {
        connect::lost(&self.shared.address, self.shared.open_jobs(), what)
    }
}

impl Opening<'_> {
    fn succeed(&mut self) {
        if let Some(window) = self.window {
            self.answer(Ok(window));
        }
    }

    /// Only the first answer counts.
    fn answer(&mut self, answer: Result<u64, Error>) {
        self.deadline = None;
        if let Some(opener) = self.opener.take() {
            let _ = opener.send(answer);
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn end_of(upload: &mut Option<JoinHandle<()>>) {
    match upload {
        // However it has ended.
        Some(running) => drop(running.await),
        None => std::future::pending().await,
    }
}
