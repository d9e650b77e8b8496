use std::pin::Pin;
use std::thread::{self, JoinHandle};

use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::{Attach, EventFrame, Failure, FailureKind, ItemsDone, JobEnded, Piece, PoolClosed, PoolFailed};
use futures_core::Stream;
use tonic::Status;

use super::*;
use crate::error::{Error, ErrorKind};

/// Longer than an outcome takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn get(server: &Server, reconnect_timeout: Duration) -> JoinHandle<Result<Vec<u64>, Error>> {
    let job = attached(server, reconnect_timeout);
    thread::spawn(move || job.get())
}

/// Waits for the next session, which must ask for outcomes from this item on.
fn session_from(server: &Server, first: u64) -> Peer {
    let peer = server.next_session();
    let Attach { name, first: from, wait, id, ticket, version, job, .. } = peer.receive_attach();
    assert_eq!((&*name, from, wait, &*id, ticket, job), ("nightly", first, true, &b""[..], None, 1));
    assert_eq!(version, Some(farpool_proto::version()));
    peer
}

#[test]
fn results_are_in_order() {
    let server = start();
    let client = get(&server, RECONNECT_TIMEOUT);
    let peer = session_from(&server, 0);
    peer.send_description(running(100));
    send_doubles(&peer, 0..7);
    send_doubles(&peer, 7..100);
    peer.send_ended(false);
    assert_eq!(client.join().unwrap().unwrap(), doubles(100));
    peer.wait_for_disconnect();
}

#[test]
fn each_outcome_arrives_once_over_any_number_of_connections() {
    let server = start();
    let client = get(&server, RECONNECT_TIMEOUT);
    server.next_session().cut_when_sent();
    let peer = session_from(&server, 0);
    peer.send_description(running(60));
    peer.cut_when_sent();
    for part in 0..5 {
        let peer = session_from(&server, part * 10);
        peer.send_description(running(60));
        send_doubles(&peer, part * 10..part * 10 + 10);
        match part {
            // A coordinator that is asked to end does this.
            3 => peer.end(),
            _ => peer.cut_when_sent(),
        }
    }
    // All outcomes so far have arrived.
    session_from(&server, 50);
    let server = start_at(server.stop());
    let peer = session_from(&server, 50);
    peer.send_description(running(60));
    send_doubles(&peer, 50..60);
    peer.cut_when_sent();
    let peer = session_from(&server, 60);
    peer.send_description(running(60));
    peer.send_ended(false);
    assert_eq!(client.join().unwrap().unwrap(), doubles(60));
}

#[test]
fn a_known_session_is_resumed() {
    let server = Server::start();
    let client = get(&server, RECONNECT_TIMEOUT);
    let peer = session_from(&server, 0);
    peer.send_description(running(60));
    for (part, times) in (0..6).zip(1..) {
        send_doubles(&peer, part * 10..part * 10 + 10);
        peer.cut_when_sent();
        server.wait_until_resumed(times);
    }
    peer.send_ended(false);
    assert_eq!(client.join().unwrap().unwrap(), doubles(60));
    server.assert_no_requests();
}

