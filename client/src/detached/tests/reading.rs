use std::pin::Pin;
use std::thread::{self, JoinHandle};

use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::{Attach, EventFrame, Failure, FailureKind, ItemsDone, JobEnded, Piece, PoolClosed, PoolFailed};
use futures_core::Stream;
use tonic::Status;

use super::*;
use crate::error::{Error, ErrorKind};

fn get(server: &Server, patience: Duration) -> JoinHandle<Result<Vec<u64>, Error>> {
    let job = attached(server, patience);
    thread::spawn(move || job.get())
}

/// The next call, which asks for outcomes from here on.
fn call_from(server: &Server, first: u64) -> Call {
    let call = server.call();
    let Attach { name, first: from, wait, id, ticket, version, job, .. } = call.hear_attach();
    assert_eq!((&*name, from, wait, &*id, ticket, job), ("nightly", first, true, &b""[..], None, 1));
    assert_eq!(version, Some(farpool_proto::version()));
    call
}

#[test]
fn results_come_in_order() {
    let server = Server::start();
    let client = get(&server, PATIENCE);
    let call = call_from(&server, 0);
    call.say_job(running(100));
    say_doubles(&call, 0..7);
    say_doubles(&call, 7..100);
    call.say_ended(false);
    assert_eq!(client.join().unwrap().unwrap(), doubles(100));
    call.hear_the_end();
}

#[test]
fn each_outcome_comes_once_over_any_number_of_connections() {
    let server = Server::start();
    let client = get(&server, PATIENCE);
    server.call().cut();
    let call = call_from(&server, 0);
    call.say_job(running(60));
    call.cut();
    for part in 0..5 {
        let call = call_from(&server, part * 10);
        call.say_job(running(60));
        say_doubles(&call, part * 10..part * 10 + 10);
        match part {
            // As a coordinator that is told to end does.
            3 => call.end(),
            _ => call.cut(),
        }
    }
    // What was said so far has come.
    call_from(&server, 50);
    let at = server.stop();
    let server = Server::start_at(&at);
    let call = call_from(&server, 50);
    call.say_job(running(60));
    say_doubles(&call, 50..60);
    call.cut();
    let call = call_from(&server, 60);
    call.say_job(running(60));
    call.say_ended(false);
    assert_eq!(client.join().unwrap().unwrap(), doubles(60));
}

#[test]
fn a_session_that_is_known_goes_on_where_it_was() {
    let server = Server::start();
    server.remember();
    let client = get(&server, PATIENCE);
    let call = call_from(&server, 0);
    call.say_job(running(60));
    for (part, times) in (0..6).zip(1..) {
        say_doubles(&call, part * 10..part * 10 + 10);
        call.cut();
        server.wait_until_resumed(times);
    }
    call.say_ended(false);
    assert_eq!(client.join().unwrap().unwrap(), doubles(60));
    server.assert_silent();
}

