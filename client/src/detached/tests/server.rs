//! A keeper of detached jobs whose every word a test chooses, behind a real gRPC server.

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
pub(super) const SOON: Duration = Duration::from_secs(20);

/// So much may be sent beyond what is durable.
const WINDOW: u64 = 16 << 20;

/// Says something beside what the session sends.
type Raw = tokio_mpsc::UnboundedSender<Result<EventFrame, Status>>;

pub(super) struct Server {
    pub(super) address: Address,
    hall: Arc<Hall>,
    calls: Receiver<Call>,
    asked: Receiver<String>,
    served: Served,
}

struct Hall {
    /// What the next calls are told.
    refusals: Mutex<VecDeque<Status>>,
    /// What job is described to those who ask.
    described: Mutex<Option<DetachedJob>>,
    /// Sessions are known when their connections are lost.
    remembers: AtomicBool,
    known: Mutex<HashMap<Bytes, Session>>,
    /// Connections that went on with a session.
    resumed: AtomicU32,
    calls: Mutex<Sender<Call>>,
    asked: Mutex<Sender<String>>,
}

#[derive(Clone)]
struct Session {
    out: Outgoing<ClientEvent>,
    tell: Sender<Body>,
    /// That of the last connection.
    raw: Arc<Mutex<Raw>>,
    /// The end of each message of items that came, and its size.
    came: Arc<Mutex<Vec<(u64, u64)>>>,
}

/// A session of a client.
pub(super) struct Call {
    heard: Receiver<Body>,
    session: Session,
}

impl Server {
    pub(super) fn start() -> Server {
        Self::start_at("127.0.0.1:0")
    }

    pub(super) fn start_at(at: &str) -> Server {
        let (tell_call, calls) = mpsc::channel();
        let (tell_asked, asked) = mpsc::channel();
        let hall = Arc::new(Hall {
            refusals: Mutex::default(),
            described: Mutex::default(),
            remembers: AtomicBool::new(false),
            known: Mutex::default(),
            resumed: AtomicU32::new(0),
            calls: Mutex::new(tell_call),
            asked: Mutex::new(tell_asked),
        });
        let services = http2::server(Duration::from_secs(5), http2::STREAM_WINDOW)
            .add_service(DetachedJobsServer::new(Service(Arc::clone(&hall))))
            .add_service(ClientsServer::new(Service(Arc::clone(&hall))));
        let served = Served::start_at(at.parse().unwrap(), services);
        let address = Address::parse(&served.address().to_string()).unwrap();
        Server { address, hall, calls, asked, served }
    }

    /// The next call is told this.
    pub(super) fn refuse(&self, status: Status) {
        self.hall.refusals.lock().unwrap().push_back(status);
    }

    /// Who asks is told this of the job.
    pub(super) fn describe(&self, job: DetachedJob) {
        *self.hall.described.lock().unwrap() = Some(job);
    }

    /// From now on sessions are known when their connections are lost.
    pub(super) fn remember(&self) {
        self.hall.remembers.store(true, Ordering::SeqCst);
    }

    /// Waits until so many connections have gone on with a session.
    pub(super) fn wait_until_resumed(&self, times: u32) {
        wait_until(|| self.hall.resumed.load(Ordering::SeqCst) == times);
    }

    /// The next session.
    pub(super) fn call(&self) -> Call {
        self.calls.recv_timeout(SOON).expect("somebody calls")
    }

    /// A session, if there is one.
    pub(super) fn try_call(&self) -> Option<Call> {
        self.calls.recv_timeout(Duration::from_millis(10)).ok()
    }

    /// The next thing that is asked for, in words.
    pub(super) fn asked(&self) -> String {
        self.asked.recv_timeout(SOON).expect("somebody asks for something")
    }

    /// That nothing else was asked for.
    pub(super) fn assert_silent(&self) {
        assert!(self.calls.try_recv().is_err());
        assert_eq!(self.asked.try_recv().ok(), None);
    }

    /// Ends at once, and all connections with it. Returns where it listened.
    pub(super) fn stop(mut self) -> String {
        self.served.stop();
        self.address.uri().authority().unwrap().to_string()
    }
}

impl Call {
    /// The next message of the client.
    pub(super) fn hear(&self) -> Body {
        self.heard.recv_timeout(SOON).expect("the client says something")
    }

    /// What the job is that is being detached, and the pool that it is opened in, which is welcomed.
    pub(super) fn hear_detach(&self) -> (OpenPool, OpenJob) {
        let Body::OpenPool(pool) = self.hear() else { panic!("the first message opens the pool") };
        self.welcome();
        match self.hear() {
            Body::OpenJob(job) => (*pool, *job),
            other => panic!("{other:?} came instead of OpenJob"),
        }
    }

    /// What is to be read, which is welcomed.
    pub(super) fn hear_attach(&self) -> Attach {
        let Body::Attach(attach) = self.hear() else { panic!("the first message asks for the job") };
        self.welcome();
        *attach
    }

    /// Accepts the session.
    pub(super) fn welcome(&self) {
        let version = Some(farpool_proto::version());
        self.say(Event::Welcome(Welcome { version, window: WINDOW, coordinator: Bytes::from_static(b"one") }));
    }

    /// All items up to the end, each with its index.
    pub(super) fn hear_all(&self) -> Vec<(u64, Vec<u8>)> {
        let mut all = Vec::new();
        loop {
            match self.hear() {
                Body::Items(items) => all.extend(each(&items)),
                Body::EndItems(_) => return all,
                // In a session that was opened again.
                Body::PoolReopened(_) => {}
                other => panic!("{other:?} came instead of items"),
            }
        }
    }