#[test]
fn get_returns_the_error_of_the_lowest_item_after_all_have_finished() {
    let server = start();
    let client = get(&server, RECONNECT_TIMEOUT);
    let peer = session_from(&server, 0);
    peer.send_description(running(u64::MAX - 5));
    send_doubles(&peer, 0..1);
    peer.send_failed(1, 1, "one");
    send_done(&peer, 2, &[b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"]);
    thread::yield_now();
    assert!(!client.is_finished());
    peer.send_failed(3, 1, "three");
    peer.send_failed(4, u64::MAX - 10, "all others");
    send_done(&peer, u64::MAX - 6, &[b"\x01"]);
    peer.send_ended(false);
    let error = client.join().unwrap().unwrap_err();
    assert_eq!((error.kind(), error.item(), error.message()), (ErrorKind::Panicked, Some(1), "one"));
    assert!(error.to_string().starts_with("get \"nightly\", item 1: one"), "{error}");
}

#[test]
fn an_iteration_continues_after_failed_items() {
    let server = start();
    let mut outcomes = attached(&server, RECONNECT_TIMEOUT).iter().unwrap();
    let peer = session_from(&server, 0);
    peer.send_description(running(7));
    send_doubles(&peer, 0..1);
    assert_eq!(outcomes.next().unwrap().unwrap(), 0);
    peer.send_failed(1, 1, "one");
    assert_eq!(outcomes.next().unwrap().unwrap_err().item(), Some(1));
    // A truncated result, then a complete one.
    send_done(&peer, 2, &[b"\x80", &encoded(6)]);
    let error = outcomes.next().unwrap().unwrap_err();
    assert_eq!((error.kind(), error.item()), (ErrorKind::Codec, Some(2)));
    assert_eq!(outcomes.next().unwrap().unwrap(), 6);
    peer.send_failed(4, 3, "three");
    for item in 4..7 {
        let error = outcomes.next().unwrap().unwrap_err();
        assert_eq!((error.item(), error.message()), (Some(item), "three"));
    }
    peer.send_ended(false);
    assert!(outcomes.next().is_none() && outcomes.next().is_none());
}

#[test]
fn outcomes_are_also_a_stream() {
    let server = start();
    let mut outcomes = attached(&server, RECONNECT_TIMEOUT).iter().unwrap();
    let peer = session_from(&server, 0);
    peer.send_description(running(2));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut next = || {
        let next = std::future::poll_fn(|context| Pin::new(&mut outcomes).poll_next(context));
        runtime.block_on(async { tokio::time::timeout(PATIENCE, next).await.unwrap() })
    };
    send_doubles(&peer, 0..1);
    assert_eq!(next().unwrap().unwrap(), 0);
    thread::scope(|scope| {
        scope.spawn(move || {
            send_doubles(&peer, 1..2);
            peer.send_ended(false);
        });
        assert_eq!(next().unwrap().unwrap(), 2);
        assert!(next().is_none());
    });
}

#[test]
fn everything_works_within_an_async_program() {
    let server = start();
    let job = attached(&server, RECONNECT_TIMEOUT);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        job.cancel().unwrap();
        server.describe(running(5));
        assert_eq!(job.status().unwrap().items, 5);
    });
    assert_eq!([server.next_request(), server.next_request()], ["cancel nightly", "describe nightly"]);
}

#[test]
fn a_cancelled_job_keeps_its_outcomes() {
    let server = start();
    let serve = || {
        let peer = session_from(&server, 0);
        peer.send_description(running(9));
        send_doubles(&peer, 0..2);
        send_doubles(&peer, 4..6);
        peer.send_failed(7, 1, "seven");
        peer.send_ended(true);
        peer
    };
    let outcomes = attached(&server, RECONNECT_TIMEOUT).iter().unwrap();
    serve();
    let each: Vec<_> = outcomes.map(|outcome| outcome.map_err(|error| (error.kind(), error.item()))).collect();
    let none = |item| Err((ErrorKind::Cancelled, item));
    let panicked = Err((ErrorKind::Panicked, Some(7)));
    assert_eq!(each[..6], [Ok(0), Ok(2), none(Some(2)), none(Some(3)), Ok(8), Ok(10)]);
    assert_eq!(each[6..], [none(Some(6)), panicked, none(None)]);
    let client = get(&server, RECONNECT_TIMEOUT);
    serve();
    assert_eq!(client.join().unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
}

#[test]
fn a_pool_that_cannot_run_is_the_jobs_error() {
    let server = start();
    let client = get(&server, RECONNECT_TIMEOUT);
    let peer = session_from(&server, 0);
    peer.send_description(running(9));
    send_doubles(&peer, 0..2);
    let kind = FailureKind::InitializerFailed.into();
    let failure = Failure { kind, message: "no table".to_owned(), ..Failure::default() };
    peer.send(Event::PoolFailed(Box::new(PoolFailed { failure: Some(failure) })));
    let error = client.join().unwrap().unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::InitializerFailed, "no table"));
}

#[test]
fn reading_ahead_is_bounded() {
    let server = start();
    let job: Detached<Vec<u8>> = Detached::new(location(&server, RECONNECT_TIMEOUT), JobRef::by_name("nightly"));
    let mut outcomes = job.iter().unwrap();
    let peer = session_from(&server, 0);
    peer.send_description(running(64));
    let mut result = Vec::new();
    codec::encode(&vec![7_u8; 1 << 20], &mut result).unwrap();
    (0..64).for_each(|item| send_done(&peer, item, &[&result]));
    peer.send_ended(false);
    assert_eq!(outcomes.next().unwrap().unwrap().len(), 1 << 20);
    // 4 MiB, and the messages of some frames.
    assert!(outcomes.read_ahead() <= 8 << 20, "{}", outcomes.read_ahead());
    assert_eq!(outcomes.map(|outcome| outcome.unwrap().len()).sum::<usize>(), 63 << 20);
}

#[test]
fn dropping_an_iteration_ends_its_call() {
    let server = start();
    let outcomes = attached(&server, RECONNECT_TIMEOUT).iter().unwrap();
    let peer = session_from(&server, 0);
    peer.send_description(running(9));
    drop(outcomes);
    peer.wait_for_disconnect();
}

