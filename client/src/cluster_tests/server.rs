//! A fake coordinator behind a real gRPC server. A test chooses every message.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use farpool_net::{Frames, Incoming, Opening, Outgoing, Replies, Reply, http2, outgoing, replies};
use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::clients_server::{Clients, ClientsServer};
use farpool_proto::v1::{
    ClientEvent, ClientFrame, ClientMessage, EventFrame, Items, ItemsDone, JobEnded, OpenPool, PoolClosed, PoolOpened,
    ProgramPiece, PutProgramReply, Welcome,
};
use farpool_session::Address;
use farpool_testkit::served::Served;
use futures_core::Stream;
use tokio::sync::{Notify, watch};
use tonic::{Request, Response, Status, Streaming};

/// Longer than anything here takes.
const SOON: Duration = Duration::from_secs(20);

/// A server that listens on a port of its own.
pub(super) struct Server {
    pub(super) address: Address,
    shared: Arc<ServerState>,
    sessions: Receiver<Peer>,
    programs: Receiver<Vec<ProgramPiece>>,
    served: Served,
}

/// State that all connections share.
#[derive(Default)]
struct ServerState {
    /// The error for every new connection.
    refusal: Mutex<Option<Status>>,
    known_sessions: Mutex<HashMap<Bytes, Session>>,
    /// Number of connections that resumed a session.
    resumed: Mutex<u32>,
    /// Whether to hold the upload of the next program.
    holds_next_program: AtomicBool,
    /// Whether an upload is held.
    holds_program: AtomicBool,
    /// Refuses the held upload.
    refuse_held_program: Notify,
}

#[derive(Clone)]
struct Session {
    out: Outgoing<ClientEvent>,
    to_test: Sender<Body>,
    closes_terminated: Arc<AtomicBool>,
    /// Cuts the current connection.
    cut: Arc<Mutex<watch::Sender<bool>>>,
}

/// The other end of a client's session.
pub(super) struct Peer {
    messages: Receiver<Body>,
    out: Outgoing<ClientEvent>,
    /// Whether it answers that a terminated pool has ended.
    closes_terminated: Arc<AtomicBool>,
    cut: Arc<Mutex<watch::Sender<bool>>>,
}

impl Server {
    pub(super) fn start() -> Server {
        Self::refusing(None)
    }

    /// Starts a server that refuses every session.
    pub(super) fn refusing(refusal: Option<Status>) -> Server {
        let (session_sender, sessions) = mpsc::channel();
        let (program_sender, programs) = mpsc::channel();
        let shared = Arc::new(ServerState { refusal: Mutex::new(refusal), ..ServerState::default() });
        let service = Service { shared: Arc::clone(&shared), sessions: session_sender, programs: program_sender };
        let mut server = http2::server(Duration::from_secs(5), http2::STREAM_WINDOW);
        let served = Served::start(server.add_service(ClientsServer::new(service)));
        let address = Address::parse(&served.address().to_string()).unwrap();
        Server { address, shared, sessions, programs, served }
    }

    /// Refuses new connections from now on, or accepts them again.
    pub(super) fn refuse(&self, refusal: Option<Status>) {
        *self.shared.refusal.lock().unwrap() = refusal;
    }

    /// Forgets all sessions, as if the coordinator had restarted.
    pub(super) fn forget(&self) {
        self.shared.known_sessions.lock().unwrap().clear();
    }

    /// Returns the number of connections that resumed a session.
    pub(super) fn resumed(&self) -> u32 {
        *self.shared.resumed.lock().unwrap()
    }

    /// Holds the upload of the next program: it never completes.
    pub(super) fn hold_next_program(&self) {
        self.shared.holds_next_program.store(true, Ordering::SeqCst);
    }

    /// Waits until a client uploads that program.
    pub(super) fn wait_for_held_program(&self) {
        wait_until(|| self.shared.holds_program.load(Ordering::SeqCst));
    }

    /// Answers that no agent has requested that program.
    pub(super) fn refuse_held_program(&self) {
        self.shared.refuse_held_program.notify_one();
    }

    /// Returns the next session that a client begins.
    pub(super) fn session(&self) -> Peer {
        self.sessions.recv_timeout(SOON).expect("a client connects")
    }

    /// Returns the next program that a client sends.
    pub(super) fn program(&self) -> Vec<ProgramPiece> {
        self.programs.recv_timeout(SOON).expect("a client sends its program")
    }

    /// Stops at once and ends all connections.
    pub(super) fn stop(&mut self) {
        self.served.stop();
    }
}

