//! A coordinator is killed and replaced: agents and clients restore its state.

use std::time::Duration;

use farpool_proto::v1::{
    AdoptPool, AgentHello, Assign, Chunk, HeldChunk, HeldPool, OpenJob, OpenPool, PoolReopened, PoolStopped, RunDone,
};
use farpool_testkit::cable::Cable;

use crate::agent::{Agent, Command, Report, hello};
use crate::client::{Client, Event, Request, id, open_pool_as};
use crate::server::{Server, connect, soon};

/// The bit that marks agents' own numbers.
pub(crate) const HELD: u64 = 1 << 63;

/// Starts a server with a short recovery timeout.
async fn server() -> Server {
    Server::with(|settings| settings.heartbeat_timeout = Duration::from_millis(1500)).await
}

/// Returns the first command that `pick` selects. Starts pools, and ignores other commands.
async fn until<T>(agent: &mut Agent, what: &str, mut pick: impl FnMut(&Command) -> Option<T>) -> T {
    loop {
        let commands = soon(what, agent.next()).await.expect("the session ended").expect("the session ended");
        let mut commands = commands.into_iter();
        while let Some(command) = commands.next() {
            if let Some(found) = pick(&command) {
                agent.put_back(commands);
                return found;
            }
            if matches!(command, Command::StartPool(_)) {
                agent.execute(command);
            }
        }
    }
}

pub(crate) async fn assigned(agent: &mut Agent) -> Assign {
    until(agent, "something to run", |command| match command {
        Command::Assign(assign) => Some(assign.clone()),
        _ => None,
    })
    .await
}

pub(crate) async fn adopted(agent: &mut Agent) -> AdoptPool {
    until(agent, "the pool's adoption", |command| match command {
        Command::AdoptPool(adopt) => Some((**adopt).clone()),
        _ => None,
    })
    .await
}

/// Sends what reopens a client's pool: a job, its items without an outcome, and PoolReopened.
fn reopen(client: &Client, first: u64, items: &[&[u8]]) {
    client.send(Request::OpenJob(Box::new(OpenJob { job: 1, chunksize: 1, retries: 2, ..OpenJob::default() })));
    client.items(1, first, items);
    client.end_items(1);
    client.send(Request::PoolReopened(PoolReopened {}));
}

fn reopened_pool(agents: &[u8]) -> OpenPool {
    let agents = agents.iter().map(|&agent| id(agent)).collect();
    OpenPool { again: true, agents, ..open_pool_as(9) }
}

fn holding(number: u8, chunks: Vec<HeldChunk>) -> AgentHello {
    let pool = HeldPool { pool: HELD, id: id(9), processes: 0, chunks, ..HeldPool::default() };
    AgentHello { held: vec![pool], ..hello(number, 1) }
}

fn held(chunk: u64, item: u64) -> HeldChunk {
    HeldChunk { chunk, job: 1, attempt: 1, first: item, runs: vec![item, 1] }
}

pub(crate) fn result_of(chunk: &Chunk, item: u64, bytes: &'static [u8]) -> Report {
    let ends = (bytes.len() as u32).to_le_bytes().to_vec().into();
    let (chunk, attempt) = (chunk.chunk, chunk.attempt);
    Report::RunDone(RunDone { chunk, attempt, first: item, data: bytes.into(), ends, busy_ns: 0, failed: false })
}

pub(crate) fn result(adopt: &AdoptPool, item: u64, bytes: &'static [u8]) -> Report {
    let [chunk] = &adopt.chunks[..] else { panic!("not exactly one chunk is adopted: {adopt:?}") };
    let ends = (bytes.len() as u32).to_le_bytes().to_vec().into();
    let (chunk, attempt) = (chunk.chunk, chunk.attempt);
    Report::RunDone(RunDone { chunk, attempt, first: item, data: bytes.into(), ends, busy_ns: 0, failed: false })
}