#[test]
fn invalid_messages_are_errors() {
    let server = start();
    let raw = |first, data: &'static [u8], ends: &[u32]| {
        let ends: Vec<u8> = ends.iter().flat_map(|end| end.to_le_bytes()).collect();
        Event::ItemsDone(ItemsDone { job: 1, first, data: data.into(), ends: ends.into(), failed: false, attempts: 0 })
    };
    let ended = || Event::JobEnded(JobEnded { job: 1, cancelled: false });
    let cases: Vec<(&str, Vec<Event>)> = vec![
        ("from item 0 on", vec![raw(0, b"\x02", &[1]), raw(0, b"\x02", &[1])]),
        ("from item 2 on", vec![raw(2, b"\x02", &[1, 1])]),
        ("from item 18446744073709551615 on", vec![raw(u64::MAX, b"\x02", &[1])]),
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
    for (words, events) in cases {
        let client = get(&server, RECONNECT_TIMEOUT);
        let peer = session_from(&server, 0);
        peer.send_description(running(3));
        events.into_iter().for_each(|event| peer.send(event));
        let error = client.join().unwrap().unwrap_err();
        assert!(error.to_string().contains(words), "{error} / {words}");
        peer.wait_for_disconnect();
    }
    let client = get(&server, RECONNECT_TIMEOUT);
    let peer = session_from(&server, 0);
    let piece = Some(Piece { total: u64::MAX, data: vec![0; 9].into() });
    peer.send_frame(EventFrame { piece, ..EventFrame::default() });
    assert!(client.join().unwrap().unwrap_err().to_string().contains("an invalid frame"));
    // More items than can be counted one by one.
    let client = get(&server, RECONNECT_TIMEOUT);
    let peer = session_from(&server, 0);
    peer.send_description(running(u64::MAX));
    peer.send(raw(u64::MAX - 2, b"\x02", &[1]));
    peer.send_failed(u64::MAX - 1, 1, "the last");
    peer.send_ended(true);
    assert_eq!(client.join().unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    let client = get(&server, RECONNECT_TIMEOUT);
    let peer = session_from(&server, 0);
    peer.send_description(running(3));
    peer.send(Event::PoolClosed(PoolClosed {}));
    assert!(client.join().unwrap().unwrap_err().to_string().contains("before the job had ended"));
    let client = get(&server, RECONNECT_TIMEOUT);
    let peer = session_from(&server, 0);
    send_doubles(&peer, 0..1);
    assert!(client.join().unwrap().unwrap_err().to_string().contains("did not start with the job's description"));
}

#[test]
fn errors_about_missing_jobs_and_coordinators_say_what_to_do() {
    let server = start();
    server.refuse_next(Status::not_found("there is no detached job \"nightly\""));
    let error = get(&server, RECONNECT_TIMEOUT).join().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(
        error.to_string(),
        "get \"nightly\": there is no detached job \"nightly\"; `farpool results` lists the detached jobs"
    );
    let client = get(&server, Duration::from_millis(200));
    let peer = session_from(&server, 0);
    peer.send_description(running(3));
    server.stop();
    let error = client.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("the job is not affected"), "{error}");
}

#[test]
fn results_of_another_type_are_refused() {
    let server = start();
    server.describe(running(3));
    let error = crate::attach_to::<String>(server.url(), "nightly").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(
        error.to_string().contains("of type u64") && error.to_string().contains("alloc::string::String"),
        "{error}"
    );
    let job = crate::attach_to::<u64>(server.url(), "nightly").unwrap();
    assert_eq!(job.name(), "nightly");
    assert_eq!([server.next_request(), server.next_request()], ["describe nightly"; 2]);
}

#[test]
fn calls_are_retried_when_the_connection_is_lost() {
    let server = start();
    let job = attached(&server, RECONNECT_TIMEOUT);
    for _ in 0..2 {
        server.refuse_next(Status::unavailable("it is being restarted"));
    }
    job.cancel().unwrap();
    assert_eq!([server.next_request(), server.next_request(), server.next_request()], ["cancel nightly"; 3]);
    // The job was discarded, but the answer was lost.
    server.refuse_next(Status::unavailable("it is being restarted"));
    server.refuse_next(Status::not_found("there is none"));
    job.discard().unwrap();
    server.refuse_next(Status::not_found("there is none"));
    assert_eq!(job.discard().unwrap_err().kind(), ErrorKind::InvalidArgument);
    server.refuse_next(Status::not_found("there is none"));
    assert!(job.cancel().unwrap_err().to_string().contains("`farpool results`"));
}