impl Peer {
    /// Accepts the pool, with this many slots.
    pub(super) fn welcome(&self, slots: u32) -> OpenPool {
        self.welcome_by("one", 1 << 20, slots)
    }

    /// The same, with this coordinator's name and this window for each job.
    pub(super) fn welcome_by(&self, coordinator: &'static str, window: u64, slots: u32) -> OpenPool {
        let Body::OpenPool(open) = self.receive() else { panic!("the first message opens the pool") };
        let version = Some(farpool_proto::version());
        self.send(Event::Welcome(Welcome { version, window, coordinator: coordinator.as_bytes().into() }));
        self.send(Event::PoolOpened(PoolOpened { slots }));
        *open
    }

    /// Cuts the connection. The session stays.
    pub(super) fn cut(&self) {
        let _ = self.cut.lock().unwrap().send(true);
    }

    /// Receives what a client resends when it reopens its pool, up to `PoolReopened`.
    pub(super) fn receive_resent(&self) -> Vec<Body> {
        let mut received = Vec::new();
        loop {
            match self.receive() {
                Body::PoolReopened(_) => return received,
                body => received.push(body),
            }
        }
    }

    /// Receives the client's next message.
    pub(super) fn receive(&self) -> Body {
        self.messages.recv_timeout(SOON).expect("the client sends a message")
    }

    /// Waits until the client's connection has ended.
    pub(super) fn wait_for_disconnect(&self) {
        wait_until(|| self.out.is_gone());
    }

    /// Waits until the client has acknowledged everything that was sent.
    pub(super) fn wait_until_acknowledged(&self) {
        wait_until(|| self.out.acknowledged() == self.out.pushed());
    }

    /// Returns whether the client sends nothing for a moment.
    pub(super) fn is_silent(&self) -> bool {
        self.messages.recv_timeout(Duration::from_millis(100)).is_err()
    }

    /// Receives a job with all its input; returns its number and how many items it has.
    pub(super) fn receive_job(&self) -> (u64, u64) {
        let (mut job, mut items) = (0, 0);
        loop {
            match self.receive() {
                Body::OpenJob(open) => job = open.job,
                Body::Items(more) => items += more.ends.len() as u64 / 4,
                Body::EndItems(_) => return (job, items),
                other => panic!("{other:?} has no place in a job's input"),
            }
        }
    }

    /// From now on, a terminated pool ends only when the test sends that.
    pub(super) fn stop_closing_terminated(&self) {
        self.closes_terminated.store(false, Ordering::SeqCst);
    }

    pub(super) fn send(&self, event: Event) {
        self.out.push(ClientEvent { body: Some(event) });
    }

    /// Sends the result of one item.
    pub(super) fn send_done(&self, job: u64, item: u64, bytes: &[u8]) {
        self.send(done(job, item, bytes));
    }

    pub(super) fn send_job_ended(&self, job: u64, cancelled: bool) {
        self.send(Event::JobEnded(JobEnded { job, cancelled }));
    }

    /// Sends the result of a job's only item and the job's end, in one frame.
    pub(super) fn send_outcome(&self, job: u64, bytes: &[u8]) {
        let both = [done(job, 0, bytes), Event::JobEnded(JobEnded { job, cancelled: false })];
        self.out.extend(both.map(|event| ClientEvent { body: Some(event) }));
    }

    pub(super) fn send_closed(&self) {
        self.send(Event::PoolClosed(PoolClosed {}));
        self.out.finish();
    }

    /// Ends the session with an error.
    pub(super) fn refuse(&self, status: Status) {
        self.out.fail(status);
    }

    /// Returns how many bytes wait here because the client has not read them.
    pub(super) fn unread(&self) -> usize {
        self.out.waiting()
    }
}

#[derive(Clone)]
struct Service {
    shared: Arc<ServerState>,
    sessions: Sender<Peer>,
    programs: Sender<Vec<ProgramPiece>>,
}