#[tokio::test]
async fn agents_and_clients_reconnect_and_continue() {
    let first = server().await;
    let cable = Cable::to(first.address);
    let mut agent = Agent::joined_over(connect(cable.socket()).await, hello(1, 1)).await;
    let mut client = Client::opened_over(connect(cable.socket()).await, open_pool_as(9)).await;
    client.send(Request::OpenJob(Box::new(OpenJob { job: 1, chunksize: 1, retries: 2, ..OpenJob::default() })));
    client.items(1, 0, &[b"a", b"b"]);
    client.end_items(1);
    // One of them runs.
    assert_eq!(assigned(&mut agent).await.chunks[0].first, 0);
    first.kill();
    let second = server().await;
    cable.cut();
    cable.redirect(second.address);
    // Agent and client learn that their sessions are lost when they try to resume them.
    assert_eq!(
        agent.resume(connect(cable.socket()).await, 1).await.map_err(|status| status.code()),
        Err(tonic::Code::NotFound)
    );
    assert_eq!(
        client.resume(connect(cable.socket()).await, 9).await.map_err(|status| status.code()),
        Err(tonic::Code::NotFound)
    );
    let mut agent = Agent::joined_over(connect(cable.socket()).await, holding(1, vec![held(70, 0)])).await;
    let mut client = Client::opened_over(connect(cable.socket()).await, reopened_pool(&[1])).await;
    reopen(&client, 0, &[b"a", b"b"]);
    let adopt = adopted(&mut agent).await;
    assert_eq!((adopt.held, adopt.chunks[0].held, adopt.jobs[0].number), (HELD, 70, 1));
    agent.send(result(&adopt, 0, b"A"));
    let _agent = tokio::spawn(agent.work());
    // The other item was never assigned. The agent of these tests echoes.
    assert_eq!(client.results(1).await, [b"A", b"b"]);
    client.close().await;
}

#[tokio::test]
async fn a_late_agent_keeps_what_is_still_queued() {
    let server = server().await;
    let mut client = Client::opened_over(server.connect().await, reopened_pool(&[1, 2])).await;
    let mut first = Agent::joined_over(server.connect().await, holding(1, vec![held(70, 0)])).await;
    reopen(&client, 0, &[b"a", b"b", b"c"]);
    // The recovery waits for the other agent, but not forever.
    let adopt = adopted(&mut first).await;
    let mut second = Agent::joined_over(server.connect().await, holding(2, vec![held(80, 1), held(81, 2)])).await;
    client.wait_for_agent(2).await;
    let late = adopted(&mut second).await;
    assert!(
        late.chunks.iter().all(|chunk| chunk.held == 81),
        "the first agent got the remaining items in order: {late:?}"
    );
    first.send(result(&adopt, 0, b"A"));
    let _agents = (tokio::spawn(first.work()), tokio::spawn(second.work()));
    // Nothing that the late agent held is lost, whether or not it was assigned to the other one meanwhile.
    drop(late);
    server.until("the first", |status| status.jobs.first().is_some_and(|job| job.done >= 1)).await;
    match client.next().await {
        Event::ItemsDone(done) => assert!(done.first <= 2),
        other => panic!("unexpected event instead of a result: {other:?}"),
    }
}

#[tokio::test]
async fn an_unclaimed_pool_is_stopped() {
    let server = server().await;
    let mut agent = Agent::joined_over(server.connect().await, holding(1, vec![held(70, 0)])).await;
    let stopped = until(&mut agent, "the pool's end", |command| match command {
        Command::StopPool(stop) => Some((stop.pool, stop.now)),
        _ => None,
    });
    assert_eq!(stopped.await, (HELD, true));
    agent.send(Report::PoolStopped(PoolStopped { pool: HELD }));
    let _agent = tokio::spawn(agent.work());
    Client::open(&server).await.check_works(1).await;
}

#[tokio::test]
async fn a_client_whose_session_was_closed_reopens_its_pool() {
    let server = Server::with(|settings| settings.reconnect_grace = Duration::from_millis(50)).await;
    let cable = Cable::to(server.address);
    let agent = Agent::echo(&server, 1, 1).await;
    let client = Client::opened_over(connect(cable.socket()).await, open_pool_as(9)).await;
    cable.cut();
    server.until("the pool's end", |status| status.pools.is_empty()).await;
    drop(client);
    let mut client = Client::opened_over(connect(cable.socket()).await, reopened_pool(&[1])).await;
    reopen(&client, 3, &[b"d", b"e"]);
    assert_eq!(client.results(1).await, [b"d", b"e"]);
    agent.abort();
}

#[tokio::test]
async fn a_reopened_pool_replaces_the_existing_session() {
    let server = server().await;
    let _agent = Agent::echo(&server, 1, 1).await;
    let mut old = Client::opened_over(server.connect().await, open_pool_as(9)).await;
    old.check_works(1).await;
    let mut new = Client::opened_over(server.connect().await, reopened_pool(&[1])).await;
    old.must_be_refused(tonic::Code::Aborted, "opened in another session").await;
    reopen(&new, 0, &[b"a"]);
    assert_eq!(new.results(1).await, [b"a"]);
    server.until("one pool", |status| status.pools.len() == 1).await;
}
