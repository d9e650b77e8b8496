//! Detaching a job: completely, or not at all.

use farpool_proto::v1::{CancelJob, ClosePool, DetachedState, Items, PoolReopened, Program, Version};
use farpool_testkit::cable::Cable;
use tonic::Code;

use super::*;
use crate::agent::Agent;
use crate::client::{open_pool_as, secret};
use crate::server::connect;

#[tokio::test]
async fn a_broken_session_continues_where_it_was() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    let cable = Cable::to(server.address);
    let mut client = detaching(connect(cable.socket()).await, detach("one", 1)).await;
    assert_eq!(durable(&server, &mut client).await, (0, false));
    send(&client, 0, 500);
    let mut there = 0;
    while there < 300 {
        there = durable(&server, &mut client).await.0;
    }
    cable.cut();
    there = durable_when_lost(&server, &mut client).await.unwrap_or(there);
    client.resume(connect(cable.socket()).await, 1).await.expect("the session ended");
    while there < 500 {
        let now = durable(&server, &mut client).await.0;
        assert!(now >= there, "{now} after {there}");
        there = now;
    }
    send(&client, 500, 700);
    client.end_items(1);
    until_complete(&server, &mut client, 700).await;
    client.end().await.expect("the session ended with an error");
    let _agent = Agent::echo(&server, 1, 2).await;
    assert_eq!(all(&server, "one").await, (echoes(0..700), End::Ended));
}

#[tokio::test]
async fn a_replaced_session_continues_where_it_was() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    let cable = Cable::to(server.address);
    let mut client = detaching(connect(cable.socket()).await, detach("one", 1)).await;
    assert_eq!(durable(&server, &mut client).await, (0, false));
    send(&client, 0, 500);
    let mut there = 0;
    while there < 300 {
        there = durable(&server, &mut client).await.0;
    }
    cable.cut();
    client.end().await.expect_err("the connection was not lost");
    let mut client = detaching(connect(cable.socket()).await, detach("one", 1).reopened_after(there)).await;
    client.send(Request::PoolReopened(PoolReopened {}));
    let (items, complete) = durable(&server, &mut client).await;
    assert!(items >= there && !complete, "only {items} of {there} items are durable");
    send(&client, items, 700);
    client.end_items(1);
    until_complete(&server, &mut client, 700).await;
    let _agent = Agent::echo(&server, 1, 2).await;
    assert_eq!(all(&server, "one").await, (echoes(0..700), End::Ended));
}

#[tokio::test]
async fn an_incomplete_job_does_not_run_and_is_dropped() {
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
    // A stream that stays open may take any time.
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(states(&server).await.len(), 1);
    drop(client);
    until_gone(&server).await;
    // After a restart there is no stream.
    let mut client = detaching(server.connect().await, detach("two", 2)).await;
    assert_eq!(durable(&server, &mut client).await.0, 0);
    send(&client, 0, 100);
    while durable(&server, &mut client).await.0 < 100 {}
    server.kill_and_wait().await;
    let server = scratch.server_with(soon).await;
    assert_eq!(states(&server).await, [("two".to_owned(), DetachedState::Receiving)]);
    until_gone(&server).await;
    server.kill_and_wait().await;
    assert_eq!(list(&scratch.server().await).await, []);
}

async fn until_gone(server: &Server) {
    server.until("the job's end", |status| status.journal.as_ref().is_some_and(|journal| journal.jobs == 0)).await;
}

#[tokio::test]
async fn a_restarted_coordinator_continues_to_receive() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    let mut client = detaching(server.connect().await, detach("one", 1)).await;
    assert_eq!(durable(&server, &mut client).await.0, 0);
    send(&client, 0, 100);
    while durable(&server, &mut client).await.0 < 100 {}
    server.kill_and_wait().await;
    let server = scratch.server().await;
    let mut client = detaching(server.connect().await, detach("one", 1).reopened_after(100)).await;
    // The program and the sent items are here.
    match client.next().await {
        Event::Durable(durable) => assert_eq!((durable.items, durable.complete), (100, false)),
        other => panic!("unexpected event: {other:?}"),
    }
    // The client may not know how many items are durable.
    send(&client, 40, 150);
    client.end_items(1);
    until_complete(&server, &mut client, 150).await;
    let _agent = Agent::echo(&server, 1, 2).await;
    assert_eq!(all(&server, "one").await, (echoes(0..150), End::Ended));
}