    /// The next items.
    pub(super) fn hear_items(&self) -> Items {
        match self.hear() {
            Body::Items(items) => items,
            // In a session that was opened again.
            Body::PoolReopened(_) => self.hear_items(),
            other => panic!("{other:?} came instead of items"),
        }
    }

    /// That the job is not wanted any more, which is answered.
    pub(super) fn hear_withdrawal(&self) {
        loop {
            match self.hear() {
                Body::Items(_) => {}
                Body::CancelJob(cancel) => break assert_eq!(cancel.job, 1),
                other => panic!("{other:?} came instead of CancelJob"),
            }
        }
        assert_eq!(self.hear(), Body::ClosePool(ClosePool { now: true }));
        self.say_ended(true);
        self.say(Event::PoolClosed(PoolClosed {}));
    }

    /// Waits until the client has ended the session.
    pub(super) fn hear_the_end(&self) {
        wait_until(|| self.session.out.is_gone());
    }

    pub(super) fn say(&self, event: Event) {
        self.session.out.push(ClientEvent { body: Some(event) });
    }

    /// Sends a frame as it is, behind what was said.
    pub(super) fn say_frame(&self, frame: EventFrame) {
        let _ = self.session.raw.lock().unwrap().send(Ok(frame));
    }

    /// Items before this one are durable, and others may come for that.
    pub(super) fn say_durable(&self, items: u64, complete: bool) {
        self.say(Event::Durable(Durable { job: 1, items, complete }));
        if complete {
            self.say(Event::PoolClosed(PoolClosed {}));
        } else {
            let came = self.session.came.lock().unwrap();
            let bytes: u64 = came.iter().filter(|(end, _)| *end <= items).map(|(_, bytes)| bytes).sum();
            self.say(Event::Window(Window { job: 1, limit: bytes + WINDOW }));
        }
    }

    /// Items from `first` on have had these results.
    pub(super) fn say_done(&self, first: u64, results: &[&[u8]]) {
        let (mut data, mut ends) = (Vec::new(), Vec::new());
        for result in results {
            data.extend_from_slice(result);
            ends.extend_from_slice(&(data.len() as u32).to_le_bytes());
        }
        self.say(Event::ItemsDone(ItemsDone {
            job: 1,
            first,
            data: data.into(),
            ends: ends.into(),
            failed: false,
            attempts: 0,
        }));
    }

    pub(super) fn say_failed(&self, first: u64, count: u64, message: &str) {
        let failure = Failure { kind: FailureKind::Panicked.into(), message: message.to_owned(), ..Failure::default() };
        self.say(Event::ItemsFailed(Box::new(ItemsFailed { job: 1, first, failure: Some(failure), count })));
    }

    pub(super) fn say_ended(&self, cancelled: bool) {
        self.say(Event::JobEnded(JobEnded { job: 1, cancelled }));
    }

    pub(super) fn say_job(&self, job: DetachedJob) {
        self.say(Event::DetachedJob(Box::new(job)));
    }

    /// Ends the connection with an error, behind what was said: `unavailable` is what a connection that is lost looks like.
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
        assert!(start.elapsed() < SOON, "it takes too long");
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
    fn take_in(&self, messages: Vec<ClientMessage>) {
        for body in messages.into_iter().filter_map(|message| message.body) {
            if let Body::Items(items) = &body {
                let end = items.first + items.ends.len() as u64 / 4;
                self.came.lock().unwrap().push((end, (items.data.len() + items.ends.len()) as u64));
            }
            let _ = self.tell.send(body);
        }
    }
}

#[derive(Clone)]
struct Service(Arc<Hall>);

impl Service {
    fn answer(&self) -> Result<(), Status> {
        self.0.refusals.lock().unwrap().pop_front().map_or(Ok(()), Err)
    }

    fn note(&self, asked: String) -> Result<(), Status> {
        let _ = self.0.asked.lock().unwrap().send(asked);
        self.answer()
    }

    /// Begins a session, or goes on with one.
    async fn begin(
        &self,
        stream: Streaming<ClientFrame>,
        raw: Raw,
    ) -> Result<(Session, Frames<ClientEvent>, Incoming<ClientMessage>), Status> {
        match Opening::<ClientMessage>::read(stream, 1 << 30, SOON).await? {
            Opening::New { messages, rest } => {
                let (out, frames) = outgoing(0, Arc::default());
                let (tell, heard) = mpsc::channel();
                let session = Session { out, tell, raw: Arc::new(Mutex::new(raw)), came: Arc::default() };
                let secret = match &messages[0].body {
                    Some(Body::OpenPool(open)) => open.secret.clone(),
                    Some(Body::Attach(attach)) => attach.secret.clone(),
                    other => panic!("{other:?} begins no session"),
                };
                assert_eq!(secret.len(), 32);
                if self.0.remembers.load(Ordering::SeqCst) {
                    self.0.known.lock().unwrap().insert(secret, session.clone());
                }
                let incoming = rest.incoming(&session.out);
                session.take_in(messages);
                let _ = self.0.calls.lock().unwrap().send(Call { heard, session: session.clone() });
                Ok((session, frames, incoming))
            }
            Opening::Resume { resume, rest } => {
                let known = self.0.known.lock().unwrap().get(&resume.secret).cloned();
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
            session.take_in(messages);
        }
    }
}

/// What a client is told, until it is told the error that ends it.
struct Events {
    replies: Replies<ClientEvent>,
    raw: tokio_mpsc::UnboundedReceiver<Result<EventFrame, Status>>,
}

impl Stream for Events {
    type Item = Result<EventFrame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match Pin::new(&mut self.replies).poll_next(context) {
            Poll::Ready(frame) => Poll::Ready(frame),
            // Without anybody who could say more, only the session ends it.
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
        let (say, raw) = tokio_mpsc::unbounded_channel();
        tokio::spawn(self.clone().serve(request.into_inner(), reply, say));
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