#[test]
fn the_error_is_that_of_the_lowest_item_after_all_have_finished() {
    let server = Server::start();
    let client = get(&server, PATIENCE);
    let call = call_from(&server, 0);
    call.say_job(running(u64::MAX - 5));
    say_doubles(&call, 0..1);
    call.say_failed(1, 1, "one");
    call.say_done(2, &[b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"]);
    thread::yield_now();
    assert!(!client.is_finished());
    call.say_failed(3, 1, "three");
    call.say_failed(4, u64::MAX - 10, "all others");
    call.say_done(u64::MAX - 6, &[b"\x01"]);
    call.say_ended(false);
    let error = client.join().unwrap().unwrap_err();
    assert_eq!((error.kind(), error.item(), error.message()), (ErrorKind::Panicked, Some(1), "one"));
    assert!(error.to_string().starts_with("get \"nightly\", item 1: one"), "{error}");
}

#[test]
fn an_iteration_goes_on_behind_items_that_failed() {
    let server = Server::start();
    let mut outcomes = attached(&server, PATIENCE).iter().unwrap();
    let call = call_from(&server, 0);
    call.say_job(running(7));
    say_doubles(&call, 0..1);
    assert_eq!(outcomes.next().unwrap().unwrap(), 0);
    call.say_failed(1, 1, "one");
    assert_eq!(outcomes.next().unwrap().unwrap_err().item(), Some(1));
    // Cut short, and then one that is whole.
    call.say_done(2, &[b"\x80", &encoded(6)]);
    let error = outcomes.next().unwrap().unwrap_err();
    assert_eq!((error.kind(), error.item()), (ErrorKind::Codec, Some(2)));
    assert_eq!(outcomes.next().unwrap().unwrap(), 6);
    call.say_failed(4, 3, "three");
    for item in 4..7 {
        let error = outcomes.next().unwrap().unwrap_err();
        assert_eq!((error.item(), error.message()), (Some(item), "three"));
    }
    call.say_ended(false);
    assert!(outcomes.next().is_none() && outcomes.next().is_none());
}

#[test]
fn outcomes_are_a_stream_as_well() {
    let server = Server::start();
    let mut outcomes = attached(&server, PATIENCE).iter().unwrap();
    let call = call_from(&server, 0);
    call.say_job(running(2));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut next = || {
        let next = std::future::poll_fn(|context| Pin::new(&mut outcomes).poll_next(context));
        runtime.block_on(async { tokio::time::timeout(SOON, next).await.unwrap() })
    };
    say_doubles(&call, 0..1);
    assert_eq!(next().unwrap().unwrap(), 0);
    thread::scope(|scope| {
        scope.spawn(move || {
            say_doubles(&call, 1..2);
            call.say_ended(false);
        });
        assert_eq!(next().unwrap().unwrap(), 2);
        assert!(next().is_none());
    });
}

#[test]
fn everything_works_within_an_async_program() {
    let server = Server::start();
    let job = attached(&server, PATIENCE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        job.cancel().unwrap();
        server.describe(running(5));
        assert_eq!(job.status().unwrap().items, 5);
    });
    assert_eq!([server.asked(), server.asked()], ["cancel nightly", "describe nightly"]);
}

#[test]
fn a_cancelled_job_has_the_outcomes_that_it_has() {
    let server = Server::start();
    let say = || {
        let call = call_from(&server, 0);
        call.say_job(running(9));
        say_doubles(&call, 0..2);
        say_doubles(&call, 4..6);
        call.say_failed(7, 1, "seven");
        call.say_ended(true);
        call
    };
    let outcomes = attached(&server, PATIENCE).iter().unwrap();
    say();
    let each: Vec<_> = outcomes.map(|outcome| outcome.map_err(|error| (error.kind(), error.item()))).collect();
    let none = |item| Err((ErrorKind::Cancelled, item));
    let panicked = Err((ErrorKind::Panicked, Some(7)));
    assert_eq!(each[..6], [Ok(0), Ok(2), none(Some(2)), none(Some(3)), Ok(8), Ok(10)]);
    assert_eq!(each[6..], [none(Some(6)), panicked, none(None)]);
    let client = get(&server, PATIENCE);
    say();
    assert_eq!(client.join().unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
}

#[test]
fn a_pool_that_cannot_run_is_the_jobs_error() {
    let server = Server::start();
    let client = get(&server, PATIENCE);
    let call = call_from(&server, 0);
    call.say_job(running(9));
    say_doubles(&call, 0..2);
    let kind = FailureKind::InitializerFailed.into();
    let failure = Failure { kind, message: "no table".to_owned(), ..Failure::default() };
    call.say(Event::PoolFailed(Box::new(PoolFailed { failure: Some(failure) })));
    let error = client.join().unwrap().unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::InitializerFailed, "no table"));
}

#[test]
fn no_more_is_read_ahead_than_is_bounded() {
    let server = Server::start();
    let job: Detached<Vec<u8>> = Detached::new(location(&server, PATIENCE), JobRef::by_name("nightly"));
    let mut outcomes = job.iter().unwrap();
    let call = call_from(&server, 0);
    call.say_job(running(64));
    let mut result = Vec::new();
    codec::encode(&vec![7_u8; 1 << 20], &mut result).unwrap();
    (0..64).for_each(|item| call.say_done(item, &[&result]));
    call.say_ended(false);
    assert_eq!(outcomes.next().unwrap().unwrap().len(), 1 << 20);
    // 4 MiB, and the messages of some frames.
    assert!(outcomes.read_ahead() <= 8 << 20, "{}", outcomes.read_ahead());
    assert_eq!(outcomes.map(|outcome| outcome.unwrap().len()).sum::<usize>(), 63 << 20);
}

#[test]
fn an_iteration_that_is_dropped_ends_its_call() {
    let server = Server::start();
    let outcomes = attached(&server, PATIENCE).iter().unwrap();
    let call = call_from(&server, 0);
    call.say_job(running(9));
    drop(outcomes);
    call.hear_the_end();
}

