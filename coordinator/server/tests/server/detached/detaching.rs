//! Giving a job to the coordinator: all of it, or nothing.

use farpool_proto::v1::{DetachedState, Items, Program, Resume, Version};
use tonic::Code;

use super::*;
use crate::agent::Agent;
use crate::client::secret;
use crate::proxy::Proxy;
use crate::server::connect;

#[tokio::test]
async fn a_stream_that_breaks_goes_on_where_it_was() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    let proxy = Proxy::to(&server).await;
    let mut client = detaching(proxy.connect().await, detach("one", 1)).await;
    assert_eq!(durable(&server, &mut client).await, (0, false));
    send(&client, 0, 500);
    let mut there = 0;
    while there < 300 {
        there = durable(&server, &mut client).await.0;
    }
    proxy.cut();
    client.end().await.expect_err("the connection is lost");
    let mut client = detaching(proxy.connect().await, detach("one", 1)).await;
    let (items, complete) = durable(&server, &mut client).await;
    assert!(items >= there && !complete, "{items} of what {there} were before");
    send(&client, items, 700);
    client.end_items(1);
    until_complete(&server, &mut client, 700).await;
    let _agent = Agent::echo(&server, 1, 2).await;
    assert_eq!(all(&server, "one").await, (echoes(0..700), End::Ended));
}

#[tokio::test]
async fn what_is_not_complete_does_not_run_and_goes() {
    let scratch = Scratch::new();
    let soon = |settings: &mut farpool_coordinator_server::Settings| {
        settings.limits.detach = Duration::from_millis(300);
    };
    let server = scratch.server_with(soon).await;
    let _agent = Agent::echo(&server, 1, 2).await;
    let mut client = detaching(server.connect().await, detach("one", 1)).await;
    assert_eq!(durable(&server, &mut client).await.0, 0);
    send(&client, 0, 100);
    while durable(&server, &mut client).await.0 < 100 {}
    assert_eq!(states(&server).await, [("one".to_owned(), DetachedState::Receiving)]);
    assert_eq!(server.status().await.pools, []);
    // A stream that goes on may take as long as it likes.
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(states(&server).await.len(), 1);
    drop(client);
    until_gone(&server).await;
    // After a restart nobody has a stream.
    let mut client = detaching(server.connect().await, detach("two", 2)).await;
    assert_eq!(durable(&server, &mut client).await.0, 0);
    send(&client, 0, 100);
    while durable(&server, &mut client).await.0 < 100 {}
    server.killed_off().await;
    let server = scratch.server_with(soon).await;
    assert_eq!(states(&server).await, [("two".to_owned(), DetachedState::Receiving)]);
    until_gone(&server).await;
    server.killed_off().await;
    assert_eq!(list(&scratch.server().await).await, []);
}

async fn until_gone(server: &Server) {
    server.until("its end", |status| status.journal.as_ref().is_some_and(|journal| journal.jobs == 0)).await;
}

#[tokio::test]
async fn a_coordinator_that_is_restarted_goes_on_receiving() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    let mut client = detaching(server.connect().await, detach("one", 1)).await;
    assert_eq!(durable(&server, &mut client).await.0, 0);
    send(&client, 0, 100);
    while durable(&server, &mut client).await.0 < 100 {}
    server.killed_off().await;
    let server = scratch.server().await;
    let mut client = detaching(server.connect().await, detach("one", 1)).await;
    // The program is here, and so is what was sent.
    match client.next().await {
        Told::Durable(durable) => assert_eq!((durable.items, durable.complete), (100, false)),
        other => panic!("{other:?}"),
    }
    send(&client, 100, 150);
    client.end_items(1);
    until_complete(&server, &mut client, 150).await;
    let _agent = Agent::echo(&server, 1, 2).await;
    assert_eq!(all(&server, "one").await, (echoes(0..150), End::Ended));
}

#[tokio::test]
async fn a_job_without_items_ends_at_once() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    detached(&server, detach("none", 1), 0).await;
    assert_eq!(all(&server, "none").await, (Vec::new(), End::Ended));
}

