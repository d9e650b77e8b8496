//! Sessions that survive broken connections.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use farpool_proto::v1::clients_client::ClientsClient;
use farpool_proto::v1::{ClientFrame, ClientMessage, OpenJob, Resume, Version};
use farpool_testkit::cable::Cable;
use h2::Reason;
use tokio::time::sleep;
use tonic::{Code, Status};

use crate::agent::{Agent, Command, hello};
use crate::client::{Client, Event, Request, cut, id, open_pool_as, secret};
use crate::raw::{begin, framed};
use crate::server::{Server, connect, soon};

/// In these tests no session of a disconnected peer is closed, unless a test waits for that.
const LONG: Duration = Duration::from_secs(600);

async fn patient() -> Server {
    Server::with(|settings| settings.reconnect_grace = LONG).await
}

/// Reads results until there are `until`. Each must be a new number. Returns false if the connection broke.
async fn gather(client: &mut Client, seen: &mut BTreeSet<u64>, until: usize) -> bool {
    while seen.len() < until {
        match client.try_next().await {
            Ok(Some(Event::ItemsDone(done))) => {
                for (index, item) in (done.first..).zip(cut(&done.data, 0, &done.ends)) {
                    assert_eq!(item, index.to_le_bytes());
                    assert!(seen.insert(index), "{index} arrived twice");
                }
            }
            Ok(Some(Event::ItemsFailed(failed))) => panic!("{failed:?}"),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return false,
        }
    }
    true
}

#[tokio::test]
async fn a_client_loses_its_connection_repeatedly_and_nothing_else() {
    const ROUNDS: u64 = 15;
    const ITEMS: u64 = 200;
    let server = patient().await;
    let cable = Cable::to(server.address);
    let _agents = (Agent::echo(&server, 1, 2).await, Agent::echo(&server, 2, 2).await);
    let mut client = Client::opened_over(connect(cable.socket()).await, open_pool_as(9)).await;
    client.open_job(1);
    let mut seen = BTreeSet::new();
    for round in 0..ROUNDS {
        for index in round * ITEMS..(round + 1) * ITEMS {
            client.items(1, index, &[&index.to_le_bytes()]);
        }
        // Some are in flight in either direction, some are not sent, some results have arrived.
        let until = seen.len() + (round as usize % 4) * 40;
        assert!(gather(&mut client, &mut seen, until).await, "nothing was cut");
        cable.cut();
        if round % 3 == 0 {
            sleep(Duration::from_millis(20)).await;
        }
        client.resume(connect(cable.socket()).await, 9).await.expect("the session ended");
    }
    client.end_items(1);
    assert!(gather(&mut client, &mut seen, (ROUNDS * ITEMS) as usize).await);
    assert!(matches!(client.next().await, Event::JobEnded(ended) if ended.job == 1));
    client.check_works(2).await;
    client.close().await;
}

/// Has an agent echo items over a cable that is cut after every few commands.
async fn echo_over_cuts(cable: Cable, mut agent: Agent, cuts: usize) -> Result<(), Status> {
    let mut left = cuts;
    loop {
        match agent.next().await {
            Ok(Some(commands)) => commands.into_iter().for_each(|command| agent.execute(command)),
            Ok(None) | Err(_) if left < cuts => {
                agent.resume(connect(cable.socket()).await, 1).await?;
                continue;
            }
            end => return end.map(|_| ()),
        }
        if left > 0 {
            left -= 1;
            cable.cut();
        }
    }
}

#[tokio::test]
async fn an_agent_loses_its_connection_repeatedly_and_nothing_else() {
    const ITEMS: u64 = 500;
    let server = patient().await;
    let cable = Cable::to(server.address);
    let agent = Agent::joined_over(connect(cable.socket()).await, hello(1, 2)).await;
    let agent = tokio::spawn(echo_over_cuts(cable, agent, 40));
    let mut client = Client::open(&server).await;
    client.send(Request::OpenJob(Box::new(OpenJob { job: 1, chunksize: 1, ..OpenJob::default() })));
    for index in 0..ITEMS {
        client.items(1, index, &[&index.to_le_bytes()]);
    }
    client.end_items(1);
    let mut seen = BTreeSet::new();
    assert!(gather(&mut client, &mut seen, ITEMS as usize).await);
    assert!(matches!(client.next().await, Event::JobEnded(_)));
    let status = server.status().await;
    // It was a single session: nothing was assigned twice.
    assert_eq!((status.late_messages, status.agents.len(), status.agents[0].items_done), (0, 1, ITEMS));
    agent.abort();
}

