//! A coordinator whose every word a test chooses, behind a real gRPC server.

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
    hall: Arc<Hall>,
    sessions: Receiver<Peer>,
    programs: Receiver<Vec<ProgramPiece>>,
    served: Served,
}

/// What its connections have in common.
#[derive(Default)]
struct Hall {
    /// What everybody is told who comes.
    refusal: Mutex<Option<Status>>,
    known: Mutex<HashMap<Bytes, Session>>,
    /// Connections that went on with a session.
    resumed: Mutex<u32>,
    /// The next program is not taken, and that it has begun to come.
    swallows: AtomicBool,
    swallowed: AtomicBool,
    /// Whoever sends that program is told that nobody asked for it.
    unasked: Notify,
}

#[derive(Clone)]
struct Session {
    out: Outgoing<ClientEvent>,
    tell: Sender<Body>,
    lets_go: Arc<AtomicBool>,
    /// Cuts the connection that is there.
    cut: Arc<Mutex<watch::Sender<bool>>>,
}

/// The other end of a client's session.
pub(super) struct Peer {
    heard: Receiver<Body>,
    out: Outgoing<ClientEvent>,
    /// It says that a pool that is terminated has ended.
    lets_go: Arc<AtomicBool>,
    cut: Arc<Mutex<watch::Sender<bool>>>,
}

impl Server {
    pub(super) fn start() -> Server {
        Self::refusing(None)
    }

    /// One that refuses every session.
    pub(super) fn refusing(refusal: Option<Status>) -> Server {
        let (tell_session, sessions) = mpsc::channel();
        let (tell_program, programs) = mpsc::channel();
        let hall = Arc::new(Hall { refusal: Mutex::new(refusal), ..Hall::default() });
        let service = Service { hall: Arc::clone(&hall), sessions: tell_session, programs: tell_program };
        let mut server = http2::server(Duration::from_secs(5), http2::STREAM_WINDOW);
        let served = Served::start(server.add_service(ClientsServer::new(service)));
        let address = Address::parse(&served.address().to_string()).unwrap();
        Server { address, hall, sessions, programs, served }
    }

    /// Everybody who comes from now on is told this, if it is something.
    pub(super) fn refuse(&self, refusal: Option<Status>) {
        *self.hall.refusal.lock().unwrap() = refusal;
    }

    /// It knows of no session any more, as if it had been started anew.
    pub(super) fn forget(&self) {
        self.hall.known.lock().unwrap().clear();
    }

    /// Connections that went on with a session.
    pub(super) fn resumed(&self) -> u32 {
        *self.hall.resumed.lock().unwrap()
    }

    /// The next program that a client sends is never taken.
    pub(super) fn swallow_a_program(&self) {
        self.hall.swallows.store(true, Ordering::SeqCst);
    }

    /// Waits for it.
    pub(super) fn swallowed(&self) {
        wait_until(|| self.hall.swallowed.load(Ordering::SeqCst));
    }

    /// Says that nobody has asked for it.
    pub(super) fn refuse_the_swallowed(&self) {
        self.hall.unasked.notify_one();
    }

    /// The next session that a client begins.
    pub(super) fn session(&self) -> Peer {
        self.sessions.recv_timeout(SOON).expect("a client connects")
    }

    /// The next program that a client sends.
    pub(super) fn program(&self) -> Vec<ProgramPiece> {
        self.programs.recv_timeout(SOON).expect("a client sends its program")
    }

    /// Ends at once, and all connections with it.
    pub(super) fn stop(&mut self) {
        self.served.stop();
    }
}

impl Peer {
    /// Accepts the pool, with so many slots.
    pub(super) fn welcome(&self, slots: u32) -> OpenPool {
        self.welcome_by("one", 1 << 20, slots)
    }

    /// As the coordinator of this name, with so much room for each job.
    pub(super) fn welcome_by(&self, coordinator: &'static str, window: u64, slots: u32) -> OpenPool {
        let Body::OpenPool(open) = self.hear() else { panic!("the first message opens the pool") };
        let version = Some(farpool_proto::version());
        self.say(Event::Welcome(Welcome { version, window, coordinator: coordinator.as_bytes().into() }));
        self.say(Event::PoolOpened(PoolOpened { slots }));
        *open
    }

    /// Cuts the connection. The session stays.
    pub(super) fn cut(&self) {
        let _ = self.cut.lock().unwrap().send(true);
    }

    /// What a client says that opens its pool again: up to that this is all.
    pub(super) fn hear_all_again(&self) -> Vec<Body> {
        let mut said = Vec::new();
        loop {
            match self.hear() {
                Body::PoolReopened(_) => return said,
                body => said.push(body),
            }
        }
    }

    /// The next message of the client.
    pub(super) fn hear(&self) -> Body {
        self.heard.recv_timeout(SOON).expect("the client says something")
    }

    /// Waits until the client's connection has ended.
    pub(super) fn hear_the_end(&self) {
        wait_until(|| self.out.is_gone());
    }

    /// Waits until the client has said that it has all that it was told.
    pub(super) fn all_is_acknowledged(&self) {
        wait_until(|| self.out.acknowledged() == self.out.pushed());
    }