impl Service {
    /// Begins or resumes a session.
    async fn begin(
        &self,
        stream: Streaming<ClientFrame>,
    ) -> Result<(Session, Frames<ClientEvent>, Incoming<ClientMessage>), Status> {
        match Opening::<ClientMessage>::read(stream, 1 << 30, SOON).await? {
            Opening::New { messages, rest } => {
                let (out, frames) = outgoing(0, Default::default());
                let (to_test, from_client) = mpsc::channel();
                let closes_terminated = Arc::new(AtomicBool::new(true));
                let cut = Arc::new(Mutex::new(watch::channel(false).0));
                let peer = Peer {
                    messages: from_client,
                    out: out.clone(),
                    closes_terminated: Arc::clone(&closes_terminated),
                    cut: Arc::clone(&cut),
                };
                let session = Session { out, to_test, closes_terminated, cut };
                if let Some(Body::OpenPool(open)) = &messages[0].body {
                    self.shared.known_sessions.lock().unwrap().insert(open.secret.clone(), session.clone());
                }
                let incoming = rest.incoming(&session.out);
                session.receive(messages);
                let _ = self.sessions.send(peer);
                Ok((session, frames, incoming))
            }
            Opening::Resume { resume, rest } => {
                let session = self.shared.known_sessions.lock().unwrap().get(&resume.secret).cloned();
                let session = session.ok_or_else(|| Status::not_found("no such session"))?;
                let frames = session.out.reconnect(resume.received)?;
                let incoming = rest.incoming(&session.out);
                *self.shared.resumed.lock().unwrap() += 1;
                Ok((session, frames, incoming))
            }
        }
    }

    async fn serve(self, stream: Streaming<ClientFrame>, reply: Reply<ClientEvent>, cut: watch::Sender<bool>) {
        let (session, mut incoming) = match self.begin(stream).await {
            Ok((session, frames, incoming)) => {
                reply.with(frames);
                (session, incoming)
            }
            Err(status) => return reply.refuse(status),
        };
        let mut until = cut.subscribe();
        *session.cut.lock().unwrap() = cut;
        loop {
            tokio::select! {
                messages = incoming.next() => match messages {
                    Ok(Some(messages)) => session.receive(messages),
                    Ok(None) | Err(_) => return,
                },
                _ = until.wait_for(|cut| *cut) => return,
            }
        }
    }
}

impl Session {
    fn receive(&self, messages: Vec<ClientMessage>) {
        for body in messages.into_iter().filter_map(|message| message.body) {
            let terminated = matches!(&body, Body::ClosePool(close) if close.now);
            if terminated && self.closes_terminated.load(Ordering::SeqCst) {
                self.out.push(ClientEvent { body: Some(Event::PoolClosed(PoolClosed {})) });
            }
            let _ = self.to_test.send(body);
        }
    }
}

/// The messages to a client, until its connection is cut.
pub(super) struct Events {
    replies: Replies<ClientEvent>,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Stream for Events {
    type Item = Result<EventFrame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.cut.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err(Status::unavailable("the cable was cut")))),
            Poll::Pending => Pin::new(&mut self.replies).poll_next(context),
        }
    }
}

#[tonic::async_trait]
impl Clients for Service {
    type SessionStream = Events;

    async fn session(&self, request: Request<Streaming<ClientFrame>>) -> Result<Response<Events>, Status> {
        if let Some(refusal) = &*self.shared.refusal.lock().unwrap() {
            return Err(refusal.clone());
        }
        let (reply, replies) = replies();
        let (cut, mut until) = watch::channel(false);
        tokio::spawn(self.clone().serve(request.into_inner(), reply, cut));
        let cut = Box::pin(async move {
            // It can no longer be cut; it ends by itself.
            if until.wait_for(|cut| *cut).await.is_err() {
                std::future::pending().await
            }
        });
        Ok(Response::new(Events { replies, cut }))
    }

    async fn put_program(
        &self,
        request: Request<Streaming<ProgramPiece>>,
    ) -> Result<Response<PutProgramReply>, Status> {
        if self.shared.holds_next_program.swap(false, Ordering::SeqCst) {
            self.shared.holds_program.store(true, Ordering::SeqCst);
            self.shared.refuse_held_program.notified().await;
            return Err(Status::failed_precondition("nobody asked for this program"));
        }
        let (mut stream, mut pieces) = (request.into_inner(), Vec::new());
        while let Some(piece) = stream.message().await? {
            pieces.push(piece);
        }
        let _ = self.programs.send(pieces);
        Ok(Response::new(PutProgramReply {}))
    }
}

fn done(job: u64, item: u64, bytes: &[u8]) -> Event {
    let ends = (bytes.len() as u32).to_le_bytes().to_vec().into();
    Event::ItemsDone(ItemsDone { job, first: item, data: bytes.to_vec().into(), ends, failed: false, attempts: 0 })
}

/// Returns the items in a message: the index of the first, and the bytes of each.
pub(super) fn items_in(items: &Items) -> (u64, Vec<&[u8]>) {
    let mut start = 0;
    let each = items.ends.chunks_exact(4).map(|end| {
        let end = u32::from_le_bytes(end.try_into().unwrap()) as usize;
        &items.data[std::mem::replace(&mut start, end)..end]
    });
    (items.first, each.collect())
}

fn wait_until(is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < SOON, "it takes too long");
        thread::sleep(Duration::from_millis(1));
    }
}
