//! Peers that send useless data as fast as they can: the process's memory stays bounded, and others are served.

use std::array;
use std::time::Duration;

use bytes::Bytes;
use farpool_proto::v1::agents_client::AgentsClient;
use farpool_proto::v1::clients_client::ClientsClient;
use farpool_proto::v1::{
    AgentEvent, AgentFrame, AgentHello, CancelJob, ClientFrame, ClientMessage, Credit, EndItems, EventFrame, Items,
    Label, OpenJob, OpenPool, Piece, Program, RunDone, Variable, WorkerSettings,
};
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::agent::{Agent, Command, Report, hello};
use crate::client::{Client, Request, batch, open_pool};
use crate::process::{Running, with_programs};
use crate::raw::{begin_at, framed, head};

pub(crate) const MIB: u64 = 1 << 20;
const MEMORY: u64 = 64 * MIB;
/// Memory in addition to that: the program, data in flight, and freed memory in the allocator.
const OVERHEAD: u64 = 64 * MIB;
/// The limit while slots are idle. Clients with incomplete parts may then hold half as much again, as may clients whose
/// items always run.
pub(crate) const LIMIT_WHILE_AGENTS_IDLE: u64 = MEMORY + MEMORY / 2 + OVERHEAD;

pub(crate) const CLIENTS: usize = 20;
pub(crate) const AGENTS: usize = 4;

pub(crate) async fn start() -> Running {
    Running::start(with_programs().args(["--memory", "64MiB", "--heartbeat-timeout", "60s"]))
}

/// Sends these frames as fast as they are accepted, and keeps the stream open.
fn client_floods(channel: Channel, frames: impl Iterator<Item = ClientFrame> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(async move {
        let _replies = flood(channel, frames).await;
        std::future::pending().await
    })
}

/// Sends these frames like [`client_floods`], and reads the replies without acknowledging them.
pub(crate) fn client_floods_and_reads(
    channel: Channel,
    frames: impl Iterator<Item = ClientFrame> + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let Some((_open, mut replies)) = flood(channel, frames).await else { return };
        while let Ok(Some(_)) = replies.message().await {}
    })
}

async fn flood(
    channel: Channel,
    frames: impl Iterator<Item = ClientFrame>,
) -> Option<(mpsc::Sender<ClientFrame>, Streaming<EventFrame>)> {
    let (sending, requests) = mpsc::channel(1);
    let mut clients = ClientsClient::new(channel).max_decoding_message_size(64 << 20);
    let replies = clients.session(ReceiverStream::new(requests)).await.ok()?;
    for frame in frames {
        sending.send(frame).await.ok()?;
    }
    Some((sending, replies.into_inner()))
}