#[tokio::test]
async fn a_name_is_one_jobs() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    detached(&server, detach("one", 1), 10).await;
    // Who did not hear that it is complete asks again.
    let mut again = detaching(server.connect().await, detach("one", 1)).await;
    assert_eq!(durable(&server, &mut again).await, (10, true));
    again.end().await.expect("it ends well");
    let mut other = detaching(server.connect().await, detach("one", 2)).await;
    other.must_be_refused(Code::AlreadyExists, "there already is a job \"one\"").await;
    // Also while it is not complete.
    let mut first = detaching(server.connect().await, detach("two", 3)).await;
    assert_eq!(durable(&server, &mut first).await.0, 0);
    let mut other = detaching(server.connect().await, detach("two", 4)).await;
    other.must_be_refused(Code::AlreadyExists, "there already is a job \"two\"").await;
    send(&first, 0, 10);
    let mut second = detaching(server.connect().await, detach("two", 3)).await;
    first.must_be_refused(Code::Aborted, "another stream").await;
    let there = durable(&server, &mut second).await.0;
    send(&second, there, 20);
    second.end_items(1);
    until_complete(&server, &mut second, 20).await;
}

#[tokio::test]
async fn nonsense_must_be_refused_and_hurts_nobody() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    let channel = server.connect().await;
    let check = async |asks: Vec<Ask>, code: Code, words: &str| {
        let mut client = silent(channel.clone()).await;
        asks.into_iter().for_each(|body| client.ask(body));
        client.must_be_refused(code, words).await;
    };
    type Change = fn(&mut Detach);
    let begin = |change: Change| {
        let mut detach = detach("one", 1);
        change(&mut detach);
        Ask::Detach(Box::new(detach))
    };
    let cases: [(Change, &str); 9] = [
        (|detach| detach.name.clear(), "1 to 1024 bytes"),
        (|detach| detach.name = "x".repeat(1025), "1 to 1024 bytes"),
        (|detach| detach.name = "a\nb".to_owned(), "control characters"),
        (|detach| detach.secret = vec![1; 15].into(), "15 bytes"),
        (|detach| detach.pool = None, "without its pool"),
        (|detach| detach.pool.as_mut().unwrap().program.clear(), "program"),
        (|detach| detach.pool.as_mut().unwrap().program = Program { size: 1, ..Program::default() }.packed(), "digest"),
        (|detach| detach.pool.as_mut().unwrap().require = vec![Default::default()], "label"),
        (|detach| detach.job.as_mut().unwrap().job = u64::MAX, "highest index"),
    ];
    for (change, words) in cases {
        check(vec![begin(change)], Code::InvalidArgument, words).await;
    }
    let other = Version { release: "0.0.0".to_owned(), protocol: 1 };
    let old = Detach { pool: Some(OpenPool { version: Some(other), ..open_pool() }), ..detach("one", 1) };
    check(vec![Ask::Detach(old.into())], Code::FailedPrecondition, "0.0.0").await;
    check(vec![Ask::Items(some_items(0, 1))], Code::InvalidArgument, "begins with Detach").await;
    check(vec![Ask::OpenPool(open_pool().into())], Code::InvalidArgument, "begins with Detach").await;

    let whole = || begin(|_| ());
    let job = |job, items: Items| Ask::Items(Items { job, ..items });
    let wrong = [
        (vec![Ask::Items(some_items(1, 1))], "item 0 is the next"),
        (vec![Ask::Items(some_items(0, 2)), Ask::Items(some_items(1, 2))], "item 2 is the next"),
        (vec![job(2, some_items(0, 1))], "of job 1"),
        (vec![Ask::OpenPool(open_pool().into())], "of job 1"),
        (vec![whole()], "a call of its own"),
        (vec![Ask::Items(Items { ends: vec![1, 2, 3].into(), ..some_items(0, 1) })], "multiple of 4"),
        (vec![end_items(), Ask::Items(some_items(0, 1))], "behind EndItems"),
    ];
    for (asks, words) in wrong {
        let asks = [whole()].into_iter().chain(asks).collect();
        check(asks, Code::InvalidArgument, words).await;
        discard(&server, "one").await.expect("what was begun is there");
    }
    let mut small = detach("one", 1);
    small.pool.as_mut().unwrap().settings.as_mut().unwrap().payload_limit = 4;
    let asks = vec![Ask::Detach(small.into()), Ask::Items(some_items(0, 1))];
    check(asks, Code::InvalidArgument, "the pool's limit is 4").await;
    discard(&server, "one").await.expect("what was begun is there");

    let mut pool = Client::open(&server).await;
    pool.ask(whole());
    pool.must_be_refused(Code::InvalidArgument, "a call of its own").await;
    let frame = farpool_proto::v1::ClientFrame {
        resume: Some(Resume { secret: secret(1), version: Some(farpool_proto::version()), received: 0 }),
        ..Default::default()
    };
    let stream = jobs(&server).await.detach(tokio_stream::iter([frame])).await.expect("the call is answered");
    let refused = stream.into_inner().message().await.expect_err("it is refused");
    assert!(refused.code() == Code::InvalidArgument && refused.message().contains("again"), "{refused:?}");
    detached(&server, detach("one", 1), 10).await;
}

