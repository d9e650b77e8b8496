//! A coordinator for detached jobs whose every message a test chooses, behind a real gRPC server.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
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
use farpool_proto::v1::detached_jobs_server::{DetachedJobs, DetachedJobsServer};
use farpool_proto::v1::{
    Attach, CancelDetachedReply, CancelDetachedRequest, ClientEvent, ClientFrame, ClientMessage, ClosePool,
    DescribeDetachedReply, DescribeDetachedRequest, DetachedJob, DiscardDetachedReply, DiscardDetachedRequest, Durable,
    EventFrame, Failure, FailureKind, Items, ItemsDone, ItemsFailed, JobEnded, ListDetachedReply, ListDetachedRequest,
    OpenJob, OpenPool, PoolClosed, ProgramPiece, PutProgramReply, Welcome, Window,
};
use farpool_session::Address;
use farpool_testkit::served::Served;
use futures_core::Stream;
use tokio::sync::mpsc as tokio_mpsc;
use tonic::{Request, Response, Status, Streaming};

/// Longer than anything here takes.
pub(super) const TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes that may be sent beyond what is durable.
const WINDOW: u64 = 16 << 20;

/// Sends raw frames besides the messages of the session.
type Raw = tokio_mpsc::UnboundedSender<Result<EventFrame, Status>>;

pub(super) struct Server {
    pub(super) address: Address,
    state: Arc<ServerState>,
    calls: Receiver<Call>,
    requests: Receiver<String>,
    served: Served,
}

struct ServerState {
    /// Errors for the next calls.
    refusals: Mutex<VecDeque<Status>>,
    /// The job that is described.
    described: Mutex<Option<DetachedJob>>,
    /// Sessions outlive their connections.
    keeps_sessions: AtomicBool,
    sessions: Mutex<HashMap<Bytes, Session>>,
    /// How many connections have resumed a session.
    resumed: AtomicU32,
    calls: Mutex<Sender<Call>>,
    requests: Mutex<Sender<String>>,
}

#[derive(Clone)]
struct Session {
    out: Outgoing<ClientEvent>,
    sender: Sender<Body>,
    /// The raw sender of the last connection.
    raw: Arc<Mutex<Raw>>,
    /// The end and the size of each received message of items.
    received_items: Arc<Mutex<Vec<(u64, u64)>>>,
}

/// A session of a client.
pub(super) struct Call {
    receiver: Receiver<Body>,
    session: Session,
}

impl Server {
    pub(super) fn start() -> Server {
        Self::start_at("127.0.0.1:0")
    }

    pub(super) fn start_at(at: &str) -> Server {
        let (call_sender, calls) = mpsc::channel();
        let (request_sender, requests) = mpsc::channel();
        let state = Arc::new(ServerState {
            refusals: Mutex::default(),
            described: Mutex::default(),
            keeps_sessions: AtomicBool::new(false),
            sessions: Mutex::default(),
            resumed: AtomicU32::new(0),
            calls: Mutex::new(call_sender),
            requests: Mutex::new(request_sender),
        });
        let services = http2::server(Duration::from_secs(5), http2::STREAM_WINDOW)
            .add_service(DetachedJobsServer::new(Service(Arc::clone(&state))))
            .add_service(ClientsServer::new(Service(Arc::clone(&state))));
        let served = Served::start_at(at.parse().unwrap(), services);
        let address = Address::parse(&served.address().to_string()).unwrap();
        Server { address, state, calls, requests, served }
    }

    /// Refuses the next call with this status.
    pub(super) fn refuse(&self, status: Status) {
        self.state.refusals.lock().unwrap().push_back(status);
    }

    /// Describes the job like this.
    pub(super) fn describe(&self, job: DetachedJob) {
        *self.state.described.lock().unwrap() = Some(job);
    }

    /// From now on sessions outlive their connections.
    pub(super) fn keep_sessions(&self) {
        self.state.keeps_sessions.store(true, Ordering::SeqCst);
    }