#[tokio::test]
async fn a_disconnected_agent_gets_nothing_new() {
    let server = patient().await;
    let cable = Cable::to(server.address);
    let mut agent = Agent::joined_over(connect(cable.socket()).await, hello(1, 1)).await;
    let mut client = Client::open(&server).await;
    agent.pool().await;
    cable.cut();
    server.until("the agent's absence", |status| status.agents[0].away).await;
    client.open_job(1);
    client.items(1, 0, &[b"item"]);
    client.end_items(1);
    server.until("the item", |status| status.jobs.first().is_some_and(|job| job.items == 1)).await;
    sleep(Duration::from_millis(50)).await;
    let status = server.status().await;
    assert_eq!((status.agents[0].chunks, status.jobs[0].assigned), (0, 0));
    agent.resume(connect(cable.socket()).await, 1).await.expect("the session ended");
    let _agent = tokio::spawn(agent.work());
    assert_eq!(client.results(1).await, [b"item"]);
    assert!(!server.status().await.agents[0].away);
}

#[tokio::test]
async fn the_session_of_a_peer_that_does_not_reconnect_in_time_is_closed() {
    let server = Server::with(|settings| settings.reconnect_grace = Duration::from_millis(300)).await;
    let cable = Cable::to(server.address);
    let mut agent = Agent::joined_over(connect(cable.socket()).await, hello(1, 1)).await;
    let mut client = Client::opened_over(connect(cable.socket()).await, open_pool_as(9)).await;
    agent.pool().await;
    let begin = Instant::now();
    cable.cut();
    server.until("the end of both", |status| status.agents.is_empty() && status.pools.is_empty()).await;
    assert!(begin.elapsed() >= Duration::from_millis(290), "{:?}", begin.elapsed());
    let status = agent.resume(connect(cable.socket()).await, 1).await.expect_err("the closed session was resumed");
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    let status = client.resume(connect(cable.socket()).await, 9).await.expect_err("the closed session was resumed");
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
}

#[tokio::test]
async fn a_connection_whose_loss_is_unnoticed_is_replaced() {
    let server = patient().await;
    let cable = Cable::to(server.address);
    let mut agent = Agent::joined_over(connect(cable.socket()).await, hello(1, 1)).await;
    let mut client = Client::opened_over(connect(cable.socket()).await, open_pool_as(9)).await;
    agent.pool().await;
    cable.freeze();
    client.open_job(1);
    client.items(1, 0, &[b"item"]);
    client.end_items(1);
    agent.resume(connect(cable.socket()).await, 1).await.expect("the session ended");
    client.resume(connect(cable.socket()).await, 9).await.expect("the session ended");
    let _agent = tokio::spawn(agent.work());
    assert_eq!(client.results(1).await, [b"item"]);
    // The old connections end at last, which has no effect.
    cable.cut();
    client.resume(connect(cable.socket()).await, 9).await.expect("the session ended");
    let status = server.status().await;
    assert_eq!((status.agents.len(), status.pools.len()), (1, 1));
}

#[tokio::test]
async fn a_peer_that_is_silent_for_too_long_gets_no_grace() {
    let server = Server::with(|settings| {
        settings.reconnect_grace = LONG;
        settings.heartbeat_timeout = Duration::from_millis(600);
    })
    .await;
    let cable = Cable::to(server.address);
    let _agent = Agent::joined_over(connect(cable.socket()).await, hello(1, 1)).await;
    let _client = Client::opened_over(connect(cable.socket()).await, open_pool_as(9)).await;
    cable.freeze();
    server.until("the end of both", |status| status.agents.is_empty() && status.pools.is_empty()).await;
}

#[tokio::test]
async fn a_peer_that_ends_its_stream_is_gone_at_once() {
    let server = patient().await;
    // It ends its stream, but stays connected.
    let client = Client::opened_over(server.connect().await, open_pool_as(9)).await;
    client.out.finish();
    server.until("the end of the pool", |status| status.pools.is_empty()).await;
    let agent = Agent::joined(&server, 1, 1).await;
    drop(agent);
    server.until("the end of the agent", |status| status.agents.is_empty()).await;
}

#[tokio::test]
async fn a_dropped_call_ends_its_session_and_a_broken_one_does_not() {
    let server = patient().await;
    let open = ClientMessage { body: Some(Request::OpenPool(Box::new(open_pool_as(9)))) };
    let first = framed(&ClientFrame { messages: vec![open].into(), ..ClientFrame::default() });
    for (reason, meant) in [(Reason::CANCEL, true), (Reason::INTERNAL_ERROR, false)] {
        let (response, mut sending) = begin(&server, "Clients/Session", first.clone(), false).await;
        let response = soon("the answer", response).await.expect("the call was refused");
        server.until("the pool", |status| status.pools.len() == 1).await;
        sending.send_reset(reason);
        if meant {
            server.until("the end of the pool", |status| status.pools.is_empty()).await;
        } else {
            sleep(Duration::from_millis(100)).await;
            assert_eq!(server.status().await.pools.len(), 1, "{reason}");
        }
        drop(response);
    }
}

