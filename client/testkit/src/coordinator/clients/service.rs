//! Begins and resumes sessions.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard};

use farpool_net::{Frames, Incoming, Opening, Replies, Reply, replies};
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::clients_server::Clients;
use farpool_proto::v1::{
    ClientEvent, ClientFrame, ClientMessage, DetachedJob, EventFrame, ProgramPiece, PutProgramReply,
};
use tokio::sync::Notify;
use tonic::{Request, Response, Status, Streaming};

use super::PATIENCE;
use super::peer::{ClientSession, Connection, Peer};
use crate::cuttable::Cuttable;

/// The largest message of a client.
const LIMIT: u64 = 1 << 30;

/// The services that clients call.
#[derive(Clone)]
pub struct Service(Arc<ServiceState>);

/// State that all connections share with the test.
pub(super) struct ServiceState {
    /// Is called with every session that begins.
    begun: Box<dyn Fn(Peer) + Send + Sync>,
    programs: Sender<Vec<ProgramPiece>>,
    requests: Sender<String>,
    /// Errors for the next sessions and calls.
    next_refusals: Mutex<VecDeque<Status>>,
    /// The error for every session.
    refusal: Mutex<Option<Status>>,
    known_sessions: Mutex<HashMap<Vec<u8>, Arc<ClientSession>>>,
    /// Whether sessions end with their connections.
    forgets_lost: AtomicBool,
    /// Number of connections that resumed a session.
    resumed: AtomicU32,
    /// Whether to hold the upload of the next program.
    holds_next_program: AtomicBool,
    /// Whether an upload is held.
    holds_program: AtomicBool,
    /// Refuses the held upload.
    refuse_held_program: Notify,
    /// The job that is described.
    described: Mutex<Option<DetachedJob>>,
}

impl ServiceState {
    pub(super) fn new(
        begun: Box<dyn Fn(Peer) + Send + Sync>,
        programs: Sender<Vec<ProgramPiece>>,
        requests: Sender<String>,
    ) -> ServiceState {
        ServiceState {
            begun,
            programs,
            requests,
            next_refusals: Mutex::default(),
            refusal: Mutex::default(),
            known_sessions: Mutex::default(),
            forgets_lost: AtomicBool::new(false),
            resumed: AtomicU32::new(0),
            holds_next_program: AtomicBool::new(false),
            holds_program: AtomicBool::new(false),
            refuse_held_program: Notify::new(),
            described: Mutex::default(),
        }
    }

    pub(super) fn refuse(&self, refusal: Option<Status>) {
        *lock(&self.refusal) = refusal;
    }

    pub(super) fn refuse_next(&self, status: Status) {
        lock(&self.next_refusals).push_back(status);
    }

    pub(super) fn forget(&self) {
        lock(&self.known_sessions).clear();
    }

    pub(super) fn forget_lost_sessions(&self) {
        self.forgets_lost.store(true, Ordering::SeqCst);
    }

    pub(super) fn resumed(&self) -> u32 {
        self.resumed.load(Ordering::SeqCst)
    }

    pub(super) fn hold_next_program(&self) {
        self.holds_next_program.store(true, Ordering::SeqCst);
    }

    pub(super) fn holds_program(&self) -> bool {
        self.holds_program.load(Ordering::SeqCst)
    }

    pub(super) fn refuse_held_program(&self) {
        self.refuse_held_program.notify_one();
    }

    pub(super) fn describe(&self, job: DetachedJob) {
        *lock(&self.described) = Some(job);
    }

    pub(super) fn described(&self) -> Option<DetachedJob> {
        lock(&self.described).clone()
    }

    /// Passes a call to the test, in words, and refuses it if the test wants that.
    pub(super) fn note(&self, request: String) -> Result<(), Status> {
        let _ = self.requests.send(request);
        self.take_refusal()
    }

    fn take_refusal(&self) -> Result<(), Status> {
        lock(&self.next_refusals).pop_front().map_or(Ok(()), Err)
    }