/// The stored pool names the program that the job was begun with.
#[tokio::test]
async fn a_job_is_continued_only_with_the_same_program_and_payload_limit() {
    let scratch = Scratch::new();
    let mut server = scratch.server().await;
    let mut client = detaching(server.connect().await, detach("one", 1)).await;
    assert_eq!(durable(&server, &mut client).await.0, 0);
    send(&client, 0, 100);
    while durable(&server, &mut client).await.0 < 100 {}
    drop(client);
    let digest = program(PROGRAM + 1).1;
    let program = Program { digest: digest.into(), size: PROGRAM as u64 + 1, ..Program::default() }.packed();
    let (mut other_program, mut other_limit) =
        (detach("one", 1).reopened_after(100), detach("one", 1).reopened_after(100));
    other_program.pool.program = program;
    other_limit.pool.settings.as_mut().expect("the pool has no settings").payload_limit += 1;
    for restarted in [false, true] {
        if restarted {
            server.kill_and_wait().await;
            server = scratch.server().await;
        }
        for other in [other_program.clone(), other_limit.clone()] {
            let mut client = detaching(server.connect().await, other).await;
            client.must_be_refused(Code::InvalidArgument, "another program or payload limit").await;
        }
    }
    let mut client = detaching(server.connect().await, detach("one", 1).reopened_after(100)).await;
    client.end_items(1);
    until_complete(&server, &mut client, 100).await;
}

/// A new session with the secret of an older one replaces it only if both are for the same purpose.
#[tokio::test]
async fn a_session_of_another_kind_does_not_replace_one_with_its_secret() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    let mut client = detaching(server.connect().await, detach("one", 1)).await;
    assert_eq!(durable(&server, &mut client).await.0, 0);
    for first in [
        Request::OpenPool(open_pool_as(1).into()),
        Request::Attach(Box::new(Attach { secret: secret(1), ..reading("one") })),
    ] {
        let mut other = Client::over(server.connect().await).await;
        other.send(first);
        other.must_be_refused(Code::InvalidArgument, "a session with this secret already exists").await;
    }
    send(&client, 0, 100);
    client.end_items(1);
    until_complete(&server, &mut client, 100).await;
}

#[tokio::test]
async fn a_job_without_items_ends_at_once() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    detached(&server, detach("none", 1), 0).await;
    assert_eq!(all(&server, "none").await, (Vec::new(), End::Ended));
}

