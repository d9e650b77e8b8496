//! Clients that send more than fits, and clients that do not read.

use std::time::Duration;

use bytes::Bytes;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::clients_client::ClientsClient;
use farpool_proto::v1::{
    AgentOutput, ClientFrame, ClientMessage, ClosePool, Credit, EventFrame, OpenJob, OpenPool, OutputStream,
    PoolReopened, Program, StatusReply, Variable,
};
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::agent::{Agent, Report};
use crate::client::{Client, Event, Request, batch, open_pool_as};
use crate::server::{Server, soon};

const MIB: usize = 1 << 20;

/// A client whose job has this many items of 1 MiB each, sent as fast as they are accepted.
async fn flood(server: &Server, items: u64) -> Client {
    let client = Client::open(server).await;
    client.open_job(1);
    let item = vec![7; MIB];
    for index in 0..items {
        client.items(1, index, &[&item]);
    }
    client.end_items(1);
    client
}

#[tokio::test]
async fn the_memory_is_bounded_and_nothing_is_dropped() {
    const MEMORY: u64 = 32 << 20;
    const ITEMS: u64 = 40;
    let server = Server::with(|settings| {
        settings.memory = MEMORY;
        settings.window = 1 << 30;
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(flood(&server, ITEMS).await);
    }
    // They would send 160 MiB, but are stopped when the memory is full.
    let full = server.until("a full memory", |status| status.held_bytes > MEMORY).await;
    sleep(Duration::from_millis(300)).await;
    let later = server.status().await;
    let most = MEMORY + MEMORY / 10 + 4 * (3 << 20);
    assert!(full.held_bytes < most && later.held_bytes < most, "{} and {}", full.held_bytes, later.held_bytes);
    let _agent = Agent::echo(&server, 1, 2).await;
    // All of them read: otherwise their sessions end while the memory is full.
    let reading = clients.into_iter().map(|mut client| {
        tokio::spawn(async move {
            let results = client.results(1).await;
            assert!(results.len() as u64 == ITEMS && results.iter().all(|result| result.len() == MIB));
            client
        })
    });
    let reading: Vec<_> = reading.collect();
    // A client with a small job is served meanwhile.
    Client::open(&server).await.check_works(1).await;
    let mut clients = Vec::new();
    for client in reading {
        clients.push(client.await.expect("not all results arrived"));
    }
    let held = server.until("an empty memory", |status| status.jobs.is_empty()).await.held_bytes;
    // The latest results are not acknowledged.
    assert!(held < 4 * (3 << 20), "{held}");
}

#[tokio::test]
async fn a_client_that_does_not_read_slows_only_itself() {
    const ITEMS: u64 = 3000;
    let server = Server::start().await;
    let mut agent = Agent::joined(&server, 1, 2).await;
    // 300 MiB of results.
    agent.times = 100;
    let _agent = tokio::spawn(agent.work());
    let mut slow = Client::open(&server).await;
    slow.open_job(1);
    let item = vec![7; 1000];
    for index in 0..ITEMS {
        slow.items(1, index, &[&item]);
    }
    slow.end_items(1);
    // It stops where its queue is full, not where the job ends.
    let done = |status: &StatusReply| status.jobs.first().map_or(0, |job| job.done);
    let (mut before, mut now) = (0, 1);
    while before != now {
        before = now;
        sleep(Duration::from_millis(300)).await;
        let status = server.status().await;
        now = done(&status);
        assert!(status.held_bytes < 120 << 20, "{}", status.held_bytes);
    }
    assert!(now < ITEMS, "everything ran although the results were not read");
    let mut neighbour = Client::open(&server).await;
    neighbour.check_works(1).await;
    let results = slow.results(1).await;
    assert!(results.len() as u64 == ITEMS && results.iter().all(|result| result.len() == 100_000));
}

/// Its job has 60 MiB of results, all of which an agent would send at once.
#[tokio::test]
async fn a_client_that_does_not_read_while_the_memory_is_full_is_ended() {
    const ITEMS: u64 = 60;
    let server = Server::with(|settings| {
        settings.memory = 24 << 20;
        settings.heartbeat_timeout = Duration::from_secs(1);
    })
    .await;
    let mut agent = Agent::joined(&server, 1, 2).await;
    agent.send(Report::Credit(Credit { chunks: 1000, bytes: 0 }));
    agent.times = 100;
    let _agent = tokio::spawn(agent.work());
    let mut slow = Client::open(&server).await;
    slow.send(Request::OpenJob(Box::new(OpenJob { job: 1, chunksize: 1, ..OpenJob::default() })));
    let item = vec![7; MIB / 100];
    (0..ITEMS).for_each(|index| slow.items(1, index, &[&item]));
    slow.end_items(1);
    server.until("a full memory", |status| status.held_bytes > 18 << 20).await;
    // The same agent sends this client's results after those of the slow one.
    Client::open(&server).await.check_works(1).await;
    slow.must_be_refused(tonic::Code::ResourceExhausted, "does not take its own").await;
    server.until("an empty memory", |status| status.held_bytes == 0).await;
}

/// A client that reads what it is sent, but never acknowledges it.
struct NeverAcknowledges {
    sending: mpsc::Sender<ClientFrame>,
    events: Streaming<EventFrame>,
}

impl NeverAcknowledges {
    /// Connects a client with an open pool, which has acknowledged where the pool starts.
    async fn open(server: &Server, id: u8) -> Self {
        let pool = ClientMessage { body: Some(Body::OpenPool(Box::new(open_pool_as(id)))) };
        let frame = ClientFrame { messages: vec![pool].into(), ..ClientFrame::default() };
        let (sending, requests) = mpsc::channel(1);
        sending.send(frame).await.expect("the channel is closed");
        let mut client = ClientsClient::new(server.connect().await).max_decoding_message_size(64 << 20);
        let events = client.session(ReceiverStream::new(requests)).await.expect("the session was refused").into_inner();
        let mut mute = Self { sending, events };
        let mut received = 0;
        while received < 2 {
            let frame = soon("the welcome", mute.events.message())
                .await
                .expect("the stream failed")
                .expect("the session ended");
            received += frame.messages.len() as u64;
        }
        mute.send(ClientFrame { received, ..ClientFrame::default() }).await;
        mute
    }

    async fn send(&self, frame: ClientFrame) {
        self.sending.send(frame).await.expect("the channel is closed");
    }
}

#[tokio::test]
async fn a_client_that_never_acknowledges_is_sent_only_its_window() {
    let server = Server::with(|settings| settings.memory = 24 << 20).await;
    let mut agent = Agent::joined(&server, 1, 1).await;
    let mut mute = NeverAcknowledges::open(&server, 5).await;
    let pool = agent.pool().await;
    let line = [&[b'x'; 99_999][..], b"\n"].concat();
    for _ in 0..600 {
        let (stream, data) = (OutputStream::Stdout.into(), line.clone().into());
        agent.send(Report::Output(AgentOutput { pool, pid: 1, stream, data }));
    }
    while agent.out.waiting() > 0 {
        sleep(Duration::from_millis(10)).await;
    }
    let _agent = tokio::spawn(agent.work());
    Client::open(&server).await.check_works(1).await;
    assert!(server.status().await.held_bytes < 8 << 20);
    let mut read = 0;
    while let Ok(frame) = timeout(Duration::from_millis(300), mute.events.message()).await {
        read += frame.expect("the stream failed").expect("the session ended").encoded_len();
    }
    // A quarter of the memory, and a frame.
    assert!(read > 1 << 20 && read < 7 << 20, "{read} bytes were sent");
}

/// A message larger than the window is sent as a whole.
#[tokio::test]
async fn a_client_that_never_acknowledges_much_is_ended() {
    let server = Server::with(|settings| {
        settings.memory = 32 << 20;
        settings.heartbeat_timeout = Duration::from_secs(1);
    })
    .await;
    let mut agent = Agent::joined(&server, 1, 2).await;
    agent.times = 12;
    let agent = tokio::spawn(agent.work());
    let mut mute = NeverAcknowledges::open(&server, 5).await;
    let ask = |body| ClientMessage { body: Some(body) };
    let job = ask(Body::OpenJob(Box::new(OpenJob { job: 1, ..OpenJob::default() })));
    let item = ask(Request::Items(batch(1, 0, &[&vec![7; MIB]])));
    mute.send(ClientFrame { messages: vec![job, item].into(), ..ClientFrame::default() }).await;
    let mut read = 0;
    while read < 12 * MIB {
        let frame =
            soon("the result", mute.events.message()).await.expect("the stream failed").expect("the session ended");
        read += frame.encoded_len();
    }
    agent.abort();
    // Another client fills the memory.
    let _other = flood(&server, 40).await;
    let end = loop {
        match soon("the session's end", mute.events.message()).await {
            Ok(frame) => assert!(frame.is_some(), "the session ended without a status"),
            Err(status) => break status,
        }
    };
    assert!(end.message().contains("does not take its own"), "{end}");
}

#[tokio::test]
async fn unread_output_is_dropped_and_counted() {
    const LINES: usize = 2000;
    let server = Server::with(|settings| settings.memory = 64 << 20).await;
    let mut agent = Agent::joined(&server, 1, 1).await;
    let mut client = Client::open(&server).await;
    let pool = agent.pool().await;
    let line = [&[b'x'; 99_999][..], b"\n"].concat();
    for _ in 0..LINES {
        let (stream, data) = (OutputStream::Stdout.into(), line.clone().into());
        agent.send(Report::Output(AgentOutput { pool, pid: 1, stream, data }));
    }
    // All of it is in flight when the agent's queue is empty; later messages are behind it.
    while agent.out.waiting() > 0 {
        sleep(Duration::from_millis(10)).await;
    }
    // HTTP/2 holds some of it for the client, which is kept until the client acknowledges it.
    assert!(server.status().await.held_bytes < 14 << 20);
    let (mut read, mut left_out) = (0, 0);
    while read + left_out < LINES * line.len() {
        match client.next().await {
            Event::Output(output) if output.host == "coordinator" => {
                let text = String::from_utf8(output.data.to_vec()).expect("the output is not UTF-8");
                assert!(text.contains("bytes of the workers' output were not read in time"), "{text}");
                let bytes = text.split(' ').nth(1).and_then(|bytes| bytes.parse::<usize>().ok());
                left_out += bytes.expect("the output does not say how much");
            }
            Event::Output(output) => read += output.data.len(),
            other => panic!("unexpected event instead of output: {other:?}"),
        }
    }
    assert_eq!(read + left_out, LINES * line.len());
    assert!(read > 0 && left_out > 0, "{read} and {left_out}");
}

#[tokio::test]
async fn a_chunk_larger_than_the_free_memory_still_runs() {
    const MEMORY: u64 = 32 << 20;
    let server = Server::with(|settings| {
        settings.memory = MEMORY;
        settings.window = 1 << 20;
    })
    .await;
    let _agent = Agent::echo(&server, 1, 2).await;
    let item = vec![7; MIB];
    let mut clients = Vec::new();
    for _ in 0..3 {
        let client = Client::open(&server).await;
        // Three chunks of 15 MiB: none is complete when the memory is full.
        client.send(Request::OpenJob(Box::new(OpenJob { job: 1, chunksize: 15, ..OpenJob::default() })));
        clients.push(client);
    }
    for index in 0..15 {
        clients.iter().for_each(|client| client.items(1, index, &[&item]));
    }
    clients.iter().for_each(|client| client.end_items(1));
    let reading = clients.into_iter().map(|mut client| tokio::spawn(async move { client.results(1).await.len() }));
    for results in reading.collect::<Vec<_>>() {
        assert_eq!(results.await.expect("the results did not arrive"), 15);
    }
}

/// Fills the memory with parts of chunks: each client has sent this many items of 1 MiB, and has more to send. Returns the server, its
/// agent, the clients and an item. The client that holds most is favoured first.
async fn full_of_parts<const N: usize>(
    parts: [(u64, u64); N],
) -> (Server, JoinHandle<Result<(), Status>>, Vec<Client>, Vec<u8>) {
    let server = Server::with(|settings| {
        settings.memory = 24 << 20;
        settings.window = 1 << 30;
    })
    .await;
    let agent = Agent::echo(&server, 1, 2).await;
    let item = vec![7; MIB];
    let mut clients = Vec::new();
    for (items, chunksize) in parts {
        let client = Client::open(&server).await;
        client.send(Request::OpenJob(Box::new(OpenJob { job: 1, chunksize, ..OpenJob::default() })));
        (0..items).for_each(|index| client.items(1, index, &[&item]));
        clients.push(client);
        sleep(Duration::from_millis(300)).await;
    }
    server.until("a full memory", |status| status.held_bytes > 24 << 20).await;
    (server, agent, clients, item)
}

/// Two clients send only a few bytes from time to time. The third one, which completes its chunk, does not wait for them.
#[tokio::test]
async fn a_client_that_trickles_in_its_turn_loses_it() {
    let (_server, _agent, mut clients, item) = full_of_parts([(11, 1000), (9, 1000), (8, 12)]).await;
    let mut last = clients.pop().expect("fewer than three clients");
    let trickle = tokio::spawn(async move {
        for index in 11.. {
            clients.iter().for_each(|client| client.items(1, index, &[&[7; 100]]));
            sleep(Duration::from_millis(200)).await;
        }
    });
    (8..12).for_each(|index| last.items(1, index, &[&item]));
    last.end_items(1);
    assert_eq!(last.results(1).await.len(), 12);
    trickle.abort();
}

/// The same with clients that stop in the middle of a chunk.
#[tokio::test]
async fn a_client_that_falls_silent_in_its_turn_loses_it() {
    let (_server, _agent, mut clients, item) = full_of_parts([(11, 12), (9, 12), (8, 12)]).await;
    let mut last = clients.pop().expect("fewer than three clients");
    (8..12).for_each(|index| last.items(1, index, &[&item]));
    last.end_items(1);
    assert_eq!(last.results(1).await.len(), 12);
    // The others lose nothing.
    for (mut client, items) in clients.into_iter().zip([11, 9]) {
        (items..12).for_each(|index| client.items(1, index, &[&item]));
        client.end_items(1);
        assert_eq!(client.results(1).await.len(), 12);
    }
}

#[tokio::test]
async fn a_chunk_larger_than_the_memory_ends_its_session() {
    let server = Server::with(|settings| {
        settings.memory = 16 << 20;
        settings.window = 1 << 20;
    })
    .await;
    let _agent = Agent::echo(&server, 1, 2).await;
    let mut client = Client::open(&server).await;
    client.send(Request::OpenJob(Box::new(OpenJob { job: 1, chunksize: 100, ..OpenJob::default() })));
    let item = vec![7; MIB];
    (0..100).for_each(|index| client.items(1, index, &[&item]));
    client.must_be_refused(tonic::Code::ResourceExhausted, "--memory").await;
    Client::open(&server).await.check_works(1).await;
}

/// Clients that wait for each other until all of their pools are reopened.
#[tokio::test]
async fn resent_items_may_take_all_of_the_memory() {
    const ITEMS: u64 = 24;
    let server = Server::with(|settings| settings.memory = 32 << 20).await;
    let _agent = Agent::echo(&server, 1, 2).await;
    let item = vec![7; MIB];
    let mut clients = Vec::new();
    for id in 1..=4 {
        let client = Client::opened(&server, OpenPool { again: true, ..open_pool_as(id) }).await;
        client.open_job(1);
        clients.push(client);
    }
    for index in 0..ITEMS {
        clients.iter().for_each(|client| client.items(1, index, &[&item]));
    }
    for client in &clients {
        client.send(Request::PoolReopened(PoolReopened {}));
        client.end_items(1);
    }
    // Each has to acknowledge in time where its pool runs.
    let taking =
        clients.into_iter().map(|mut client| tokio::spawn(async move { client.results(1).await.len() as u64 }));
    for taken in taking.collect::<Vec<_>>() {
        assert_eq!(soon("the results", taken).await.expect("not all results arrived"), ITEMS);
    }
}

#[tokio::test]
async fn resent_items_are_bounded_too() {
    let server = Server::with(|settings| settings.memory = 16 << 20).await;
    let _agent = Agent::echo(&server, 1, 2).await;
    let mut client = Client::opened(&server, OpenPool { again: true, ..open_pool_as(1) }).await;
    client.open_job(1);
    let item = vec![7; MIB];
    (0..100).for_each(|index| client.items(1, index, &[&item]));
    client.must_be_refused(tonic::Code::ResourceExhausted, "--memory").await;
    Client::open(&server).await.check_works(1).await;
}

/// Opens a job that counts as 13 KiB: 10 KiB for its function, and 3 KiB for the job.
fn open_large_job(client: &Client, job: u64) {
    client.send(Request::OpenJob(Box::new(OpenJob { job, function: vec![7; 10 << 10].into(), ..OpenJob::default() })));
}

#[tokio::test]
async fn very_many_jobs_wait_for_memory_and_none_is_lost() {
    const MEMORY: u64 = 4 << 20;
    const JOBS: u64 = 1500;
    // The jobs that fit, and some frames of two dozen each that were being read.
    const MOST: usize = 330 + 150;
    let server = Server::with(|settings| settings.memory = MEMORY).await;
    let mut client = Client::open(&server).await;
    for job in 0..JOBS {
        open_large_job(&client, job);
        client.items(job, 0, &[b"x"]);
        client.end_items(job);
    }
    let full = server.until("a full memory", |status| status.held_bytes > MEMORY).await;
    assert!(full.jobs.len() <= MOST, "{} jobs are open", full.jobs.len());
    let _agent = Agent::echo(&server, 1, 8).await;
    let (mut done, mut ended) = (0, 0);
    while ended < JOBS {
        match client.next().await {
            Event::ItemsDone(_) => done += 1,
            Event::JobEnded(job) => ended += u64::from(!job.cancelled),
            other => panic!("unexpected event instead of an outcome: {other:?}"),
        }
    }
    assert_eq!(done, JOBS);
}

#[tokio::test]
async fn jobs_that_wait_for_their_items_do_not_block_them() {
    const JOBS: u64 = 450;
    let server = Server::with(|settings| settings.memory = 4 << 20).await;
    let _agent = Agent::echo(&server, 1, 8).await;
    let mut client = Client::open(&server).await;
    (0..JOBS).for_each(|job| open_large_job(&client, job));
    for job in 0..JOBS {
        client.items(job, 0, &[b"x"]);
        client.end_items(job);
    }
    let mut ended = 0;
    while ended < JOBS {
        ended += u64::from(matches!(client.next().await, Event::JobEnded(_)));
    }
}

#[tokio::test]
async fn a_message_larger_than_the_memory_is_refused() {
    let server = Server::with(|settings| settings.memory = 16 << 20).await;
    let mut client = Client::open(&server).await;
    client.open_job(1);
    client.items(1, 0, &[&vec![7; 9 * MIB]]);
    client.must_be_refused(tonic::Code::ResourceExhausted, "the limit is").await;
}

/// Openings are held as long as pools are: a pool's description of its program counts, however it is encoded.
#[tokio::test]
async fn openings_count_with_the_memory_they_take() {
    let server = Server::with(|settings| settings.memory = 16 << 20).await;
    let variable = Variable { name: Bytes::from_static(b"a"), value: vec![b'x'; 20].into() };
    let environment = vec![variable; 60_000];
    let program = Program { digest: vec![7; 32].into(), size: 10, environment, ..Program::default() }.packed();
    let each = program.len();
    let open = async |number| {
        let client = Client::over(server.connect().await).await;
        client.send(Body::OpenPool(Box::new(OpenPool { program: program.clone(), ..open_pool_as(number) })));
        client
    };
    let (mut opened, mut refused) = (Vec::new(), 0);
    for number in 0..10 {
        let mut client = open(number).await;
        match client.try_next().await {
            Ok(_) => opened.push(client),
            Err(status) => {
                assert!(status.message().contains("memory is full"), "{status}");
                refused += 1;
            }
        }
    }
    // Half of the memory.
    assert_eq!((opened.len(), refused), ((8 << 20) / each, 10 - (8 << 20) / each));
    // What was opened is no longer held when the pool is closed, although the client does not end the session.
    opened[0].send(Body::ClosePool(ClosePool { now: false }));
    while !matches!(opened[0].next().await, Event::PoolClosed(_)) {}
    let mut client = open(10).await;
    assert!(matches!(client.try_next().await, Ok(Some(Event::Welcome(_)))));
}