pub(crate) fn agent_floods(
    channel: Channel,
    frames: impl Iterator<Item = AgentFrame> + Send + 'static,
) -> JoinHandle<()> {
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

pub(crate) fn messages(bodies: impl IntoIterator<Item = Request>) -> ClientFrame {
    let messages: Vec<_> = bodies.into_iter().map(|body| ClientMessage { body: Some(body) }).collect();
    ClientFrame { messages: messages.into(), ..ClientFrame::default() }
}

/// All pieces but the last of a message of this many bytes.
fn pieces(total: u64) -> impl Iterator<Item = Piece> + Send {
    (0..(total - 1) / MIB).map(move |_| Piece { total, data: vec![7; MIB as usize].into() })
}

/// A pool whose initializer has arguments of this many bytes.
fn large_pool(bytes: u64) -> OpenPool {
    let settings = WorkerSettings {
        initializer_args: vec![7; bytes as usize].into(),
        payload_limit: 1 << 30,
        ..WorkerSettings::default()
    };
    OpenPool { settings: Some(settings), ..open_pool() }
}

/// All pieces of a message.
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

/// A label that separates honest clients and agents from hostile ones, so that neither runs anything for the other.
pub(crate) fn honest(value: &str) -> Vec<Label> {
    vec![Label { key: "honest".to_owned(), value: value.to_owned() }]
}

pub(crate) fn hostile(number: usize) -> AgentHello {
    AgentHello { labels: honest("no"), ..hello(number as u8, 2) }
}

/// Checks the process's peak memory once the floods stall, and that it serves others meanwhile.
pub(crate) async fn check(server: Running, floods: Vec<JoinHandle<()>>) {
    check_within(MEMORY + OVERHEAD, server, floods).await;
}

/// Checks like [`check`], with this memory limit.
pub(crate) async fn check_within(most: u64, mut server: Running, floods: Vec<JoinHandle<()>>) {
    let (mut before, mut now) = (0, 1);
    while before < now {
        before = now;
        tokio::time::sleep(Duration::from_millis(700)).await;
        now = server.peak();
    }
    let hello = AgentHello { labels: honest("yes"), ..hello(200, 2) };
    let agent = Agent::joined_over(server.connect().await, hello).await;
    let agent = tokio::spawn(agent.work());
    let open = OpenPool { require: honest("yes"), ..open_pool() };
    let mut client = Client::opened_over(server.connect().await, open).await;
    client.check_works(1).await;
    agent.abort();
    let peak = server.peak();
    eprintln!("{} MiB at most", peak / MIB);
    assert!(peak < most, "{} MiB", peak / MIB);
    floods.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn before_hello() {
    let mut server = start().await;
    let mut floods = Vec::new();
    for number in 0..CLIENTS {
        let channel = server.connect().await;
        floods.push(match number % 4 {
            // An incomplete first message.
            0 => client_floods(channel, pieces(15 * MIB).map(client_piece)),
            // A complete one, which is kept.
            1 => {
                let open = ClientMessage { body: Some(Request::OpenPool(Box::new(large_pool(14 * MIB)))) };
                client_floods(channel, cut(&open).map(client_piece))
            }
            // A complete one in one frame.
            2 => client_floods(channel, [messages([Request::OpenPool(Box::new(large_pool(2 * MIB)))])].into_iter()),
            // More than is ever allowed.
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

/// Useless frames of 4 MiB, and halves of such frames.
#[tokio::test]
async fn useless_frames() {
    let mut server = start().await;
    let mut streams = Vec::new();
    let (empty, half) = ([&head(0, 4 << 20)[..], &[0x0a, 0].repeat(2 << 20)].concat(), vec![0x0a; (3 << 20) + 5]);
    let half = [&head(0, 4 << 20)[..], &half].concat();
    let address = server.address().await;
    for number in 0..CLIENTS + AGENTS {
        let method = if number < CLIENTS { "Clients/Session" } else { "Agents/Session" };
        let body = if number % 2 == 0 { empty.clone() } else { half.clone() };
        streams.push(begin_at(address, method, body, false).await);
    }
    check(server, Vec::new()).await;
}

/// The first frame of a client whose job 1 has ended and whose job 2 has not.
fn opened() -> ClientFrame {
    let job = |job| Request::OpenJob(Box::new(OpenJob { job, chunksize: 1, ..OpenJob::default() }));
    let open = Request::OpenPool(Box::new(OpenPool { require: honest("no"), ..open_pool() }));
    messages([open, job(1), Request::CancelJob(CancelJob { job: 1 }), job(2)])
}

pub(crate) fn joined(number: usize) -> AgentFrame {
    let reports = [Report::Hello(Box::new(hostile(number))), Report::Credit(Credit { chunks: 60_000, bytes: 0 })];
    let messages: Vec<_> = reports.map(|body| AgentEvent { body: Some(body) }).into();
    AgentFrame { messages: messages.into(), ..AgentFrame::default() }
}

/// An item of this many bytes for a job.
fn item(job: u64, index: u64, bytes: usize) -> Request {
    Request::Items(batch(job, index, &[&vec![7; bytes]]))
}

/// Half of a frame of 4 MiB.
fn half_frame() -> Vec<u8> {
    [&head(0, 4 << 20)[..], &vec![0x0a; (4 << 20) - 1]].concat()
}

/// Starts clients that send these frames once their pools are open.
async fn clients_flood(
    server: &mut Running,
    frames: impl Fn() -> Box<dyn Iterator<Item = ClientFrame> + Send>,
) -> Vec<JoinHandle<()>> {
    let mut floods = Vec::new();
    for _ in 0..CLIENTS {
        floods.push(client_floods(server.connect().await, [opened()].into_iter().chain(frames())));
    }
    floods
}

#[tokio::test]
async fn half_messages_after_hello() {
    let mut server = start().await;
    let mut floods = clients_flood(&mut server, || Box::new(pieces(31 * MIB).map(client_piece))).await;
    for number in 0..AGENTS {
        let frames = [joined(number)].into_iter().chain(pieces(36 * MIB).map(agent_piece));
        floods.push(agent_floods(server.connect().await, frames));
    }
    check(server, floods).await;
}

#[tokio::test]
async fn half_frames_after_hello() {
    let mut server = start().await;
    let address = server.address().await;
    let mut streams = Vec::new();
    for _ in 0..CLIENTS {
        let body = [framed(&opened()), half_frame()].concat();
        streams.push(begin_at(address, "Clients/Session", body, false).await);
    }
    for number in 0..AGENTS {
        let body = [framed(&joined(number)), half_frame()].concat();
        streams.push(begin_at(address, "Agents/Session", body, false).await);
    }
    check(server, Vec::new()).await;
}

/// Each of them is kept while there is room.
#[tokio::test]
async fn complete_items_after_hello() {
    let mut server = start().await;
    let floods = clients_flood(&mut server, || {
        let jobs = (3..20).map(|job| {
            let open = Request::OpenJob(Box::new(OpenJob { job, ..OpenJob::default() }));
            messages([open].into_iter().chain([item(job, 0, 1 << 20)]))
        });
        let items = (3..20).flat_map(|job| (1..14).map(move |index| messages([item(job, index, 1 << 20)])));
        Box::new(jobs.chain(items))
    });
    let floods = floods.await;
    check(server, floods).await;
}

/// Ten bytes of each frame are kept.
#[tokio::test]
async fn small_items_in_large_frames_after_hello() {
    let mut server = start().await;
    let frames = |index| messages([item(2, index, 10), item(1, index, 2 << 20)]);
    let floods = clients_flood(&mut server, || Box::new((0..30).map(frames))).await;
    check(server, floods).await;
}

/// Sessions that have sent one large frame, and are silent.
#[tokio::test]
async fn one_large_frame_after_hello() {
    let mut server = start().await;
    let frame = || messages([item(1, 0, (2 << 20) - 100), item(1, 1, (2 << 20) - 100)]);
    let floods = clients_flood(&mut server, || Box::new([frame()].into_iter())).await;
    check(server, floods).await;
}

/// Answers every chunk with a result of `bytes`, and with a report of `beside` bytes about a chunk that does not exist.
async fn answers(mut agent: Agent, bytes: usize, beside: usize) {
    agent.send(Report::Credit(Credit { chunks: 60_000, bytes: 0 }));
    while let Ok(Some(commands)) = agent.next().await {
        for command in commands {
            let Command::Assign(assign) = &command else {
                agent.execute(command);
                continue;
            };
            for chunk in &assign.chunks {
                let done = |number, bytes: usize| {
                    let (data, ends) = (vec![7; bytes].into(), Bytes::copy_from_slice(&(bytes as u32).to_le_bytes()));
                    let (attempt, first) = (chunk.attempt, chunk.first);
                    Report::RunDone(RunDone { chunk: number, attempt, first, data, ends, ..RunDone::default() })
                };
                agent.send(done(chunk.chunk, bytes));
                // A chunk that does not exist.
                agent.send(done(u64::MAX, beside));
                while agent.out.waiting() > 4 << 20 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
    }
}

/// Agents that answer like this, and clients with 500 items each.
async fn check_results(
    bytes: usize,
    beside: usize,
    client: impl Fn(Channel, array::IntoIter<ClientFrame, 2>) -> JoinHandle<()>,
) {
    let mut server = start().await;
    let mut floods = Vec::new();
    for number in 0..AGENTS {
        let agent = Agent::joined_over(server.connect().await, hostile(number)).await;
        floods.push(tokio::spawn(answers(agent, bytes, beside)));
    }
    let items = |index: u64| {
        let (first, data, ends) =
            (100 * index, vec![7; 100].into(), (1..=100_u32).flat_map(u32::to_le_bytes).collect());
        Request::Items(Items { job: 2, first, data, ends })
    };
    for _ in 0..CLIENTS {
        let items = messages((0..5).map(items).chain([Request::EndItems(EndItems { job: 2 })]));
        floods.push(client(server.connect().await, [opened(), items].into_iter()));
    }
    check(server, floods).await;
}

#[tokio::test]
async fn small_results_in_large_frames_for_clients_that_do_not_read() {
    check_results(10, 200 << 10, client_floods).await;
}

#[tokio::test]
async fn results_for_clients_that_do_not_read() {
    check_results(200 << 10, 10, client_floods).await;
}

#[tokio::test]
async fn large_results_for_clients_that_do_not_read() {
    check_results(8 << 20, 10, client_floods).await;
}

#[tokio::test]
async fn large_results_for_clients_that_never_acknowledge() {
    check_results(8 << 20, 10, client_floods_and_reads).await;
}

/// Jobs that end at once, with every other number left out.
#[tokio::test]
async fn jobs_whose_numbers_have_gaps() {
    let mut server = start().await;
    let job = |number: u64| {
        let job = 3 + 2 * number;
        let open = OpenJob { job, ..OpenJob::default() };
        [Request::OpenJob(Box::new(open)), Request::CancelJob(CancelJob { job })]
    };
    let frames = move |frame: u64| messages((500 * frame..500 * (frame + 1)).flat_map(job));
    let floods = clients_flood(&mut server, || Box::new((0..1000).map(frames))).await;
    check(server, floods).await;
}

/// Agents that read nothing while pools with many variables open and close: each agent is sent each pool.
#[tokio::test]
async fn large_pools_for_agents_that_do_not_read() {
    let mut server = start().await;
    let mut floods = Vec::new();
    for number in 0..AGENTS {
        floods.push(agent_floods(server.connect().await, [joined(number)].into_iter()));
    }
    let variable = Variable { name: "a".into(), value: "b".into() };
    let program =
        Program { digest: vec![7; 32].into(), size: 10, environment: vec![variable; 60_000], ..Program::default() };
    let program = program.packed();
    let mut clients = Vec::new();
    for _ in 0..4 {
        let (channel, program) = (server.connect().await, program.clone());
        clients.push(tokio::spawn(async move {
            for _ in 0..15 {
                let open = OpenPool { program: program.clone(), require: honest("no"), ..open_pool() };
                drop(Client::opened_over(channel.clone(), open).await);
            }
        }));
    }
    for client in clients {
        client.await.expect("opening the pools panicked");
    }
    check(server, floods).await;
}