#[tokio::test]
async fn names_are_unique() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    detached(&server, detach("one", 1), 10).await;
    // A client that missed the completion asks again.
    let mut again = detaching(server.connect().await, detach("one", 1)).await;
    assert_eq!(durable(&server, &mut again).await, (10, true));
    again.end().await.expect("the session ended with an error");
    let mut other = detaching(server.connect().await, detach("one", 2)).await;
    other.must_be_refused(Code::AlreadyExists, "there already is a job \"one\"").await;
    // Another job of that name is also refused while the first is incomplete.
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
async fn invalid_messages_end_only_their_session() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    let channel = server.connect().await;
    let check = async |requests: Vec<Request>, code: Code, words: &str| {
        let mut client = Client::over(channel.clone()).await;
        requests.into_iter().for_each(|body| client.send(body));
        client.must_be_refused(code, words).await;
    };
    type Change = fn(&mut Opening);
    let begin = |change: Change| {
        let mut opening = detach("one", 1);
        change(&mut opening);
        opening.messages()
    };
    let cases: [(Change, &str); 10] = [
        (|opening| opening.detach().name.clear(), "1 to 1024 bytes"),
        (|opening| opening.detach().name = "x".repeat(1025), "1 to 1024 bytes"),
        (|opening| opening.detach().name = "a\nb".to_owned(), "control characters"),
        (|opening| opening.pool.secret = vec![1; 15].into(), "15 bytes"),
        (|opening| opening.pool.secret.clear(), "0 bytes"),
        (|opening| opening.job.detach = None, "without its detach"),
        (|opening| opening.pool.program.clear(), "program"),
        (|opening| opening.pool.program = Program { size: 1, ..Program::default() }.packed(), "digest"),
        (|opening| opening.pool.require = vec![Default::default()], "label"),
        (|opening| opening.job.job = u64::MAX, "highest index"),
    ];
    for (change, words) in cases {
        check(begin(change), Code::InvalidArgument, words).await;
    }
    let other = Version { release: "0.0.0".to_owned(), protocol: 1 };
    let mut old = detach("one", 1);
    old.pool.version = Some(other);
    check(old.messages(), Code::FailedPrecondition, "0.0.0").await;
    check(vec![Request::Items(some_items(0, 1))], Code::InvalidArgument, "begins with OpenPool").await;
    let open = || begin(|_| ()).remove(0);
    check(vec![open(), Request::Items(some_items(0, 1))], Code::InvalidArgument, "opens the job first").await;
    check(vec![open(), open()], Code::InvalidArgument, "opens the job first").await;

    let whole = || begin(|_| ());
    let job = |job, items: Items| Request::Items(Items { job, ..items });
    let wrong = [
        (vec![Request::Items(some_items(1, 1))], "item 0 is the next"),
        (vec![Request::Items(some_items(0, 2)), Request::Items(some_items(1, 2))], "item 2 is the next"),
        (vec![job(2, some_items(0, 1))], "of job 1"),
        (vec![Request::OpenPool(open_pool().into())], "of job 1"),
        (whole(), "of job 1"),
        (vec![Request::CancelJob(CancelJob { job: 2 })], "of job 1"),
        (vec![Request::Items(Items { ends: vec![1, 2, 3].into(), ..some_items(0, 1) })], "multiple of 4"),
        (vec![end_items(), Request::Items(some_items(0, 1))], "after EndItems"),
    ];
    for (requests, words) in wrong {
        let requests = whole().into_iter().chain(requests).collect();
        check(requests, Code::InvalidArgument, words).await;
        discard(&server, "one").await.expect("the incomplete job does not exist");
    }
    let small = begin(|opening| opening.pool.settings.as_mut().unwrap().payload_limit = 4);
    let requests = small.into_iter().chain([Request::Items(some_items(0, 1))]).collect();
    check(requests, Code::InvalidArgument, "the pool's limit is 4").await;
    discard(&server, "one").await.expect("the incomplete job does not exist");

    let mut pool = Client::open(&server).await;
    pool.send(Request::OpenJob(detach("one", 1).job.into()));
    pool.must_be_refused(Code::InvalidArgument, "one of its own").await;
    detached(&server, detach("one", 1), 10).await;
}

#[tokio::test]
async fn without_a_journal_no_job_is_detached() {
    let server = Server::start().await;
    let words = "this coordinator keeps no journal: start it with --journal DIR";
    let mut client = detaching(connect(server.address).await, detach("one", 1)).await;
    client.must_be_refused(Code::FailedPrecondition, words).await;
    let mut client = attach(server.connect().await, "one", 0, true).await;
    client.must_be_refused(Code::FailedPrecondition, words).await;
    let list = jobs(&server).await.list(ListDetachedRequest {}).await.map(drop);
    let described = describe(&server, "one").await.map(drop);
    for refused in [list, described, cancel(&server, "one").await, discard(&server, "one").await] {
        let refused = refused.expect_err("the call was accepted");
        assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, words));
    }
    assert_eq!(server.status().await.journal, None);
}