/// Opens a session with this first frame, and returns the status with which it ends.
async fn first_frame(server: &Server, frame: ClientFrame) -> Status {
    let stream = tokio_stream::StreamExt::chain(tokio_stream::once(frame), tokio_stream::pending());
    let reply = ClientsClient::new(server.connect().await).session(stream).await.expect("the call was refused");
    let mut replies = reply.into_inner();
    loop {
        match soon("the end of the session", replies.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the session ended without an error"),
            Err(status) => return status,
        }
    }
}

#[tokio::test]
async fn invalid_resumes_are_refused_without_side_effects() {
    let server = patient().await;
    let _agent = Agent::echo(&server, 1, 1).await;
    let mut client = Client::opened_over(server.connect().await, open_pool_as(9)).await;
    let right = || Resume { secret: secret(9), version: Some(farpool_proto::version()), received: 0 };
    let other = Some(Version { release: "9.8.7".to_owned(), protocol: 99 });
    let cases = [
        (Resume { secret: secret(8), ..right() }, Code::NotFound, "does not know this session"),
        // The secret of an agent's session does not resume a client's.
        (Resume { secret: secret(1), ..right() }, Code::NotFound, "does not know this session"),
        // The id is not the secret.
        (Resume { secret: [id(9), id(9)].concat().into(), ..right() }, Code::NotFound, "does not know this session"),
        (Resume { secret: id(9), ..right() }, Code::InvalidArgument, "secret of 16 bytes"),
        (Resume { secret: vec![].into(), ..right() }, Code::InvalidArgument, "secret of 0 bytes"),
        (Resume { version: None, ..right() }, Code::FailedPrecondition, "version"),
        (Resume { version: other, ..right() }, Code::FailedPrecondition, "9.8.7"),
        (Resume { received: 1_000_000, ..right() }, Code::InvalidArgument, "has received 1000000 messages"),
        (Resume { received: u64::MAX, ..right() }, Code::InvalidArgument, "has received"),
    ];
    for (job, (resume, code, words)) in (1..).zip(cases) {
        let status = first_frame(&server, ClientFrame { resume: Some(resume), ..ClientFrame::default() }).await;
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(words), "{status:?}");
        client.check_works(job).await;
    }
}

#[tokio::test]
async fn a_flood_of_resumes_and_hellos_affects_no_other_session() {
    let server = patient().await;
    let _agent = Agent::echo(&server, 1, 1).await;
    let mut client = Client::opened_over(server.connect().await, open_pool_as(9)).await;
    let resume = Resume { secret: secret(7), version: Some(farpool_proto::version()), received: 0 };
    let frame = ClientFrame { resume: Some(resume), ..ClientFrame::default() };
    for job in 1..=10 {
        for _ in 0..10 {
            let agent = Agent::joined(&server, 5, 1).await;
            assert_eq!(first_frame(&server, frame.clone()).await.code(), Code::NotFound);
            drop(agent);
        }
        client.check_works(job).await;
    }
    server.until("the end of the others", |status| status.agents.len() == 1).await;
}

#[tokio::test]
async fn reports_are_settled_when_the_client_acknowledges_their_outcomes() {
    let server = patient().await;
    let mut agent = Agent::joined(&server, 1, 1).await;
    let mut client = Client::opened_over(server.connect().await, open_pool_as(9)).await;
    let pool = agent.pool().await;
    client.open_job(1);
    client.items(1, 0, &[b"item"]);
    client.end_items(1);
    let commands = async |agent: &mut Agent| {
        soon("a command", agent.next()).await.expect("the session ended").expect("the session ended")
    };
    let mut given = false;
    while !given {
        for command in commands(&mut agent).await {
            given |= matches!(command, Command::Assign(_));
            agent.execute(command);
        }
    }
    assert_eq!(client.results(1).await, [b"item"]);
    // Its next message acknowledges the results.
    client.open_job(2);
    let settled = loop {
        let commands = commands(&mut agent).await;
        if let Some(Command::Settled(settled)) = commands.iter().find(|command| matches!(command, Command::Settled(_)))
        {
            break (settled.pool, settled.report);
        }
    };
    assert_eq!(settled, (pool, 1));
}
