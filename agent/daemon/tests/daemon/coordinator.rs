//! A coordinator, played by the test: it says and hears what the test wants it to.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use farpool_programs::PIECE_BYTES;
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::agents_server::{Agents, AgentsServer};
use farpool_proto::v1::{AgentFrame, AgentHello, CommandFrame, FetchProgramRequest, ProgramPiece};
use farpool_proto::version;
use farpool_testkit::port::Port;
use futures_core::Stream;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, oneshot};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::session::Session;

pub(crate) type Frames<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Dropped, it is gone, and all its connections with it.
pub(crate) struct Coordinator {
    address: SocketAddr,
    arrivals: UnboundedReceiver<Arrival>,
    fetches: UnboundedReceiver<Fetch>,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

/// An agent that wants a session, or to go on with one.
pub(crate) struct Arrival {
    pub(crate) events: Streaming<AgentFrame>,
    pub(crate) reply: oneshot::Sender<Result<Frames<CommandFrame>, Status>>,
}

/// An agent that wants a program.
pub(crate) struct Fetch {
    pub(crate) digest: Vec<u8>,
    reply: oneshot::Sender<Result<Frames<ProgramPiece>, Status>>,
}

impl Coordinator {
    pub(crate) fn start() -> Coordinator {
        Coordinator::start_at(&Port::reserve())
    }

    pub(crate) fn start_at(port: &Port) -> Coordinator {
        let address = port.address();
        let (arrived, arrivals) = unbounded_channel();
        let (wanted, fetches) = unbounded_channel();
        let (listening, listens) = std::sync::mpsc::channel();
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            // A runtime of its own: when it ends, so do its connections.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::bind(address).await.expect("the port is free");
                listening.send(()).expect("somebody asks");
                let service = AgentsServer::new(Service { arrived, wanted });
                let serving = Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener));
                tokio::select! {
                    served = serving => served.expect("it serves until it is stopped"),
                    () = stopped.notified() => {}
                }
            });
        });
        listens.recv().expect("it listens");
        Coordinator { address, arrivals, fetches, stop, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next agent that wants a session.
    pub(crate) async fn arrival(&mut self) -> Arrival {
        self.arrivals.recv().await.expect("the coordinator runs")
    }

    /// Accepts the next agent.
    pub(crate) async fn session(&mut self) -> (Session, AgentHello) {
        let mut session = self.arrival().await.accept();
        session.send(Command::Welcome(version()));
        match session.event().await {
            Event::Hello(hello) => (session, *hello),
            other => panic!("an agent says hello first, not {other:?}"),
        }
    }

    /// The next agent goes on with its session.
    pub(crate) async fn resumes(&mut self, session: &mut Session) {
        self.arrival().await.resume(session).await;
    }

    /// The next agent wants to go on with a session that this coordinator does not know, and begins another one.
    pub(crate) async fn session_after_one_that_is_given_up(&mut self) -> (Session, AgentHello) {
        self.arrival().await.resumes_in_vain().await;
        self.session().await
    }

    /// The next program that an agent wants.
    pub(crate) async fn fetch(&mut self) -> Fetch {
        self.fetches.recv().await.expect("the coordinator runs")
    }

    /// Whether an agent has asked for a program by now.
    pub(crate) fn was_asked_for_program(&mut self) -> bool {
        self.fetches.try_recv().is_ok()
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Fetch {
    /// Sends these bytes, compressed, as if they were the program.
    pub(crate) fn send(self, bytes: &[u8]) {
        let compressed = zstd::encode_all(bytes, 1).expect("it can be compressed");
        self.send_as_it_is(&compressed, bytes.len() as u64);
    }

    /// Sends these bytes as if they were the program, which is announced with this size.
    pub(crate) fn send_as_it_is(self, compressed: &[u8], size: u64) {
        let mut pieces: VecDeque<_> = compressed.chunks(PIECE_BYTES).map(piece).collect();
        pieces[0].digest = self.digest.clone().into();
        pieces[0].size = size;
        let _ = self.reply.send(Ok(Box::pin(Made { items: pieces, ends: true })));
    }

    pub(crate) fn refuse(self, status: Status) {
        let _ = self.reply.send(Err(status));
    }

    /// Whether the agent has given up.
    pub(crate) async fn given_up(&mut self) {
        self.reply.closed().await;
    }
}

fn piece(data: &[u8]) -> ProgramPiece {
    ProgramPiece { data: data.to_vec().into(), ..ProgramPiece::default() }
}

struct Service {
    arrived: UnboundedSender<Arrival>,
    wanted: UnboundedSender<Fetch>,
}

#[tonic::async_trait]
impl Agents for Service {
    type SessionStream = Frames<CommandFrame>;
    type FetchProgramStream = Frames<ProgramPiece>;

    async fn session(&self, request: Request<Streaming<AgentFrame>>) -> Result<Response<Frames<CommandFrame>>, Status> {
        let (reply, replied) = oneshot::channel();
        let _ = self.arrived.send(Arrival { events: request.into_inner(), reply });
        replied.await.map_err(|_| Status::unavailable("the test does not answer"))?.map(Response::new)
    }

    async fn fetch_program(
        &self,
        request: Request<FetchProgramRequest>,
    ) -> Result<Response<Frames<ProgramPiece>>, Status> {
        let (reply, replied) = oneshot::channel();
        let _ = self.wanted.send(Fetch { digest: request.into_inner().digest.to_vec(), reply });
        replied.await.map_err(|_| Status::unavailable("the test does not answer"))?.map(Response::new)
    }
}

/// A stream of what is there already.
pub(crate) struct Made<T> {
    pub(crate) items: VecDeque<T>,
    pub(crate) ends: bool,
}

impl<T: Unpin> Stream for Made<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.items.pop_front() {
            Some(item) => Poll::Ready(Some(Ok(item))),
            None if self.ends => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}
