//! A fake coordinator, controlled by the test.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use farpool_programs::PIECE_BYTES;
use farpool_proto::v1::agents_server::{Agents, AgentsServer};
use farpool_proto::v1::{AgentFrame, AgentHello, CommandFrame, FetchProgramRequest, ProgramPiece};
use farpool_testkit::coordinator::agents::{self, Frames, Session};
use farpool_testkit::port::Port;
use farpool_testkit::served::Served;
use futures_core::Stream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// The coordinator. Dropping it closes all its connections.
pub(crate) struct Coordinator {
    served: Served,
    arrivals: UnboundedReceiver<Arrival>,
    fetches: UnboundedReceiver<Fetch>,
}

/// An agent that asks to begin or resume a session.
pub(crate) type Arrival = agents::Arrival<Streaming<AgentFrame>>;

/// An agent's request for a program.
pub(crate) struct Fetch {
    pub(crate) digest: Vec<u8>,
    reply: oneshot::Sender<Result<Frames<ProgramPiece>, Status>>,
}

impl Coordinator {
    pub(crate) fn start() -> Coordinator {
        Coordinator::start_at(&Port::reserve())
    }

    pub(crate) fn start_at(port: &Port) -> Coordinator {
        let (arrived, arrivals) = unbounded_channel();
        let (wanted, fetches) = unbounded_channel();
        let service = AgentsServer::new(Service { arrived, wanted });
        let served = Served::start_at(port.address(), Server::builder().add_service(service));
        Coordinator { served, arrivals, fetches }
    }

    pub(crate) fn url(&self) -> String {
        self.served.url()
    }

    /// Waits for the next agent that asks for a session.
    pub(crate) async fn arrival(&mut self) -> Arrival {
        self.arrivals.recv().await.expect("the coordinator has exited")
    }

    /// Accepts the next agent.
    pub(crate) async fn session(&mut self) -> (Session, AgentHello) {
        self.arrival().await.welcome().await
    }

    /// Lets the next agent resume its session.
    pub(crate) async fn accept_resume(&mut self, session: &mut Session) {
        self.arrival().await.resume(session).await;
    }

    /// The next agent asks to resume an unknown session, and then begins another one.
    pub(crate) async fn session_after_failed_resume(&mut self) -> (Session, AgentHello) {
        self.arrival().await.refuse_resume().await;
        self.session().await
    }

    /// Waits for the next request for a program.
    pub(crate) async fn fetch(&mut self) -> Fetch {
        self.fetches.recv().await.expect("the coordinator has exited")
    }

    /// Returns whether an agent has asked for a program by now.
    pub(crate) fn was_asked_for_program(&mut self) -> bool {
        self.fetches.try_recv().is_ok()
    }
}

impl Fetch {
    /// Sends these bytes, compressed, as if they were the program.
    pub(crate) fn send(self, bytes: &[u8]) {
        let compressed = zstd::encode_all(bytes, 1).expect("cannot compress the program");
        self.send_compressed(&compressed, bytes.len() as u64);
    }

    /// Sends these compressed bytes as if they were the program, and announces this size.
    pub(crate) fn send_compressed(self, compressed: &[u8], size: u64) {
        let mut pieces: VecDeque<_> = compressed.chunks(PIECE_BYTES).map(piece).collect();
        pieces[0].digest = self.digest.clone().into();
        pieces[0].size = size;
        let _ = self.reply.send(Ok(Box::pin(Prepared { items: pieces, ends: true })));
    }

    pub(crate) fn refuse(self, status: Status) {
        let _ = self.reply.send(Err(status));
    }

    /// Waits until the agent has cancelled the request.
    pub(crate) async fn wait_until_cancelled(&mut self) {
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

/// Sends an agent these frames and then nothing more. Returns the stream of the agent's frames.
pub(crate) fn send_frames(to: Arrival, frames: impl IntoIterator<Item = CommandFrame>) -> Streaming<AgentFrame> {
    let _ = to.reply.send(Ok(Box::pin(Prepared { items: frames.into_iter().collect(), ends: false })));
    to.events
}

/// A stream of existing items.
struct Prepared<T> {
    items: VecDeque<T>,
    ends: bool,
}

impl<T: Unpin> Stream for Prepared<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.items.pop_front() {
            Some(item) => Poll::Ready(Some(Ok(item))),
            None if self.ends => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}