    fn begin(&self, secret: Vec<u8>, connection: Connection) -> (Arc<ClientSession>, Frames<ClientEvent>, Peer) {
        let (session, frames, peer) = ClientSession::begin(connection);
        if !self.forgets_lost.load(Ordering::SeqCst) {
            lock(&self.known_sessions).insert(secret, Arc::clone(&session));
        }
        (session, frames, peer)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a thread panicked while it held the lock")
}

impl Service {
    /// Calls `begun` with every session that a client begins, and takes what it sends besides. `begun` must not wait for the
    /// client, except for the messages that begin the session.
    pub fn answering(begun: impl Fn(Peer) + Send + Sync + 'static) -> Service {
        Service(Arc::new(ServiceState::new(Box::new(begun), mpsc::channel().0, mpsc::channel().0)))
    }

    pub(super) fn new(state: &Arc<ServiceState>) -> Service {
        Service(Arc::clone(state))
    }

    pub(super) fn state(&self) -> &ServiceState {
        &self.0
    }

    /// Begins or resumes a session.
    async fn begin(
        &self,
        stream: Cuttable<Streaming<ClientFrame>, ClientFrame>,
        connection: Connection,
    ) -> Result<(Arc<ClientSession>, Frames<ClientEvent>, Incoming<ClientMessage>), Status> {
        match Opening::<ClientMessage>::read(stream, LIMIT, PATIENCE).await? {
            Opening::New { messages, rest } => {
                let (session, frames, peer) = self.0.begin(secret_of(&messages)?, connection);
                let incoming = rest.incoming(session.out());
                session.receive(messages);
                (self.0.begun)(peer);
                Ok((session, frames, incoming))
            }
            Opening::Resume { resume, rest } => {
                let known = lock(&self.0.known_sessions).get(&resume.secret[..]).cloned();
                let session = known.ok_or_else(|| Status::not_found("no such session"))?;
                let frames = session.reconnect(resume.received, connection)?;
                let incoming = rest.incoming(session.out());
                self.0.resumed.fetch_add(1, Ordering::SeqCst);
                Ok((session, frames, incoming))
            }
        }
    }

    async fn serve(
        self,
        stream: Cuttable<Streaming<ClientFrame>, ClientFrame>,
        reply: Reply<ClientEvent>,
        connection: Connection,
    ) {
        let (session, mut incoming) = match self.begin(stream, connection).await {
            Ok((session, frames, incoming)) => {
                reply.with(frames);
                (session, incoming)
            }
            Err(status) => return reply.refuse(status),
        };
        while let Ok(Some(messages)) = incoming.next().await {
            session.receive(messages);
        }
    }
}

/// Returns the secret of the session that these messages begin.
fn secret_of(messages: &[ClientMessage]) -> Result<Vec<u8>, Status> {
    let secret = match &messages[0].body {
        Some(Body::OpenPool(open)) => &open.secret,
        Some(Body::Attach(attach)) => &attach.secret,
        other => return Err(Status::invalid_argument(format!("{other:?} begins no session"))),
    };
    match secret.len() {
        32 => Ok(secret.to_vec()),
        bytes => Err(Status::invalid_argument(format!("a secret has 32 bytes, not {bytes}"))),
    }
}

#[tonic::async_trait]
impl Clients for Service {
    type SessionStream = Cuttable<Replies<ClientEvent>, EventFrame>;

    async fn session(&self, request: Request<Streaming<ClientFrame>>) -> Result<Response<Self::SessionStream>, Status> {
        self.0.take_refusal()?;
        if let Some(refusal) = &*lock(&self.0.refusal) {
            return Err(refusal.clone());
        }
        let (stream, received) = Cuttable::new(request.into_inner());
        let (reply, replies) = replies();
        let (replies, sent) = Cuttable::new(replies);
        tokio::spawn(self.clone().serve(stream, reply, Connection { sent, received }));
        Ok(Response::new(replies))
    }

    async fn put_program(
        &self,
        request: Request<Streaming<ProgramPiece>>,
    ) -> Result<Response<PutProgramReply>, Status> {
        if self.0.holds_next_program.swap(false, Ordering::SeqCst) {
            self.0.holds_program.store(true, Ordering::SeqCst);
            self.0.refuse_held_program.notified().await;
            return Err(Status::failed_precondition("nobody asked for this program"));
        }
        let (mut stream, mut pieces) = (request.into_inner(), Vec::new());
        while let Some(piece) = stream.message().await? {
            pieces.push(piece);
        }
        let _ = self.0.programs.send(pieces);
        Ok(Response::new(PutProgramReply {}))
    }
}
