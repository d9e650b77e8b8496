//! Reading outcomes: in order, as they arrive, and without cost to others.

use farpool_proto::v1::clients_client::ClientsClient;
use farpool_proto::v1::{AwaitingItems, Failure, FailureKind, ItemFault, Label, Ticket, Version};
use farpool_testkit::cable::Cable;
use tokio_stream::StreamExt;
use tonic::Code;

use super::*;
use crate::agent::{Agent, Command, Report};
use crate::client::{id, secret};
use crate::restart::{assigned, result_of};
use crate::server::connect;

#[tokio::test]
async fn a_client_that_waits_gets_outcomes_in_order_and_others_get_those_that_exist() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    let mut job = detach("one", 1);
    let open = &mut job.job;
    (open.chunksize, open.retries) = (1, 0);
    detached(&server, job, 4).await;
    let mut agent = Agent::joined(&server, 1, 2).await;
    let mut chunks = Vec::new();
    while chunks.len() < 4 {
        chunks.extend(assigned(&mut agent).await.chunks);
    }
    let mut waits = attach(server.connect().await, "one", 0, true).await;
    assert!(matches!(waits.next().await, Event::DetachedJob(_)));
    agent.send(result_of(&chunks[1], 1, b"B"));
    let failure = Failure { kind: FailureKind::Panicked.into(), message: "oh".to_owned(), ..Failure::default() };
    let (chunk, attempt) = (chunks[3].chunk, chunks[3].attempt);
    agent.send(Report::ItemFault(Box::new(ItemFault { chunk, attempt, item: 3, failure: Some(failure) })));
    let two = vec![(1, Ok(b"B".to_vec())), (3, Err("oh".to_owned()))];
    loop {
        let (_, there, end) = outcomes(server.connect().await, "one", 0, false).await;
        assert_eq!(end, End::Open);
        if there.len() == 2 {
            assert_eq!(there, two);
            break;
        }
    }
    agent.send(result_of(&chunks[0], 0, b"A"));
    for item in [0, 1] {
        match waits.next().await {
            Event::ItemsDone(done) => assert_eq!((done.first, done.job, done.ends.len()), (item, 1, 4)),
            other => panic!("unexpected event: {other:?}"),
        }
    }
    agent.send(result_of(&chunks[2], 2, b"C"));
    let _agent = tokio::spawn(agent.work());
    let rest = rest(&mut waits).await;
    assert_eq!(rest, (vec![(2, Ok(b"C".to_vec())), (3, Err("oh".to_owned()))], End::Ended));
    let (job, from_two, _) = outcomes(server.connect().await, "one", 2, true).await;
    assert_eq!((from_two, job.failed), (rest.0, 1));
}

#[tokio::test]
async fn a_client_that_attaches_to_an_incomplete_job_gets_its_length_later() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    let mut client = detaching(server.connect().await, detach("one", 1)).await;
    assert_eq!(durable(&server, &mut client).await, (0, false));
    let mut waits = attach(server.connect().await, "one", 0, true).await;
    let mut told = async |state, items| match waits.next().await {
        Event::DetachedJob(job) => {
            assert_eq!((job.state(), job.items, job.detached_ms > 0), (state, items, state == DetachedState::Running));
        }
        other => panic!("unexpected event: {other:?}"),
    };
    told(DetachedState::Receiving, 0).await;
    send(&client, 0, 3);
    client.end_items(1);
    until_complete(&server, &mut client, 3).await;
    told(DetachedState::Running, 3).await;
    let _agent = Agent::echo(&server, 1, 1).await;
    assert_eq!(rest(&mut waits).await, (echoes(0..3), End::Ended));
}

#[tokio::test]
async fn a_client_that_does_not_read_takes_no_memory() {
    const MIB: usize = 1 << 20;
    let scratch = Scratch::new();
    let server = scratch.server_with(|settings| (settings.memory, settings.window) = (64 << 20, 4 << 20)).await;
    let mut agent = Agent::joined(&server, 1, 1).await;
    // Each result has 1 MiB.
    agent.times = MIB / 8;
    let _agent = tokio::spawn(agent.work());
    let mut job = detach("large", 1);
    job.job.chunksize = 1;
    detached(&server, job, 100).await;
    let mut idle = Vec::new();
    for _ in 0..10 {
        idle.push(attach(server.connect().await, "large", 0, true).await);
    }
    let (_, outcomes, end) = outcomes(server.connect().await, "large", 0, true).await;
    assert_eq!((outcomes.len(), end), (100, End::Ended));
    assert!(
        outcomes
            .iter()
            .all(|(index, result)| result.as_ref().is_ok_and(|result| *result == item(*index).repeat(MIB / 8)))
    );
    let held = server.status().await.held_bytes;
    assert!(held < 40 << 20, "{} MiB are held", held >> 20);
    for client in &mut idle {
        assert!(matches!(client.next().await, Event::DetachedJob(_)));
        let (outcomes, end) = rest(client).await;
        assert_eq!((outcomes.len(), end), (100, End::Ended));
    }
    server.until("nothing is held", |status| status.held_bytes == 0).await;
}