#[tokio::test]
async fn sessions_end_with_a_reason_when_the_server_shuts_down() {
    let scratch = Scratch::new();
    let mut server = scratch.server().await;
    let _agent = Agent::joined(&server, 1, 1).await;
    detached(&server, detach("runs", 1), 10).await;
    let mut client = detaching(server.connect().await, detach("comes", 2)).await;
    assert_eq!(durable(&server, &mut client).await.0, 0);
    send(&client, 0, 5);
    while durable(&server, &mut client).await.0 < 5 {}
    let reader = Attach { wait: true, secret: secret(3), ..reading("runs") };
    let mut attached = attach_as(server.connect().await, reader.clone()).await;
    assert!(matches!(attached.next().await, Event::DetachedJob(_)));
    server.stop();
    // The shutdown does not wait for jobs that continue at the next coordinator.
    client.must_be_refused(Code::Unavailable, "shutting down").await;
    attached.must_be_refused(Code::Unavailable, "shutting down").await;
    server.ended().await;
    // Both continue there.
    let server = scratch.server().await;
    let _agent = Agent::echo(&server, 1, 1).await;
    let mut client = detaching(server.connect().await, detach("comes", 2).reopened_after(5)).await;
    send(&client, 5, 8);
    client.end_items(1);
    until_complete(&server, &mut client, 8).await;
    let mut attached = attach_as(server.connect().await, reader).await;
    assert!(matches!(attached.next().await, Event::DetachedJob(_)));
    assert_eq!(rest(&mut attached).await, (echoes(0..10), End::Ended));
    assert_eq!(all(&server, "comes").await, (echoes(0..8), End::Ended));
}