#[tokio::test]
async fn without_a_journal_nothing_is_kept() {
    let server = Server::start().await;
    let words = "this coordinator keeps no journal: start it with --journal DIR";
    let mut client = detaching(connect(server.address).await, detach("one", 1)).await;
    client.must_be_refused(Code::FailedPrecondition, words).await;
    let mut client = attach(server.connect().await, "one", 0, true).await;
    client.must_be_refused(Code::FailedPrecondition, words).await;
    let list = jobs(&server).await.list(ListDetachedRequest {}).await.map(drop);
    for refused in [list, cancel(&server, "one").await, discard(&server, "one").await] {
        let refused = refused.expect_err("it is refused");
        assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, words));
    }
    assert_eq!(server.status().await.journal, None);
}

#[tokio::test]
async fn the_reason_of_the_end_is_said_when_the_server_shuts_down() {
    let scratch = Scratch::new();
    let mut server = scratch.server().await;
    let _agent = Agent::joined(&server, 1, 1).await;
    detached(&server, detach("runs", 1), 10).await;
    let mut client = detaching(server.connect().await, detach("comes", 2)).await;
    assert_eq!(durable(&server, &mut client).await.0, 0);
    let mut attached = attach(server.connect().await, "runs", 0, true).await;
    assert!(matches!(attached.next().await, Told::DetachedJob(_)));
    server.stop();
    // Nobody waits for jobs that go on with the next coordinator.
    client.must_be_refused(Code::Unavailable, "shutting down").await;
    attached.must_be_refused(Code::Unavailable, "shutting down").await;
    server.ended().await;
    let server = scratch.server().await;
    let _agent = Agent::echo(&server, 1, 1).await;
    assert_eq!(all(&server, "runs").await, (echoes(0..10), End::Ended));
}

#[tokio::test]
async fn large_items_of_many_come_through_little_memory() {
    const LARGE: usize = 7 << 20;
    let scratch = Scratch::new();
    let server = scratch.server_with(|settings| settings.memory = 16 << 20).await;
    let mut clients = Vec::new();
    for id in 1..=6 {
        let mut client = detaching(server.connect().await, detach(&id.to_string(), id)).await;
        assert_eq!(durable(&server, &mut client).await.0, 0);
        for at in 0..3 {
            client.ask(Ask::Items(batch(1, at, &[&vec![id; LARGE]])));
        }
        client.end_items(1);
        clients.push(client);
    }
    for client in &mut clients {
        until_complete(&server, client, 3).await;
    }
    let _agent = Agent::echo(&server, 1, 1).await;
    for id in 1..=6 {
        let (outcomes, end) = all(&server, &id.to_string()).await;
        assert_eq!((outcomes.len(), end), (3, End::Ended));
        assert!(outcomes.iter().all(|(_, result)| result.as_ref().is_ok_and(|result| *result == vec![id; LARGE])));
    }
}