#[tokio::test]
async fn an_invalid_attach_is_refused() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    let mut nobody = attach(server.connect().await, "one", 0, true).await;
    nobody.must_be_refused(Code::NotFound, "there is no detached job \"one\"").await;
    detached(&server, detach("one", 1), 10).await;
    let mut talks = attach(server.connect().await, "one", 0, true).await;
    assert!(matches!(talks.next().await, Event::DetachedJob(_)));
    talks.end_items(1);
    talks.must_be_refused(Code::InvalidArgument, "may follow Attach").await;
    let mut talks = attach(server.connect().await, "one", 0, true).await;
    talks.send(Request::Attach(reading("one").into()));
    talks.must_be_refused(Code::InvalidArgument, "may follow Attach").await;
    let mut pool = Client::open(&server).await;
    pool.send(Request::Attach(reading("one").into()));
    pool.must_be_refused(Code::InvalidArgument, "Attach in a pool's session").await;
    let old = Version { release: "0.0.0".to_owned(), protocol: 1 };
    let mut old = attach_as(server.connect().await, Attach { version: Some(old), ..reading("one") }).await;
    old.must_be_refused(Code::FailedPrecondition, "0.0.0").await;
    let cut = Attach { secret: vec![7; 31].into(), ..reading("one") };
    let mut cut = attach_as(server.connect().await, cut).await;
    cut.must_be_refused(Code::InvalidArgument, "31 bytes").await;
    // A client that sends nothing more, not even acknowledgements, is served.
    let attach = Attach { wait: true, ..reading("one") };
    let message = farpool_proto::v1::ClientMessage { body: Some(Request::Attach(Box::new(attach))) };
    let frame = farpool_proto::v1::ClientFrame { messages: vec![message].into(), ..Default::default() };
    let frames = StreamExt::chain(tokio_stream::once(frame), tokio_stream::pending());
    let session = ClientsClient::new(server.connect().await).session(frames).await;
    let mut stream = session.expect("the session was refused").into_inner();
    let _agent = Agent::echo(&server, 1, 1).await;
    let mut items = 0;
    while let Some(frame) = soon("a frame", stream.message()).await.expect("the stream failed") {
        for event in &*frame.messages {
            if let Some(Event::ItemsDone(done)) = &event.body {
                items += done.ends.len() / 4;
            }
        }
    }
    assert_eq!(items, 10);
}

/// Waits for the next LendSlot; returns a byte of its ticket and whether to lend.
async fn lends(agent: &mut Agent) -> (u8, bool) {
    loop {
        for command in soon("a command", agent.next()).await.expect("the session ended").expect("the session ended") {
            match command {
                Command::LendSlot(lend) => return (lend.ticket[0], lend.lend),
                command => agent.execute(command),
            }
        }
    }
}

#[tokio::test]
async fn a_slot_is_lent_while_its_task_waits_for_an_unfinished_job() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    // No agent here may run it.
    let mut job = detach("one", 1);
    job.pool.require = vec![Label { key: "gpu".to_owned(), value: "yes".to_owned() }];
    detached(&server, job, 4).await;
    let mut agent = Agent::joined(&server, 1, 1).await;
    let ticket = |byte| Ticket { agent: id(1), id: vec![byte; 16].into() };
    let reader = async |byte| {
        let attach = Attach { wait: true, ticket: Some(ticket(byte)), ..reading("one") };
        let mut reader = attach_as(server.connect().await, attach).await;
        assert!(matches!(reader.next().await, Event::DetachedJob(_)));
        reader
    };
    let (first, second) = (reader(3).await, reader(4).await);
    let waits = |client: &Client, waits| client.send(Request::AwaitingItems(AwaitingItems { waits }));
    waits(&first, true);
    assert_eq!(lends(&mut agent).await, (3, true));
    waits(&second, true);
    assert_eq!(lends(&mut agent).await, (4, true));
    waits(&first, false);
    assert_eq!(lends(&mut agent).await, (3, false));
    // A client that disconnects no longer waits.
    drop(second);
    assert_eq!(lends(&mut agent).await, (4, false));
    waits(&first, true);
    assert_eq!(lends(&mut agent).await, (3, true));
    cancel(&server, "one").await.expect("cannot cancel the job");
    assert_eq!(lends(&mut agent).await, (3, false));
}