    /// Waits until this many connections have resumed a session.
    pub(super) fn wait_until_resumed(&self, times: u32) {
        wait_until(|| self.state.resumed.load(Ordering::SeqCst) == times);
    }

    /// Waits for the next session.
    pub(super) fn next_call(&self) -> Call {
        self.calls.recv_timeout(TIMEOUT).expect("somebody calls")
    }

    /// Returns the next session, if one begins soon.
    pub(super) fn try_next_call(&self) -> Option<Call> {
        self.calls.recv_timeout(Duration::from_millis(10)).ok()
    }

    /// Waits for the next request, in words.
    pub(super) fn next_request(&self) -> String {
        self.requests.recv_timeout(TIMEOUT).expect("somebody asks for something")
    }

    /// Asserts that there was no other request.
    pub(super) fn assert_no_requests(&self) {
        assert!(self.calls.try_recv().is_err());
        assert_eq!(self.requests.try_recv().ok(), None);
    }

    /// Ends at once, with all connections. Returns its address.
    pub(super) fn stop(mut self) -> String {
        self.served.stop();
        self.address.uri().authority().unwrap().to_string()
    }
}

impl Call {
    /// Waits for the client's next message.
    pub(super) fn receive(&self) -> Body {
        self.receiver.recv_timeout(TIMEOUT).expect("the client sends a message")
    }

    /// Receives the pool and the job that is being detached, and accepts the session.
    pub(super) fn receive_detach(&self) -> (OpenPool, OpenJob) {
        let Body::OpenPool(pool) = self.receive() else { panic!("the first message opens the pool") };
        self.welcome();
        match self.receive() {
            Body::OpenJob(job) => (*pool, *job),
            other => panic!("{other:?} came instead of OpenJob"),
        }
    }

    /// Receives the request to read a job, and accepts the session.
    pub(super) fn receive_attach(&self) -> Attach {
        let Body::Attach(attach) = self.receive() else { panic!("the first message asks for the job") };
        self.welcome();
        *attach
    }

    /// Accepts the session.
    pub(super) fn welcome(&self) {
        let version = Some(farpool_proto::version());
        self.send(Event::Welcome(Welcome { version, window: WINDOW, coordinator: Bytes::from_static(b"one") }));
    }

    /// Receives all items up to the end, each with its index.
    pub(super) fn receive_all_items(&self) -> Vec<(u64, Vec<u8>)> {
        let mut all = Vec::new();
        loop {
            match self.receive() {
                Body::Items(items) => all.extend(each(&items)),
                Body::EndItems(_) => return all,
                // In a session that was opened again.
                Body::PoolReopened(_) => {}
                other => panic!("{other:?} came instead of items"),
            }
        }
    }

    /// Receives the next items.
    pub(super) fn receive_items(&self) -> Items {
        match self.receive() {
            Body::Items(items) => items,
            // In a session that was opened again.
            Body::PoolReopened(_) => self.receive_items(),
            other => panic!("{other:?} came instead of items"),
        }
    }

    /// Receives the withdrawal of the job, and answers it.
    pub(super) fn receive_withdrawal(&self) {
        loop {
            match self.receive() {
                Body::Items(_) => {}
                Body::CancelJob(cancel) => break assert_eq!(cancel.job, 1),
                other => panic!("{other:?} came instead of CancelJob"),
            }
        }
        assert_eq!(self.receive(), Body::ClosePool(ClosePool { now: true }));
        self.send_ended(true);
        self.send(Event::PoolClosed(PoolClosed {}));
    }

    /// Waits until the client has ended the session.
    pub(super) fn wait_for_end(&self) {
        wait_until(|| self.session.out.is_gone());
    }

    pub(super) fn send(&self, event: Event) {
        self.session.out.push(ClientEvent { body: Some(event) });
    }

    /// Sends a raw frame, after all earlier messages.
    pub(super) fn send_frame(&self, frame: EventFrame) {
        let _ = self.session.raw.lock().unwrap().send(Ok(frame));
    }