#[test]
fn lies_are_errors() {
    let server = Server::start();
    let raw = |first, data: &'static [u8], ends: &[u32]| {
        let ends: Vec<u8> = ends.iter().flat_map(|end| end.to_le_bytes()).collect();
        Event::ItemsDone(ItemsDone { job: 1, first, data: data.into(), ends: ends.into(), failed: false, attempts: 0 })
    };
    let ended = || Event::JobEnded(JobEnded { job: 1, cancelled: false });
    let lies: Vec<(&str, Vec<Event>)> = vec![
        ("of items 0", vec![raw(0, b"\x02", &[1]), raw(0, b"\x02", &[1])]),
        ("of items 2", vec![raw(2, b"\x02", &[1, 1])]),
        ("of items 18446744073709551615", vec![raw(u64::MAX, b"\x02", &[1])]),
        ("lengths do not match", vec![raw(0, b"\x02", &[9])]),
        ("lengths do not match", vec![raw(0, b"\x02\x02", &[2, 1])]),
        (
            "items that do not exist",
            vec![Event::ItemsDone(ItemsDone { job: 1, ends: vec![0; 5].into(), ..Default::default() })],
        ),
        ("outcomes of items are missing", vec![raw(0, b"\x02", &[1]), ended()]),
        ("outcomes of items are missing", vec![raw(2, b"\x02", &[1]), ended()]),
        (
            "another one now has its name",
            vec![Event::DetachedJob(Box::new(DetachedJob { detached_ms: 7, ..running(3) }))],
        ),
    ];
    for (words, events) in lies {
        let client = get(&server, PATIENCE);
        let call = call_from(&server, 0);
        call.say_job(running(3));
        events.into_iter().for_each(|event| call.say(event));
        let error = client.join().unwrap().unwrap_err();
        assert!(error.to_string().contains(words), "{error} / {words}");
        call.hear_the_end();
    }
    let client = get(&server, PATIENCE);
    let call = call_from(&server, 0);
    let piece = Some(Piece { total: u64::MAX, data: vec![0; 9].into() });
    call.say_frame(EventFrame { piece, ..EventFrame::default() });
    assert!(client.join().unwrap().unwrap_err().to_string().contains("an invalid frame"));
    // More items than anybody could count.
    let client = get(&server, PATIENCE);
    let call = call_from(&server, 0);
    call.say_job(running(u64::MAX));
    call.say(raw(u64::MAX - 2, b"\x02", &[1]));
    call.say_failed(u64::MAX - 1, 1, "the last");
    call.say_ended(true);
    assert_eq!(client.join().unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    let client = get(&server, PATIENCE);
    let call = call_from(&server, 0);
    call.say_job(running(3));
    call.say(Event::PoolClosed(PoolClosed {}));
    assert!(client.join().unwrap().unwrap_err().to_string().contains("before the job had ended"));
    let client = get(&server, PATIENCE);
    let call = call_from(&server, 0);
    say_doubles(&call, 0..1);
    assert!(client.join().unwrap().unwrap_err().to_string().contains("did not start with the job's description"));
}

#[test]
fn what_is_not_there_is_told_with_what_to_do() {
    let server = Server::start();
    server.refuse(Status::not_found("there is no detached job \"nightly\""));
    let error = get(&server, PATIENCE).join().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(
        error.to_string(),
        "get \"nightly\": there is no detached job \"nightly\"; `farpool results` lists the detached jobs"
    );
    let client = get(&server, Duration::from_millis(200));
    let call = call_from(&server, 0);
    call.say_job(running(3));
    server.stop();
    let error = client.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("the job is not affected"), "{error}");
}

#[test]
fn results_of_another_type_are_refused() {
    let server = Server::start();
    server.describe(running(3));
    let error = crate::attach_to::<String>(server.address.to_string(), "nightly").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(
        error.to_string().contains("of type u64") && error.to_string().contains("alloc::string::String"),
        "{error}"
    );
    let job = crate::attach_to::<u64>(server.address.to_string(), "nightly").unwrap();
    assert_eq!(job.name(), "nightly");
    assert_eq!([server.asked(), server.asked()], ["describe nightly"; 2]);
}

#[test]
fn what_is_asked_for_is_asked_again_when_the_connection_is_lost() {
    let server = Server::start();
    let job = attached(&server, PATIENCE);
    for _ in 0..2 {
        server.refuse(Status::unavailable("it is being restarted"));
    }
    job.cancel().unwrap();
    assert_eq!([server.asked(), server.asked(), server.asked()], ["cancel nightly"; 3]);
    // It was discarded, and the answer was lost.
    server.refuse(Status::unavailable("it is being restarted"));
    server.refuse(Status::not_found("there is none"));
    job.discard().unwrap();
    server.refuse(Status::not_found("there is none"));
    assert_eq!(job.discard().unwrap_err().kind(), ErrorKind::InvalidArgument);
    server.refuse(Status::not_found("there is none"));
    assert!(job.cancel().unwrap_err().to_string().contains("`farpool results`"));
}
