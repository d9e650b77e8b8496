//! The cost of gRPC: an echo over one bare stream, with the runtime and the HTTP/2 settings of the daemons and nothing else.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use farpool_net::http2;
use farpool_proto::v1::agents_client::AgentsClient;
use farpool_proto::v1::agents_server::{Agents, AgentsServer};
use farpool_proto::v1::{AgentFrame, CommandFrame, FetchProgramRequest, Piece, ProgramPiece};
use futures_core::Stream;
use tokio::sync::mpsc;
use tonic::codegen::BoxStream;
use tonic::transport::Endpoint;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

const HEARTBEAT: Duration = Duration::from_secs(5);

/// Serves on this listener until the process is killed.
pub(crate) fn serve(listener: std::net::TcpListener) {
    listener.set_nonblocking(true).expect("cannot set the option");
    run(async {
        let listener = tokio::net::TcpListener::from_std(listener).expect("the runtime knows sockets");
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let server = http2::server(HEARTBEAT, http2::STREAM_WINDOW);
        server.serve_with_incoming(AgentsServer::new(Echo), incoming).await.expect("the server ended with an error");
    });
}

/// Returns the microseconds of round trips of a message of this size to the server on this port.
pub(crate) fn round_trips(port: u16, bytes: usize, warm_up: usize, count: usize) -> Vec<f64> {
    run(async move {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).expect("invalid address");
        let channel = http2::endpoint(endpoint, HEARTBEAT).connect().await.expect("the server does not listen");
        let (frames, outgoing) = mpsc::channel(1);
        let replies = AgentsClient::new(channel).session(Frames(outgoing)).await.expect("cannot open a stream");
        let (mut replies, data) = (replies.into_inner(), Bytes::from(vec![7; bytes]));
        let mut times = Vec::with_capacity(count);
        for trip in 0..warm_up + count {
            let start = Instant::now();
            let piece = Some(Piece { total: bytes as u64, data: data.clone() });
            frames.send(AgentFrame { piece, ..AgentFrame::default() }).await.expect("the stream is open");
            replies.message().await.expect("the stream is open").expect("the server did not answer");
            if trip >= warm_up {
                times.push(start.elapsed().as_secs_f64() * 1e6);
            }
        }
        times
    })
}

/// Runs a task as the daemons do: spawned, on a runtime of this thread.
fn run<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("cannot create a runtime");
    runtime.block_on(async { tokio::spawn(task).await.expect("the task failed") })
}

struct Frames(mpsc::Receiver<AgentFrame>);

impl Stream for Frames {
    type Item = AgentFrame;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<AgentFrame>> {
        self.0.poll_recv(context)
    }
}

struct Echo;

#[tonic::async_trait]
impl Agents for Echo {
    type SessionStream = Echoes;
    type FetchProgramStream = BoxStream<ProgramPiece>;

    async fn session(&self, request: Request<Streaming<AgentFrame>>) -> Result<Response<Echoes>, Status> {
        Ok(Response::new(Echoes(request.into_inner())))
    }

    async fn fetch_program(
        &self,
        _: Request<FetchProgramRequest>,
    ) -> Result<Response<Self::FetchProgramStream>, Status> {
        Err(Status::unimplemented("there are no programs here"))
    }
}

struct Echoes(Streaming<AgentFrame>);

impl Stream for Echoes {
    type Item = Result<CommandFrame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let frame = ready!(Pin::new(&mut self.0).poll_next(context));
        Poll::Ready(frame.map(|frame| Ok(CommandFrame { piece: frame?.piece, ..CommandFrame::default() })))
    }
}