    /// Reports items before this one as durable, and raises the window accordingly.
    pub(super) fn send_durable(&self, items: u64, complete: bool) {
        self.send(Event::Durable(Durable { job: 1, items, complete }));
        if complete {
            self.send(Event::PoolClosed(PoolClosed {}));
        } else {
            let received_items = self.session.received_items.lock().unwrap();
            let bytes: u64 = received_items.iter().filter(|(end, _)| *end <= items).map(|(_, bytes)| bytes).sum();
            self.send(Event::Window(Window { job: 1, limit: bytes + WINDOW }));
        }
    }

    /// Sends these results of the items from `first` on.
    pub(super) fn send_done(&self, first: u64, results: &[&[u8]]) {
        let (mut data, mut ends) = (Vec::new(), Vec::new());
        for result in results {
            data.extend_from_slice(result);
            ends.extend_from_slice(&(data.len() as u32).to_le_bytes());
        }
        self.send(Event::ItemsDone(ItemsDone {
            job: 1,
            first,
            data: data.into(),
            ends: ends.into(),
            failed: false,
            attempts: 0,
        }));
    }

    pub(super) fn send_failed(&self, first: u64, count: u64, message: &str) {
        let failure = Failure { kind: FailureKind::Panicked.into(), message: message.to_owned(), ..Failure::default() };
        self.send(Event::ItemsFailed(Box::new(ItemsFailed { job: 1, first, failure: Some(failure), count })));
    }

    pub(super) fn send_ended(&self, cancelled: bool) {
        self.send(Event::JobEnded(JobEnded { job: 1, cancelled }));
    }

    pub(super) fn send_description(&self, job: DetachedJob) {
        self.send(Event::DetachedJob(Box::new(job)));
    }

    /// Ends the connection with an error, after all earlier messages; a lost connection looks like `unavailable`.
    pub(super) fn fail(&self, status: Status) {
        let _ = self.session.raw.lock().unwrap().send(Err(status));
    }

    pub(super) fn cut(&self) {
        self.fail(Status::unavailable("the cable was cut"));
    }

    /// Ends the session without an error.
    pub(super) fn end(self) {
        self.session.out.finish();
    }
}

fn wait_until(is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < TIMEOUT, "it takes too long");
        thread::sleep(Duration::from_millis(1));
    }
}

fn each(items: &Items) -> Vec<(u64, Vec<u8>)> {
    let mut start = 0;
    let bytes = items.ends.chunks_exact(4).map(|end| {
        let end = u32::from_le_bytes(end.try_into().unwrap()) as usize;
        items.data[std::mem::replace(&mut start, end)..end].to_vec()
    });
    (items.first..).zip(bytes).collect()
}

impl Session {
    fn receive(&self, messages: Vec<ClientMessage>) {
        for body in messages.into_iter().filter_map(|message| message.body) {
            if let Body::Items(items) = &body {
                let end = items.first + items.ends.len() as u64 / 4;
                self.received_items.lock().unwrap().push((end, (items.data.len() + items.ends.len()) as u64));
            }
            let _ = self.sender.send(body);
        }
    }
}

#[derive(Clone)]
struct Service(Arc<ServerState>);

impl Service {
    fn answer(&self) -> Result<(), Status> {
        self.0.refusals.lock().unwrap().pop_front().map_or(Ok(()), Err)
    }

    fn note(&self, request: String) -> Result<(), Status> {
        let _ = self.0.requests.lock().unwrap().send(request);
        self.answer()
    }

