//! A keeper of detached jobs whose every word a test chooses, behind a real gRPC server.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use farpool_net::http2;
use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::clients_server::{Clients, ClientsServer};
use farpool_proto::v1::detached_jobs_server::{DetachedJobs, DetachedJobsServer};
use farpool_proto::v1::{
    CancelDetachedReply, CancelDetachedRequest, ClientEvent, ClientFrame, Detach, DetachedJob, DiscardDetachedReply,
    DiscardDetachedRequest, Durable, EventFrame, Failure, FailureKind, Items, ItemsDone, ItemsFailed, JobEnded,
    ListDetachedReply, ListDetachedRequest, ProgramPiece, PutProgramReply,
};
use farpool_session::Address;
use farpool_testkit::served::Served;
use futures_core::Stream;
use tokio::sync::mpsc as tokio_mpsc;
use tonic::{Request, Response, Status, Streaming};

/// Longer than anything here takes.
pub(super) const SOON: Duration = Duration::from_secs(20);

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
    calls: Mutex<Sender<Call>>,
    asked: Mutex<Sender<String>>,
}

/// A call of Detach or of Attach.
pub(super) struct Call {
    heard: Receiver<Body>,
    out: tokio_mpsc::UnboundedSender<Result<EventFrame, Status>>,
}

impl Server {
    pub(super) fn start() -> Server {
        Self::start_at("127.0.0.1:0")
    }

    pub(super) fn start_at(at: &str) -> Server {
        let (tell_call, calls) = mpsc::channel();
        let (tell_asked, asked) = mpsc::channel();
        let hall =
            Arc::new(Hall { refusals: Mutex::default(), calls: Mutex::new(tell_call), asked: Mutex::new(tell_asked) });
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

    /// The next call.
    pub(super) fn call(&self) -> Call {
        self.calls.recv_timeout(SOON).expect("somebody calls")
    }

    /// A call, if there is one.
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

    /// What the job is that is being detached.
    pub(super) fn hear_detach(&self) -> Detach {
        match self.hear() {
            Body::Detach(detach) => *detach,
            other => panic!("{other:?} came instead of Detach"),
        }
    }

    /// All items up to the end, each with its index.
    pub(super) fn hear_all(&self) -> Vec<(u64, Vec<u8>)> {
        let mut all = Vec::new();
        loop {
            match self.hear() {
                Body::Items(items) => all.extend(each(&items)),
                Body::EndItems(_) => return all,
                other => panic!("{other:?} came instead of items"),
            }
        }
    }

    /// The next items.
    pub(super) fn hear_items(&self) -> Items {
        match self.hear() {
            Body::Items(items) => items,
            other => panic!("{other:?} came instead of items"),
        }
    }

    /// Waits until the client has ended the call.
    pub(super) fn hear_the_end(&self) {
        while self.heard.recv_timeout(SOON) != Err(mpsc::RecvTimeoutError::Disconnected) {}
    }

    pub(super) fn say(&self, event: Event) {
        let message = ClientEvent { body: Some(event) };
        self.say_frame(EventFrame { messages: vec![message].into(), ..EventFrame::default() });
    }

    pub(super) fn say_frame(&self, frame: EventFrame) {
        let _ = self.out.send(Ok(frame));
    }

    pub(super) fn say_durable(&self, items: u64, complete: bool) {
        self.say(Event::Durable(Durable { items, complete }));
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

    /// Ends the call with an error: `unavailable` is what a connection that is lost looks like.
    pub(super) fn fail(self, status: Status) {
        let _ = self.out.send(Err(status));
    }

    pub(super) fn cut(self) {
        self.fail(Status::unavailable("the cable was cut"));
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

#[derive(Clone)]
struct Service(Arc<Hall>);

impl Service {
    fn answer(&self) -> Result<(), Status> {
        self.0.refusals.lock().unwrap().pop_front().map_or(Ok(()), Err)
    }

    fn begin(&self, mut stream: Streaming<ClientFrame>) -> Result<Response<Events>, Status> {
        self.answer()?;
        let ((tell, heard), (out, events)) = (mpsc::channel(), tokio_mpsc::unbounded_channel());
        self.0.calls.lock().unwrap().send(Call { heard, out }).unwrap();
        tokio::spawn(async move {
            while let Ok(Some(frame)) = stream.message().await {
                for body in frame.messages.into_vec().into_iter().filter_map(|message| message.body) {
                    let _ = tell.send(body);
                }
            }
        });
        Ok(Response::new(Events(events)))
    }

    fn note(&self, asked: String) -> Result<(), Status> {
        let _ = self.0.asked.lock().unwrap().send(asked);
        self.answer()
    }
}

struct Events(tokio_mpsc::UnboundedReceiver<Result<EventFrame, Status>>);

impl Stream for Events {
    type Item = Result<EventFrame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

#[tonic::async_trait]
impl DetachedJobs for Service {
    type DetachStream = Events;
    type AttachStream = Events;

    async fn detach(&self, request: Request<Streaming<ClientFrame>>) -> Result<Response<Events>, Status> {
        self.begin(request.into_inner())
    }

    async fn attach(&self, request: Request<Streaming<ClientFrame>>) -> Result<Response<Events>, Status> {
        self.begin(request.into_inner())
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

    async fn session(&self, _: Request<Streaming<ClientFrame>>) -> Result<Response<Events>, Status> {
        Err(Status::unimplemented("pools are opened elsewhere"))
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