    /// Whether the client says nothing for a moment.
    pub(super) fn is_silent(&self) -> bool {
        self.heard.recv_timeout(Duration::from_millis(100)).is_err()
    }

    /// Waits for a job with all its input; returns its number and how many items it has.
    pub(super) fn hear_job(&self) -> (u64, u64) {
        let (mut job, mut items) = (0, 0);
        loop {
            match self.hear() {
                Body::OpenJob(open) => job = open.job,
                Body::Items(more) => items += more.ends.len() as u64 / 4,
                Body::EndItems(_) => return (job, items),
                other => panic!("{other:?} has no place in a job's input"),
            }
        }
    }

    /// From now on nothing at all is said that the test does not say.
    pub(super) fn hold_on(&self) {
        self.lets_go.store(false, Ordering::SeqCst);
    }

    pub(super) fn say(&self, event: Event) {
        self.out.push(ClientEvent { body: Some(event) });
    }

    /// The result of one item, which is `bytes`.
    pub(super) fn say_done(&self, job: u64, item: u64, bytes: &[u8]) {
        self.say(done(job, item, bytes));
    }

    pub(super) fn say_ended(&self, job: u64, cancelled: bool) {
        self.say(Event::JobEnded(JobEnded { job, cancelled }));
    }

    /// The result of a job's only item, which is `bytes`, and the job's end, in one frame.
    pub(super) fn say_outcome(&self, job: u64, bytes: &[u8]) {
        let both = [done(job, 0, bytes), Event::JobEnded(JobEnded { job, cancelled: false })];
        self.out.extend(both.map(|event| ClientEvent { body: Some(event) }));
    }

    pub(super) fn say_closed(&self) {
        self.say(Event::PoolClosed(PoolClosed {}));
        self.out.finish();
    }

    /// Ends the session with an error.
    pub(super) fn refuse(&self, status: Status) {
        self.out.fail(status);
    }

    /// Bytes that the client has not read and that wait here.
    pub(super) fn unread(&self) -> usize {
        self.out.waiting()
    }
}

#[derive(Clone)]
struct Service {
    hall: Arc<Hall>,
    sessions: Sender<Peer>,
    programs: Sender<Vec<ProgramPiece>>,
}

impl Service {
    /// Begins a session, or goes on with one.
    async fn begin(
        &self,
        stream: Streaming<ClientFrame>,
    ) -> Result<(Session, Frames<ClientEvent>, Incoming<ClientMessage>), Status> {
        match Opening::<ClientMessage>::read(stream, 1 << 30, SOON).await? {
            Opening::New { messages, rest } => {
                let (out, frames) = outgoing(0, Default::default());
                let (tell, heard) = mpsc::channel();
                let lets_go = Arc::new(AtomicBool::new(true));
                let cut = Arc::new(Mutex::new(watch::channel(false).0));
                let peer = Peer { heard, out: out.clone(), lets_go: Arc::clone(&lets_go), cut: Arc::clone(&cut) };
                let session = Session { out, tell, lets_go, cut };
                if let Some(Body::OpenPool(open)) = &messages[0].body {
                    self.hall.known.lock().unwrap().insert(open.secret.clone(), session.clone());
                }
                let incoming = rest.incoming(&session.out);
                session.take_in(messages);
                let _ = self.sessions.send(peer);
                Ok((session, frames, incoming))
            }
            Opening::Resume { resume, rest } => {
                let known = self.hall.known.lock().unwrap().get(&resume.secret).cloned();
                let session = known.ok_or_else(|| Status::not_found("no such session"))?;
                let frames = session.out.reconnect(resume.received)?;
                let incoming = rest.incoming(&session.out);
                *self.hall.resumed.lock().unwrap() += 1;
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
                    Ok(Some(messages)) => session.take_in(messages),
                    Ok(None) | Err(_) => return,
                },
                _ = until.wait_for(|cut| *cut) => return,
            }
        }
    }
}

impl Session {
    fn take_in(&self, messages: Vec<ClientMessage>) {
        for body in messages.into_iter().filter_map(|message| message.body) {
            let terminated = matches!(&body, Body::ClosePool(close) if close.now);
            if terminated && self.lets_go.load(Ordering::SeqCst) {
                self.out.push(ClientEvent { body: Some(Event::PoolClosed(PoolClosed {})) });
            }
            let _ = self.tell.send(body);
        }
    }
}

/// What a client is told, until its connection is cut.
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
        if let Some(refusal) = &*self.hall.refusal.lock().unwrap() {
            return Err(refusal.clone());
        }
        let (reply, replies) = replies();
        let (cut, mut until) = watch::channel(false);
        tokio::spawn(self.clone().serve(request.into_inner(), reply, cut));
        let cut = Box::pin(async move {
            // Without anybody who could cut it, it ends by itself.
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
        if self.hall.swallows.swap(false, Ordering::SeqCst) {
            self.hall.swallowed.store(true, Ordering::SeqCst);
            self.hall.unasked.notified().await;
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

/// The items in a message: their first index, and each one's bytes.
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