    /// Begins or resumes a session.
    async fn begin(
        &self,
        stream: Streaming<ClientFrame>,
        raw: Raw,
    ) -> Result<(Session, Frames<ClientEvent>, Incoming<ClientMessage>), Status> {
        match Opening::<ClientMessage>::read(stream, 1 << 30, TIMEOUT).await? {
            Opening::New { messages, rest } => {
                let (out, frames) = outgoing(0, Arc::default());
                let (sender, receiver) = mpsc::channel();
                let session = Session { out, sender, raw: Arc::new(Mutex::new(raw)), received_items: Arc::default() };
                let secret = match &messages[0].body {
                    Some(Body::OpenPool(open)) => open.secret.clone(),
                    Some(Body::Attach(attach)) => attach.secret.clone(),
                    other => panic!("{other:?} begins no session"),
                };
                assert_eq!(secret.len(), 32);
                if self.0.keeps_sessions.load(Ordering::SeqCst) {
                    self.0.sessions.lock().unwrap().insert(secret, session.clone());
                }
                let incoming = rest.incoming(&session.out);
                session.receive(messages);
                let _ = self.0.calls.lock().unwrap().send(Call { receiver, session: session.clone() });
                Ok((session, frames, incoming))
            }
            Opening::Resume { resume, rest } => {
                let known = self.0.sessions.lock().unwrap().get(&resume.secret).cloned();
                let session = known.ok_or_else(|| Status::not_found("no such session"))?;
                *session.raw.lock().unwrap() = raw;
                let frames = session.out.reconnect(resume.received)?;
                let incoming = rest.incoming(&session.out);
                self.0.resumed.fetch_add(1, Ordering::SeqCst);
                Ok((session, frames, incoming))
            }
        }
    }

    async fn serve(self, stream: Streaming<ClientFrame>, reply: Reply<ClientEvent>, raw: Raw) {
        let (session, mut incoming) = match self.begin(stream, raw).await {
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

/// The frames for a client, and at last the error that ends them.
struct Events {
    replies: Replies<ClientEvent>,
    raw: tokio_mpsc::UnboundedReceiver<Result<EventFrame, Status>>,
}

impl Stream for Events {
    type Item = Result<EventFrame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match Pin::new(&mut self.replies).poll_next(context) {
            Poll::Ready(frame) => Poll::Ready(frame),
            // Without a raw sender, only the session ends it.
            Poll::Pending => match self.raw.poll_recv(context) {
                Poll::Ready(Some(frame)) => Poll::Ready(Some(frame)),
                Poll::Ready(None) | Poll::Pending => Poll::Pending,
            },
        }
    }
}

#[tonic::async_trait]
impl DetachedJobs for Service {
    async fn describe(
        &self,
        request: Request<DescribeDetachedRequest>,
    ) -> Result<Response<DescribeDetachedReply>, Status> {
        self.note(format!("describe {}", request.into_inner().name))?;
        let job = self.0.described.lock().unwrap().clone();
        Ok(Response::new(DescribeDetachedReply { job }))
    }

    async fn list(&self, _: Request<ListDetachedRequest>) -> Result<Response<ListDetachedReply>, Status> {
        self.note("list".to_owned())?;
        Ok(Response::new(ListDetachedReply::default()))
    }

    async fn cancel(&self, request: Request<CancelDetachedRequest>) -> Result<Response<CancelDetachedReply>, Status> {
        self.note(format!("cancel {}", request.into_inner().name))?;
        Ok(Response::new(CancelDetachedReply {}))
    }

    async fn discard(
        &self,
        request: Request<DiscardDetachedRequest>,
    ) -> Result<Response<DiscardDetachedReply>, Status> {
        self.note(format!("discard {}", request.into_inner().name))?;
        Ok(Response::new(DiscardDetachedReply {}))
    }
}

#[tonic::async_trait]
impl Clients for Service {
    type SessionStream = Events;

    async fn session(&self, request: Request<Streaming<ClientFrame>>) -> Result<Response<Events>, Status> {
        self.answer()?;
        let (reply, replies) = replies();
        let (sender, raw) = tokio_mpsc::unbounded_channel();
        tokio::spawn(self.clone().serve(request.into_inner(), reply, sender));
        Ok(Response::new(Events { replies, raw }))
    }

    async fn put_program(
        &self,
        request: Request<Streaming<ProgramPiece>>,
    ) -> Result<Response<PutProgramReply>, Status> {
        let (mut stream, mut compressed) = (request.into_inner(), Vec::new());
        while let Some(piece) = stream.message().await? {
            compressed.extend_from_slice(&piece.data);
        }
        let program = zstd::decode_all(&compressed[..])?;
        self.note(format!("program of {} bytes", program.len()))?;
        Ok(Response::new(PutProgramReply {}))
    }
}
