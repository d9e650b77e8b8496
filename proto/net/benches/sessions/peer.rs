//! The other process: a server whose sessions execute commands.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farpool_net::{Incoming, Outgoing, Replies, http2, outgoing};
use farpool_proto::v1::agents_server::{Agents, AgentsServer};
use farpool_proto::v1::{
    AgentCommand, AgentEvent, AgentFrame, AgentHello, Assign, Chunk, Drain, FetchProgramRequest, ProgramPiece, Segment,
    agent_command, agent_event,
};
use tokio::sync::Notify;
use tonic::{Request, Response, Status, Streaming};

pub(crate) const ROLE: &str = "--peer";
/// The most bytes in a sender's queue.
pub(crate) const QUEUE_BYTES: usize = 4 << 20;
pub(crate) const LIMIT: u64 = 64 << 20;
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(5);

/// Receives this many messages and then answers with one.
pub(crate) const TAKE: &str = "take";
/// Answers every message with one.
pub(crate) const ECHO: &str = "echo";
/// Sends this many messages with one small item each.
pub(crate) const GIVE: &str = "give";
/// Sends this many messages with an item of 1 MiB each.
pub(crate) const GIVE_MIB: &str = "give MiB";

pub(crate) fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    println!("{}", listener.local_addr().expect("the listener is bound").port());
    runtime().block_on(async {
        listener.set_nonblocking(true).expect("the option can be set");
        let listener = tokio::net::TcpListener::from_std(listener).expect("the runtime knows sockets");
        let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        let service = AgentsServer::new(Peer).max_decoding_message_size(http2::MAX_GRPC_MESSAGE);
        http2::server(HEARTBEAT, http2::STREAM_WINDOW)
            .serve_with_incoming(service, incoming)
            .await
            .expect("the server ends without an error");
    });
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made")
}

struct Peer;

#[tonic::async_trait]
impl Agents for Peer {
    type SessionStream = Replies<AgentCommand>;
    type FetchProgramStream = tonic::codegen::BoxStream<ProgramPiece>;

    async fn session(&self, request: Request<Streaming<AgentFrame>>) -> Result<Response<Self::SessionStream>, Status> {
        let drained = Arc::new(Notify::new());
        let (queue, frames) = outgoing(QUEUE_BYTES / 2, Arc::clone(&drained));
        tokio::spawn(session(queue.incoming(request.into_inner(), LIMIT), queue, drained));
        Ok(Response::new(Replies::from(frames)))
    }

    async fn fetch_program(
        &self,
        _: Request<FetchProgramRequest>,
    ) -> Result<Response<Self::FetchProgramStream>, Status> {
        Err(Status::unimplemented("there are no programs here"))
    }
}

async fn session(mut incoming: Incoming<AgentEvent>, queue: Outgoing<AgentCommand>, drained: Arc<Notify>) {
    let (mut echo, mut left) = (false, 0);
    while let Ok(Some(events)) = incoming.next().await {
        for event in events {
            match event.body {
                Some(agent_event::Body::Hello(hello)) => {
                    let AgentHello { host, slots, .. } = *hello;
                    let payload = |bytes: usize| Bytes::from(vec![3; bytes]);
                    match host.as_str() {
                        GIVE => give(&mut incoming, &queue, &drained, slots, payload(8)).await,
                        GIVE_MIB => give(&mut incoming, &queue, &drained, slots, payload(1 << 20)).await,
                        _ => (echo, left) = (host == ECHO, slots),
                    }
                }
                Some(agent_event::Body::RunDone(done)) if echo => queue.push(assign(done.chunk, done.data)),
                Some(agent_event::Body::RunDone(_)) => {
                    left -= 1;
                    if left == 0 {
                        queue.push(AgentCommand { body: Some(agent_command::Body::Drain(Drain {})) });
                    }
                }
                _ => panic!("unexpected event: {event:?}"),
            }
        }
    }
    queue.finish();
}

async fn give(
    incoming: &mut Incoming<AgentEvent>,
    queue: &Outgoing<AgentCommand>,
    drained: &Notify,
    count: u32,
    payload: Bytes,
) {
    for chunk in 0..u64::from(count) {
        while queue.bytes() > QUEUE_BYTES {
            tokio::select! {
                () = drained.notified() => {}
                early = incoming.next() => assert!(matches!(early, Ok(Some(early)) if early.is_empty())),
            }
        }
        queue.push(assign(chunk, payload.clone()));
    }
}

fn assign(chunk: u64, data: Bytes) -> AgentCommand {
    let chunk = Chunk { chunk: 7_000_000 + chunk, job: 12, first: chunk, attempt: 1, segments: 1 };
    let ends = Bytes::copy_from_slice(&(data.len() as u32).to_le_bytes());
    let assign = Assign { chunks: vec![chunk], segments: vec![Segment { data, start: 0, ends }] };
    AgentCommand { body: Some(agent_command::Body::Assign(assign)) }
}

/// This program in another role, listening; killed when this is dropped.
pub(crate) struct Child {
    process: std::process::Child,
    pub(crate) port: u16,
}

impl Child {
    pub(crate) fn start(role: &str) -> Self {
        let program = std::env::current_exe().expect("the program has a path");
        let mut process =
            Command::new(program).arg(role).stdout(Stdio::piped()).spawn().expect("the program can be started");
        let mut line = String::new();
        let output = process.stdout.take().expect("stdout is piped");
        BufReader::new(output).read_line(&mut line).expect("the child prints its port");
        Child { process, port: line.trim().parse().expect("the line is a port") }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
