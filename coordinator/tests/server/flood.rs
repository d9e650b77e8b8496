//! Peers that send as much as they can of what is of no use: what the process takes stays bounded, and others are served.

use std::time::Duration;

use bytes::Bytes;
use farpool_proto::v1::agents_client::AgentsClient;
use farpool_proto::v1::clients_client::ClientsClient;
use farpool_proto::v1::{AgentFrame, ClientFrame, ClientMessage, OpenPool, Piece, WorkerSettings};
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::agent::{Agent, hello};
use crate::client::{Ask, Client, open_pool};
use crate::process::{Running, with_programs};
use crate::raw::head;

const MIB: u64 = 1 << 20;
const MEMORY: u64 = 64 * MIB;
/// Beside it: the program, what is on its way, and what the allocator keeps.
const BESIDE: u64 = 64 * MIB;

const CLIENTS: usize = 20;
const AGENTS: usize = 4;

async fn start() -> Running {
    Running::start(with_programs().args(["--memory", "64MiB", "--heartbeat-timeout", "60s"]))
}

/// Sends these frames as fast as they are taken, and keeps the stream open.
fn client_floods(channel: Channel, frames: impl Iterator<Item = ClientFrame> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(async move {
        let (sending, requests) = mpsc::channel(1);
        let mut clients = ClientsClient::new(channel);
        let Ok(_replies) = clients.session(ReceiverStream::new(requests)).await else { return };
        for frame in frames {
            if sending.send(frame).await.is_err() {
                return;
            }
        }
        std::future::pending().await
    })
}

fn agent_floods(channel: Channel, frames: impl Iterator<Item = AgentFrame> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(async move {
        let (sending, requests) = mpsc::channel(1);
        let mut agents = AgentsClient::new(channel);
        let Ok(_replies) = agents.session(ReceiverStream::new(requests)).await else { return };
        for frame in frames {
            if sending.send(frame).await.is_err() {
                return;
            }
        }
        std::future::pending().await
    })
}

fn messages(bodies: impl IntoIterator<Item = Ask>) -> ClientFrame {
    let messages: Vec<_> = bodies.into_iter().map(|body| ClientMessage { body: Some(body) }).collect();
    ClientFrame { messages: messages.into(), ..ClientFrame::default() }
}

/// Pieces of a message of so many bytes, of which the last does not come.
fn pieces(total: u64) -> impl Iterator<Item = Piece> + Send {
    (0..(total - 1) / MIB).map(move |_| Piece { total, data: vec![7; MIB as usize].into() })
}

/// A pool whose initializer has arguments of so many bytes.
fn large_pool(bytes: u64) -> OpenPool {
    let settings = WorkerSettings {
        initializer_args: vec![7; bytes as usize].into(),
        payload_limit: 1 << 30,
        ..WorkerSettings::default()
    };
    OpenPool { settings: Some(settings), ..open_pool() }
}

/// A message that is cut in pieces, all of which come.
fn cut(message: &ClientMessage) -> impl Iterator<Item = Piece> + Send + use<> {
    let encoded = Bytes::from(message.encode_to_vec());
    let total = encoded.len() as u64;
    (0..total.div_ceil(MIB)).map(move |at| {
        let piece = (at * MIB) as usize..((at + 1) * MIB).min(total) as usize;
        Piece { total, data: encoded.slice(piece) }
    })
}

fn client_piece(piece: Piece) -> ClientFrame {
    ClientFrame { piece: Some(piece), ..ClientFrame::default() }
}

fn agent_piece(piece: Piece) -> AgentFrame {
    AgentFrame { piece: Some(piece), ..AgentFrame::default() }
}

/// What the process takes at most while nothing more comes of the floods, and that it serves others meanwhile.
async fn check(mut server: Running, floods: Vec<JoinHandle<()>>) {
    let (mut before, mut now) = (0, 1);
    while before < now {
        before = now;
        tokio::time::sleep(Duration::from_millis(700)).await;
        now = server.peak();
    }
    let agent = Agent::joined_over(server.connect().await, hello(200, 2)).await;
    let agent = tokio::spawn(agent.work());
    let mut client = Client::opened_over(server.connect().await, open_pool()).await;
    client.works(1).await;
    agent.abort();
    let peak = server.peak();
    assert!(peak < MEMORY + BESIDE, "{} MiB", peak / MIB);
    floods.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn before_hello() {
    let mut server = start().await;
    let mut floods = Vec::new();
    for number in 0..CLIENTS {
        let channel = server.connect().await;
        floods.push(match number % 4 {
            // A first message that is not whole.
            0 => client_floods(channel, pieces(15 * MIB).map(client_piece)),
            // One that is, and is kept.
            1 => {
                let open = ClientMessage { body: Some(Ask::OpenPool(Box::new(large_pool(14 * MIB)))) };
                client_floods(channel, cut(&open).map(client_piece))
            }
            // The same in one frame.
            2 => client_floods(channel, [messages([Ask::OpenPool(Box::new(large_pool(2 * MIB)))])].into_iter()),
            // More than may ever come.
            _ => client_floods(channel, pieces(4 << 30).map(client_piece)),
        });
    }
    for number in 0..AGENTS {
        let channel = server.connect().await;
        let total = if number % 2 == 0 { 4 << 30 } else { 7 * MIB };
        floods.push(agent_floods(channel, pieces(total).map(agent_piece)));
    }
    check(server, floods).await;
}

/// Frames of 4 MiB that nobody would send, and halves of such frames.
#[tokio::test]
async fn frames_of_nothing() {
    let mut server = start().await;
    let mut streams = Vec::new();
    let (empty, half) = ([&head(0, 4 << 20)[..], &[0x0a, 0].repeat(2 << 20)].concat(), vec![0x0a; (3 << 20) + 5]);
    let half = [&head(0, 4 << 20)[..], &half].concat();
    let address = server.address().await;
    for number in 0..CLIENTS + AGENTS {
        let method = if number < CLIENTS { "Clients/Session" } else { "Agents/Session" };
        let body = if number % 2 == 0 { empty.clone() } else { half.clone() };
        streams.push(crate::raw::begin_at(address, method, body, false).await);
    }
    check(server, Vec::new()).await;
}
