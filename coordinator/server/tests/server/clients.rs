//! Clients that violate the protocol.

use bytes::Bytes;
use farpool_proto::v1::{CancelJob, ClosePool, EndItems, Items, OpenJob, OpenPool, Program, Version};
use tonic::Code;

use crate::agent::Agent;
use crate::client::{Client, Event, Request, batch, open_pool};
use crate::server::Server;

#[tokio::test]
async fn an_invalid_pool_is_refused() {
    let server = Server::start().await;
    let check = async |first: Request, code, words| {
        let mut client = Client::silent(&server).await;
        client.send(first);
        client.must_be_refused(code, words).await;
    };
    let other = Some(Version { release: "9.8.7".to_owned(), protocol: 99 });
    let of_version = |version| Request::OpenPool(Box::new(OpenPool { version, ..open_pool() }));
    check(of_version(other.clone()), Code::FailedPrecondition, "9.8.7").await;
    check(of_version(other), Code::FailedPrecondition, env!("CARGO_PKG_VERSION")).await;
    check(of_version(None), Code::FailedPrecondition, "version").await;
    let of_program = |program| Request::OpenPool(Box::new(OpenPool { program, ..open_pool() }));
    check(of_program(Bytes::new()), Code::InvalidArgument, "without its program").await;
    let short = Program { digest: vec![1; 31].into(), size: 1, ..Program::default() };
    check(of_program(short.packed()), Code::InvalidArgument, "digest").await;
    check(of_program(Bytes::from_static(&[0xff; 8])), Code::InvalidArgument, "the pool's program: failed to decode")
        .await;
    let empty = Program { digest: vec![1; 32].into(), ..Program::default() };
    check(of_program(empty.packed()), Code::InvalidArgument, "no bytes").await;
    check(Request::OpenJob(Box::default()), Code::InvalidArgument, "begins with OpenPool").await;
    assert!(server.status().await.pools.is_empty());
}

#[tokio::test]
async fn an_invalid_message_ends_only_its_session() {
    let server = Server::start().await;
    let _agent = Agent::echo(&server, 1, 2).await;
    let mut neighbour = Client::open(&server).await;
    let item = || Request::Items(batch(1, 0, &[b"item"]));
    let open = || Request::OpenJob(Box::new(OpenJob { job: 1, ..OpenJob::default() }));
    let wrong = |change: fn(&mut Items)| {
        let mut items = batch(1, 10, &[b"ab", b"cde"]);
        change(&mut items);
        Request::Items(items)
    };
    let cases = vec![
        (vec![item()], "job 1 was never opened"),
        (vec![Request::EndItems(EndItems { job: 7 })], "job 7 was never opened"),
        (vec![Request::CancelJob(CancelJob { job: 7 })], "job 7 was never opened"),
        (vec![open(), open()], "job number 1 was used before"),
        (vec![open(), item(), item()], "item 0 came, but 1 is the lowest"),
        (vec![open(), item(), Request::EndItems(EndItems { job: 1 }), item()], "after the end of its input"),
        (vec![open(), wrong(|items| items.ends.truncate(7))], "not a multiple of 4"),
        (vec![open(), wrong(|items| items.ends.truncate(0))], "without any"),
        (vec![open(), wrong(|items| items.data.truncate(3))], "ends at 5 and the data at 3"),
        (vec![open(), wrong(|items| items.ends = items.ends.iter().rev().copied().collect())], "ends"),
        (vec![open(), wrong(|items| items.first = u64::MAX)], "beyond the highest index"),
        (vec![Request::OpenPool(Box::new(open_pool()))], "second OpenPool"),
        (vec![Request::ClosePool(ClosePool { now: false }), open()], "pool that was closed"),
    ];
    for (job, (requests, words)) in (1..).zip(cases) {
        let mut client = Client::open(&server).await;
        requests.into_iter().for_each(|request| client.send(request));
        if words.contains("closed") {
            // It may have been closed before the message was read.
            let _ = client.end().await;
        } else {
            client.must_be_refused(Code::InvalidArgument, words).await;
        }
        neighbour.check_works(job).await;
    }
    let mut client = Client::open(&server).await;
    client.out.push(Default::default());
    client.must_be_refused(Code::InvalidArgument, "has no body").await;
    server.until("the end of the others", |status| status.pools.len() == 1 && status.jobs.is_empty()).await;
}

#[tokio::test]
async fn items_beyond_the_window_are_refused() {
    let server = Server::with(|settings| settings.window = 1000).await;
    let mut client = Client::open(&server).await;
    assert_eq!(client.window, 1000);
    client.open_job(1);
    client.items(1, 0, &[&[1; 999]]);
    client.items(1, 1, &[&[2; 10]]);
    client.must_be_refused(Code::InvalidArgument, "window").await;
}

#[tokio::test]
async fn ten_thousand_jobs_of_one_client_do_not_slow_others() {
    const JOBS: u64 = 10_000;
    let server = Server::start().await;
    let mut greedy = Client::open(&server).await;
    // The checks of a debug build after each event would make items for all of them slow.
    let with_items = |job: &u64| job.is_multiple_of(100);
    for job in 1..=JOBS {
        greedy.open_job(job);
        if with_items(&job) {
            greedy.items(job, 0, &[&job.to_le_bytes()]);
            greedy.end_items(job);
        }
    }
    server.until("all jobs", |status| status.jobs.len() as u64 == JOBS).await;
    let _agent = Agent::echo(&server, 1, 2).await;
    let mut neighbour = Client::open(&server).await;
    neighbour.check_works(1).await;
    let mut ended = 0;
    while ended < (1..=JOBS).filter(with_items).count() {
        match greedy.next().await {
            Event::ItemsDone(done) => assert_eq!(&done.data[..], done.job.to_le_bytes()),
            Event::JobEnded(_) => ended += 1,
            other => panic!("unexpected event instead of a result: {other:?}"),
        }
    }
    drop(greedy);
    server.until("the end of the others", |status| status.jobs.is_empty()).await;
}

#[tokio::test]
async fn the_jobs_of_a_disconnected_client_are_dropped() {
    let server = Server::start().await;
    let client = Client::open(&server).await;
    client.open_job(1);
    client.items(1, 0, &[b"never run"]);
    server.until("the job", |status| status.jobs.len() == 1 && status.held_bytes > 0).await;
    drop(client);
    let status = server.until("the client's end", |status| status.jobs.is_empty() && status.pools.is_empty()).await;
    assert_eq!(status.held_bytes, 0);
}