#[tokio::test]
async fn clients_that_do_not_read_share_a_part_of_the_memory() {
    const MEMORY: u64 = 64 << 20;
    let scratch = Scratch::new();
    let server = scratch.server_with(|settings| settings.memory = MEMORY).await;
    detached(&server, detach("large", 1), 8).await;
    let mut agent = Agent::joined(&server, 1, 2).await;
    // 4 MiB each.
    agent.times = (4 << 20) / item(0).len();
    let _agent = tokio::spawn(agent.work());
    assert_eq!(all(&server, "large").await.0.len(), 8);
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(attach(server.connect().await, "large", 0, true).await);
    }
    let mut most = 0;
    for _ in 0..20 {
        most = most.max(server.status().await.held_bytes);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(most < MEMORY / 2, "{most} bytes");
    // A client that reads gets everything, at the latest when the other sessions are ended.
    assert_eq!(all(&server, "large").await.0.len(), 8);
}

/// Each outcome arrives once, however often the connection is lost.
#[tokio::test]
async fn a_session_that_reads_outlives_its_connections() {
    const ITEMS: u64 = 300;
    let scratch = Scratch::new();
    let server = scratch.server_with(|settings| settings.reconnect_grace = Duration::from_secs(600)).await;
    let cable = Cable::to(server.address);
    let mut job = detach("one", 1);
    job.job.chunksize = 1;
    detached(&server, job, ITEMS).await;
    let _agent = Agent::echo(&server, 1, 2).await;
    let reader = Attach { wait: true, secret: secret(9), ..reading("one") };
    let mut reader = attach_as(connect(cable.socket()).await, reader).await;
    assert!(matches!(reader.next().await, Event::DetachedJob(_)));
    assert_eq!(reader.window, 0);
    let (mut next, mut cuts, mut ended) = (0, 0, false);
    loop {
        match reader.try_next().await {
            Ok(Some(Event::ItemsDone(done))) => {
                assert_eq!(done.first, next, "outcomes arrive in order, each once");
                assert_eq!(
                    cut(&done.data, 0, &done.ends),
                    (next..).map(item).take(done.ends.len() / 4).collect::<Vec<_>>()
                );
                next += done.ends.len() as u64 / 4;
                if next > cuts * ITEMS / 10 {
                    cuts += 1;
                    cable.cut();
                }
            }
            Ok(Some(Event::JobEnded(end))) => ended = !end.cancelled,
            Ok(Some(Event::PoolClosed(_))) => break,
            Ok(Some(other)) => panic!("unexpected event: {other:?}"),
            Ok(None) | Err(_) => reader.resume(connect(cable.socket()).await, 9).await.expect("the session ended"),
        }
    }
    assert!(ended && next == ITEMS && cuts > 0, "{next} after {cuts} cuts");
}

/// Nothing is read for a session that has ended, whatever its client has sent after the first message.
#[tokio::test]
async fn a_session_reads_one_job() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    for (name, number) in [("one", 1), ("two", 2)] {
        detached(&server, detach(name, number), 2).await;
    }
    let _agent = Agent::echo(&server, 1, 2).await;
    for name in ["one", "two"] {
        assert_eq!(all(&server, name).await.0.len(), 2);
    }
    let mut reader = Client::over(server.connect().await).await;
    // The first one ends at once: there is nothing to read.
    for (name, first) in [("one", u64::MAX), ("two", 0)] {
        let attach = Attach { first, wait: true, secret: secret(9), ..reading(name) };
        reader.send(Request::Attach(Box::new(attach)));
    }
    assert!(matches!(reader.next().await, Event::DetachedJob(job) if job.name == "one"));
    assert!(matches!(reader.next().await, Event::JobEnded(_)));
    assert!(matches!(reader.next().await, Event::PoolClosed(_)));
    assert_eq!(reader.try_next().await.expect("the session ended with an error"), None);
}

#[tokio::test]
async fn jobs_are_described() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    let refused = describe(&server, "one").await.expect_err("a missing job was found");
    assert_eq!((refused.code(), refused.message()), (Code::NotFound, "there is no detached job \"one\""));
    detached(&server, detach("one", 1), 3).await;
    let job = describe(&server, "one").await.expect("no such job");
    assert_eq!((job.items, job.state(), &job.id), (3, DetachedState::Running, &id(1)));
    let request = DescribeDetachedRequest { name: "one".to_owned(), id: id(2) };
    let refused = jobs(&server).await.describe(request).await.expect_err("a job with another id was found");
    assert_eq!(refused.code(), Code::NotFound);
}

#[tokio::test]
async fn invalid_tickets_are_refused() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    detached(&server, detach("one", 1), 4).await;
    let ticket = Ticket { agent: id(1), id: vec![7; 15].into() };
    let attach = Attach { wait: true, ticket: Some(ticket), ..reading("one") };
    let mut reader = attach_as(server.connect().await, attach).await;
    reader.must_be_refused(Code::InvalidArgument, "15 bytes instead of 16").await;
}