#[tokio::test]
async fn large_items_of_many_clients_need_little_memory() {
    const LARGE: usize = 7 << 20;
    let scratch = Scratch::new();
    let server = scratch.server_with(|settings| settings.memory = 16 << 20).await;
    let mut clients = Vec::new();
    for id in 1..=6 {
        let mut client = detaching(server.connect().await, detach(&id.to_string(), id)).await;
        assert_eq!(durable(&server, &mut client).await.0, 0);
        for at in 0..3 {
            client.send(Request::Items(batch(1, at, &[&vec![id; LARGE]])));
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

/// Resends items that the coordinator has already, some in the middle of a message.
#[tokio::test]
async fn resent_items_are_kept_once() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    let mut client = detaching(server.connect().await, detach("one", 1)).await;
    assert_eq!(durable(&server, &mut client).await.0, 0);
    send(&client, 0, 150);
    while durable(&server, &mut client).await.0 < 150 {}
    server.kill_and_wait().await;
    let server = scratch.server().await;
    let mut client = detaching(server.connect().await, detach("one", 1).reopened_after(0)).await;
    for (first, end) in [(0, 100), (100, 170), (170, 171)] {
        client.send(Request::Items(some_items(first, end - first)));
    }
    client.end_items(1);
    // Items that exist already are reported as durable when they are.
    let mut before = 150;
    loop {
        let (items, complete) = durable(&server, &mut client).await;
        assert!(items >= before && items <= 171, "{items} after {before}");
        before = items;
        if complete {
            break;
        }
    }
    let _agent = Agent::echo(&server, 1, 2).await;
    assert_eq!(all(&server, "one").await, (echoes(0..171), End::Ended));
    assert_eq!(describe(&server, "one").await.expect("no such job").items, 171);
}

#[tokio::test]
async fn a_dropped_job_does_not_start_over() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    let words = "the coordinator has dropped the incomplete job";
    let mut client = detaching(server.connect().await, detach("one", 1).reopened_after(3)).await;
    client.must_be_refused(Code::DataLoss, words).await;
    // Nor does a job that has fewer durable items than reported.
    let mut client = detaching(server.connect().await, detach("one", 1)).await;
    assert_eq!(durable(&server, &mut client).await.0, 0);
    send(&client, 0, 10);
    while durable(&server, &mut client).await.0 < 10 {}
    drop(client);
    let mut client = detaching(server.connect().await, detach("one", 1).reopened_after(11)).await;
    client.must_be_refused(Code::DataLoss, words).await;
    let mut client = detaching(server.connect().await, detach("one", 1).reopened_after(10)).await;
    client.end_items(1);
    until_complete(&server, &mut client, 10).await;
}

#[tokio::test]
async fn the_window_grows_with_durable_items() {
    const MIB: u64 = 1 << 20;
    let scratch = Scratch::new();
    let server = scratch.server().await;
    let mut client = detaching(server.connect().await, detach("one", 1)).await;
    assert_eq!(durable(&server, &mut client).await.0, 0);
    assert_eq!(client.window, 16 * MIB);
    // Nothing runs: there is no agent.
    let large = vec![7; MIB as usize - 4];
    feed(&server, &mut client, (0..40).map(|at| batch(1, at, &[&large]))).await;
    while durable(&server, &mut client).await.0 < 40 {}
    while client.granted < 56 * MIB {
        client.try_next().await.expect("the session ended").expect("the session ended");
    }
    assert_eq!(client.granted, 56 * MIB);
}

#[tokio::test]
async fn a_job_can_be_withdrawn_at_any_time() {
    let scratch = Scratch::new();
    let server = scratch.server().await;
    let cancel = || Request::CancelJob(CancelJob { job: 1 });
    let close = || Request::ClosePool(ClosePool { now: true });
    let parts = || detach("one", 1).messages();
    let items = || Request::Items(some_items(0, 3));
    let withdrawn = async |client: &mut Client| {
        loop {
            match client.try_next().await.expect("the session ended").expect("the session ended") {
                Event::JobEnded(ended) => assert!(ended.cancelled && ended.job == 1),
                Event::PoolClosed(_) => break,
                Event::Welcome(_) | Event::Durable(_) | Event::Window(_) | Event::ProgramWanted(_) => {}
                other => panic!("unexpected event: {other:?}"),
            }
        }
        client.end().await.expect("the session ended with an error");
        assert_eq!(list(&server).await, []);
    };
    for last in [cancel, close] {
        for requests in [vec![], vec![items()], vec![items(), end_items()]] {
            let mut client = Client::over(server.connect().await).await;
            parts().into_iter().chain(requests).chain([last()]).for_each(|body| client.send(body));
            withdrawn(&mut client).await;
        }
        let mut client = detaching(server.connect().await, detach("one", 1)).await;
        assert_eq!(durable(&server, &mut client).await.0, 0);
        client.send(items());
        while durable(&server, &mut client).await.0 < 3 {}
        client.send(last());
        withdrawn(&mut client).await;
    }
    // By a client in another session.
    let mut client = detaching(server.connect().await, detach("one", 1)).await;
    assert_eq!(durable(&server, &mut client).await.0, 0);
    client.send(items());
    while durable(&server, &mut client).await.0 < 3 {}
    drop(client);
    let mut client = Client::over(server.connect().await).await;
    detach("one", 1).reopened_after(3).messages().into_iter().chain([cancel()]).for_each(|body| client.send(body));
    withdrawn(&mut client).await;
    // Before there is a job.
    let mut client = Client::over(server.connect().await).await;
    client.send(parts().remove(0));
    client.send(close());
    withdrawn(&mut client).await;
    // Closing the pool to further jobs does not withdraw its job.
    let mut client = Client::over(server.connect().await).await;
    let last = Request::ClosePool(ClosePool { now: false });
    parts().into_iter().chain([items(), end_items(), last]).for_each(|body| client.send(body));
    until_complete(&server, &mut client, 3).await;
    // A complete job can no longer be withdrawn.
    client.send(cancel());
    client.end().await.expect("the session ended with an error");
    let mut client = Client::over(server.connect().await).await;
    detach("one", 1).reopened_after(3).messages().into_iter().chain([cancel()]).for_each(|body| client.send(body));
    assert_eq!(durable(&server, &mut client).await, (3, true));
    client.end().await.expect("the session ended with an error");
    assert_eq!(states(&server).await, [("one".to_owned(), DetachedState::Running)]);
    server.kill_and_wait().await;
    assert_eq!(list(&scratch.server().await).await.len(), 1);
}
