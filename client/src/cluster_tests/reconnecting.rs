//! Lost connections, and coordinators that have restarted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{Failure, FailureKind, ItemsFailed, OpenPool, PoolAt, ProgramWanted, Window};
use farpool_testkit::coordinator::clients::items_in;
use tonic::Status;

use super::*;
use crate::error::{Error, ErrorKind};

/// Returns a server and a pool with two slots and a long reconnect timeout.
fn opened_with_reconnect() -> (Server, Peer, Pool) {
    opened_with(Duration::from_secs(20))
}

/// Waits until the client has received everything, and makes it reopen its pool at a coordinator with this name. Returns what it
/// resends.
fn reopen(server: &Server, peer: &Peer, pool: &Pool, coordinator: &'static str) -> (Peer, Resent) {
    answer_call(peer, pool, 77);
    server.forget();
    peer.cut();
    let peer = server.next_session();
    let open = peer.welcome_by(coordinator, 1 << 20, 2);
    assert!(open.again);
    let mut resent = Resent::default();
    for body in peer.receive_resent() {
        match body {
            Body::OpenJob(open) => drop(resent.items.insert(open.job, Vec::new())),
            Body::Items(items) => {
                let (first, each) = items_in(&items);
                let job = resent.items.get_mut(&items.job).unwrap();
                job.extend((first..).zip(each.into_iter().map(<[u8]>::to_vec)));
            }
            Body::EndItems(end) => resent.ended.push(end.job),
            other => panic!("unexpected message among the resent ones: {other:?}"),
        }
    }
    (peer, resent)
}

#[derive(Debug, Default)]
struct Resent {
    items: BTreeMap<u64, Vec<(u64, Vec<u8>)>>,
    ended: Vec<u64>,
}

impl Resent {
    fn indices(&self, job: u64) -> Vec<u64> {
        self.items[&job].iter().map(|(item, _)| *item).collect()
    }
}

fn send_results(peer: &Peer, job: u64, items: impl IntoIterator<Item = u64>) {
    items.into_iter().for_each(|item| peer.send_done(job, item, &encoded(&(2 * item))));
}

fn doubles(items: u64) -> Vec<u64> {
    (0..items).map(double).collect()
}

#[test]
fn a_session_resumes_on_another_connection() {
    let (server, peer, pool) = opened_with_reconnect();
    let map = pool.map_async(double, 0..100);
    let (job, items) = peer.receive_job();
    assert_eq!(items, 100);
    send_results(&peer, job, 0..30);
    for cut in 0..3 {
        peer.cut();
        send_results(&peer, job, 30 + cut * 10..40 + cut * 10);
        // What is sent meanwhile is not lost either.
        let other = pool.apply_async(double, (cut,));
        let (single, _) = peer.receive_job();
        peer.send_done(single, 0, &encoded(&(2 * cut)));
        peer.send_job_ended(single, false);
        assert_eq!(other.get().unwrap(), 2 * cut);
        assert_eq!(server.resumed(), cut as u32 + 1);
    }
    send_results(&peer, job, 60..100);
    peer.send_job_ended(job, false);
    assert_eq!(map.get().unwrap(), doubles(100));
}

#[test]
fn another_coordinator_gets_the_items_without_an_outcome() {
    let (server, peer, pool) = opened_with_reconnect();
    peer.send(Event::PoolAt(PoolAt { agent: vec![1; 16].into(), gone: false }));
    let map = pool.job(double).chunksize(4).map_async(0..20);
    let (job, _) = peer.receive_job();
    send_results(&peer, job, (0..5).chain([8, 19]));
    // This job has all its outcomes, and was not reported as ended: it needs no coordinator for that.
    let single = pool.apply_async(double, (4,));
    let (alone, _) = peer.receive_job();
    peer.send_done(alone, 0, &encoded(&8_u64));
    // This job ends before the coordinator restarts.
    let done = pool.apply_async(double, (5,));
    let (gone, _) = peer.receive_job();
    peer.send_done(gone, 0, &encoded(&10_u64));
    peer.send_job_ended(gone, false);
    assert_eq!(done.get().unwrap(), 10);
    let (peer, resent) = reopen(&server, &peer, &pool, "two");
    assert_eq!(single.get().unwrap(), 8);
    assert_eq!(resent.items.keys().copied().collect::<Vec<_>>(), [job]);
    assert_eq!(resent.indices(job), [5, 6, 7].into_iter().chain(9..19).collect::<Vec<_>>());
    assert!(resent.items[&job].iter().all(|(item, bytes)| *bytes == encoded(item)), "{resent:?}");
    assert_eq!(resent.ended, [job]);
    send_results(&peer, job, [5, 6, 7].into_iter().chain(9..15));
    // A third coordinator follows.
    let (peer, resent) = reopen(&server, &peer, &pool, "three");
    assert_eq!(resent.indices(job), (15..19).collect::<Vec<_>>());
    send_results(&peer, job, 15..19);
    peer.send_job_ended(job, false);
    assert_eq!(map.get().unwrap(), doubles(20));
}

#[test]
fn a_reopened_pool_is_the_same_pool() {
    let server = Server::start();
    let address = address_of(&server);
    let settings = Settings { weight: 3, reconnect_timeout: Duration::from_secs(20), ..settings(5) };
    let client = thread::spawn(move || open(&address, settings));
    let peer = server.next_session();
    let first = peer.welcome(2);
    let pool = client.join().unwrap().unwrap();
    assert!(!first.again && first.secret.len() == 32 && first.id.is_empty() && first.agents.is_empty());
    for (agent, gone) in [(2, false), (1, false), (3, false), (2, true)] {
        peer.send(Event::PoolAt(PoolAt { agent: vec![agent; 16].into(), gone }));
    }
    // Afterwards, everything that was sent before has been received.
    answer_call(&peer, &pool, 1);
    server.forget();
    peer.cut();
    let peer = server.next_session();
    let second = peer.welcome_by("two", 1 << 20, 2);
    assert_eq!(second.agents, [vec![1; 16], vec![3; 16]]);
    assert!(second.again);
    assert_eq!(OpenPool { again: false, agents: Vec::new(), ..second }, first);
    assert_eq!(peer.receive_resent(), []);
    answer_call(&peer, &pool, 2);
}

#[test]
fn an_input_continues_with_another_window() {
    let (server, peer, pool) = opened_with_reconnect();
    // 1 MiB may be in flight: ten items and the one that crosses the limit.
    let items = (0..40_u64).map(|item| (item, vec![item as u8; 100_000]));
    let feeding = thread::scope(|scope| {
        let map = scope.spawn(|| pool.starmap(|item: u64, _: Vec<u8>| 2 * item, items));
        let Body::OpenJob(opened) = peer.receive() else { panic!("the message is not OpenJob") };
        let mut received = 0;
        while received < 11 {
            let Body::Items(items) = peer.receive() else { panic!("the message is not Items") };
            received += items_in(&items).1.len();
        }
        send_results(&peer, opened.job, 0..6);
        answer_call(&peer, &pool, 77);
        server.forget();
        peer.cut();
        let peer = server.next_session();
        // A smaller window: five items exceed it already.
        assert!(peer.welcome_by("two", 300_000, 2).again);
        let resent = peer.receive_resent();
        let [Body::OpenJob(_), rest @ ..] = &resent[..] else { panic!("{resent:?}") };
        let count = |body: &Body| if let Body::Items(items) = body { items_in(items).1.len() } else { 0 };
        assert_eq!(rest.iter().map(count).sum::<usize>(), received - 6);
        assert!(!rest.iter().any(|body| matches!(body, Body::EndItems(_))));
        assert!(peer.is_silent());
        // The limit counts what this coordinator has received: that, and two more items.
        let got: usize =
            rest.iter().map(|body| if let Body::Items(i) = body { i.data.len() + i.ends.len() } else { 0 }).sum();
        send_results(&peer, opened.job, 6..received as u64);
        peer.send(Event::Window(Window { job: opened.job, limit: got as u64 + 150_000 }));
        let Body::Items(more) = peer.receive() else { panic!("the message is not Items") };
        assert_eq!(more.first, received as u64);
        assert!(peer.is_silent());
        peer.send(Event::Window(Window { job: opened.job, limit: 1 << 30 }));
        while !matches!(peer.receive(), Body::EndItems(_)) {}
        send_results(&peer, opened.job, received as u64..40);
        peer.send_job_ended(opened.job, false);
        map.join().unwrap().unwrap()
    });
    assert_eq!(feeding, doubles(40));
}

#[test]
fn gaps_stay_gaps() {
    let (server, peer, pool) = opened_with_settings(|settings| {
        settings.settings.payload_limit = 10;
        settings.reconnect_timeout = Duration::from_secs(20);
    });
    let lengths = [1, 2, 50, 3, 50, 50, 4].map(|length| "x".repeat(length));
    let mut results = pool.imap(|text: String| text.len() as u64, lengths);
    thread::scope(|scope| {
        let all = scope.spawn(move || results.by_ref().map(|result| result.ok()).collect::<Vec<_>>());
        let (job, items) = peer.receive_job();
        assert_eq!(items, 4);
        peer.send_done(job, 1, &encoded(&2_u64));
        let (peer, resent) = reopen(&server, &peer, &pool, "two");
        assert_eq!(resent.indices(job), [0, 3, 6]);
        for (item, length) in [(6, 4_u64), (3, 3), (0, 1)] {
            peer.send_done(job, item, &encoded(&length));
        }
        peer.send_job_ended(job, false);
        assert_eq!(all.join().unwrap(), [Some(1), Some(2), None, Some(3), None, None, Some(4)]);
    });
}

#[test]
fn an_outcome_counts_once() {
    let (_server, peer, pool) = opened_with_reconnect();
    let mut results = pool.imap_unordered(double, 0..4);
    thread::scope(|scope| {
        let all = scope.spawn(move || results.by_ref().map(Result::unwrap).collect::<Vec<_>>());
        let (job, _) = peer.receive_job();
        send_results(&peer, job, [1, 1, 0, 1, 3, 0, 2, 3]);
        peer.send_job_ended(job, false);
        assert_eq!(all.join().unwrap(), [2, 0, 6, 4]);
    });
}

#[test]
fn items_failed_as_a_range_count_only_if_they_have_no_outcome() {
    let (_server, peer, pool) = opened_with_reconnect();
    let mut results = pool.imap_unordered(double, 0..7);
    thread::scope(|scope| {
        let all = scope.spawn(move || {
            let index = |outcome: Result<u64, Error>| outcome.unwrap_or_else(|error| 100 + error.item().unwrap());
            results.by_ref().map(index).collect::<Vec<_>>()
        });
        let (job, _) = peer.receive_job();
        send_results(&peer, job, [1, 5]);
        for (first, count) in [(3, 1), (0, 6), (5, 1)] {
            let failure = Some(Failure { kind: FailureKind::AgentLost.into(), ..Failure::default() });
            peer.send(Event::ItemsFailed(Box::new(ItemsFailed { job, first, count, failure })));
        }
        send_results(&peer, job, [4, 6]);
        peer.send_job_ended(job, false);
        assert_eq!(all.join().unwrap(), [2, 10, 103, 100, 102, 104, 12]);
    });
}

#[test]
fn a_closed_pool_finishes_its_jobs() {
    let (server, peer, pool) = opened_with_reconnect();
    let map = pool.map_async(double, 0..3);
    let (job, _) = peer.receive_job();
    pool.close();
    assert!(matches!(peer.receive(), Body::ClosePool(close) if !close.now));
    server.forget();
    peer.cut();
    let peer = server.next_session();
    peer.welcome_by("two", 1 << 20, 2);
    assert!(matches!(peer.receive_resent()[..], [Body::OpenJob(_), Body::Items(_), .., Body::EndItems(_)]));
    assert!(matches!(peer.receive(), Body::ClosePool(close) if !close.now));
    send_results(&peer, job, 0..3);
    peer.send_job_ended(job, false);
    peer.send_closed();
    pool.join().unwrap();
    assert_eq!(map.get().unwrap(), doubles(3));
}

#[test]
fn at_most_once_items_are_resent_only_to_another_coordinator() {
    let (server, peer, pool) = opened_with_reconnect();
    let at_most_once = pool.job(double).retries(0).map_async(0..4);
    let (job, _) = peer.receive_job();
    send_results(&peer, job, [1]);
    let (peer, resent) = reopen(&server, &peer, &pool, "two");
    assert_eq!(resent.indices(job), [0, 2, 3]);
    send_results(&peer, job, [3]);
    // The same coordinator, which has closed the pool.
    let (peer, resent) = reopen(&server, &peer, &pool, "two");
    assert_eq!((resent.indices(job), resent.ended), (vec![], vec![job]));
    peer.send_job_ended(job, false);
    let error = at_most_once.get().unwrap_err();
    assert_eq!((error.kind(), error.item(), error.attempts()), (ErrorKind::AgentLost, Some(0), 1), "{error}");
    assert!(error.to_string().contains("may have run") && error.to_string().contains("retries"), "{error}");
    answer_call(&peer, &pool, 3);
}

#[test]
fn reconnecting_stops_after_the_timeout() {
    let (server, peer, pool) = opened_with(Duration::from_millis(700));
    let map = pool.map_async(double, 0..3);
    peer.receive_job();
    server.refuse(Some(Status::unavailable("the coordinator is down")));
    let start = Instant::now();
    peer.cut();
    let mut early = pool.apply_async(double, (1,));
    let waiting = early.get_timeout(Duration::from_millis(300)).unwrap_err();
    assert_eq!(waiting.kind(), ErrorKind::WaitTimedOut);
    assert!(waiting.to_string().contains("was lost (the test has cut the connection); trying again"), "{waiting}");
    for error in [map.get().unwrap_err(), early.get().unwrap_err(), pool.apply(double, (1,)).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let message = error.to_string();
        let words = [
            "was lost while 2 jobs were open: the test has cut the connection",
            "700ms",
            "the coordinator is down",
            "reconnect_timeout",
        ];
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
    let took = start.elapsed();
    assert!((Duration::from_millis(700)..Duration::from_secs(3)).contains(&took), "{took:?}");
}

#[test]
fn a_refused_client_does_not_retry() {
    for (refusal, kind) in [
        (Status::failed_precondition("install the same release on both sides"), ErrorKind::Unavailable),
        (Status::unauthenticated("install the same release on both sides"), ErrorKind::Unauthenticated),
    ] {
        let (server, peer, pool) = opened_with_reconnect();
        let map = pool.map_async(double, 0..3);
        peer.receive_job();
        server.refuse(Some(refusal));
        let start = Instant::now();
        peer.cut();
        let error = map.get().unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains("install the same release"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_coordinator_may_restart_late() {
    let (server, peer, pool) = opened_with_reconnect();
    let map = pool.map_async(double, 0..3);
    let (job, _) = peer.receive_job();
    server.refuse(Some(Status::resource_exhausted("too many connections")));
    peer.cut();
    thread::sleep(Duration::from_millis(400));
    server.refuse(None);
    send_results(&peer, job, 0..3);
    peer.send_job_ended(job, false);
    assert_eq!(map.get().unwrap(), doubles(3));
}

/// The coordinator's welcome is lost, and it restarts.
#[test]
fn a_pool_whose_welcome_was_lost_is_reopened() {
    let (server, peer, pool) = opened_with_reconnect();
    let map = pool.map_async(double, 0..3);
    let (job, _) = peer.receive_job();
    server.forget();
    peer.cut();
    let unwelcome = server.next_session();
    assert!(matches!(unwelcome.receive(), Body::OpenPool(open) if open.again));
    unwelcome.cut();
    let peer = server.next_session();
    assert!(peer.welcome(2).again);
    assert_eq!(server.resumed(), 0);
    assert!(matches!(peer.receive_resent()[..], [Body::OpenJob(_), Body::Items(_), .., Body::EndItems(_)]));
    send_results(&peer, job, 0..3);
    peer.send_job_ended(job, false);
    assert_eq!(map.get().unwrap(), doubles(3));
}

#[test]
fn ending_a_pool_does_not_wait_for_a_reconnect() {
    fn check(end: impl FnOnce(Pool), jobs: bool) {
        let (server, peer, pool) = opened_with_reconnect();
        let map = jobs.then(|| {
            let map = pool.map_async(double, 0..3);
            peer.receive_job();
            map
        });
        server.refuse(Some(Status::unavailable("the coordinator is down")));
        peer.cut();
        peer.wait_for_disconnect();
        let start = Instant::now();
        end(pool);
        if let Some(map) = map {
            assert_eq!(map.get().unwrap_err().kind(), ErrorKind::Cancelled);
        }
        assert!(start.elapsed() < Duration::from_millis(500), "took {:?}", start.elapsed());
    }
    check(drop, true);
    check(
        |pool| {
            pool.terminate();
            pool.join().unwrap();
        },
        true,
    );
    check(
        |pool| {
            pool.close();
            pool.join().unwrap();
        },
        false,
    );
}

#[test]
fn a_job_cancelled_while_disconnected_ends_at_once() {
    let (server, peer, pool) = opened_with_reconnect();
    let map = pool.map_async(double, 0..3);
    let (job, _) = peer.receive_job();
    server.refuse(Some(Status::unavailable("the coordinator is down")));
    peer.cut();
    peer.wait_for_disconnect();
    thread::sleep(Duration::from_millis(100));
    map.cancel();
    let start = Instant::now();
    assert_eq!(map.get().unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(start.elapsed() < Duration::from_millis(500));
    server.refuse(None);
    // The coordinator is informed.
    assert!(matches!(peer.receive(), Body::CancelJob(cancel) if cancel.job == job));
    peer.send_job_ended(job, true);
    answer_call(&peer, &pool, 5);
}

#[test]
fn an_interrupted_program_is_sent_again() {
    let (server, peer, pool) = opened_with_reconnect();
    let own = farpool_session::caller_driven::own_digest().unwrap();
    server.hold_next_program();
    peer.send(Event::ProgramWanted(ProgramWanted { digest: own.clone() }));
    server.wait_for_held_program();
    peer.cut();
    let pieces = server.next_program();
    assert_eq!(pieces[0].digest, own);
    let sent: Vec<u8> = pieces.iter().flat_map(|piece| piece.data.iter().copied()).collect();
    assert_eq!(zstd::decode_all(&sent[..]).unwrap().len() as u64, pieces[0].size);
    answer_call(&peer, &pool, 5);
}

/// A client may send its program to a new coordinator before that one needs it. The refusal may then arrive after the request.
#[test]
fn a_program_that_is_requested_while_it_is_sent_is_sent_again() {
    let (server, peer, pool) = opened_with_reconnect();
    let own = farpool_session::caller_driven::own_digest().unwrap();
    let request = || peer.send(Event::ProgramWanted(ProgramWanted { digest: own.clone() }));
    server.hold_next_program();
    request();
    server.wait_for_held_program();
    request();
    // Afterwards, the client has received both requests.
    answer_call(&peer, &pool, 5);
    server.refuse_held_program();
    assert_eq!(server.next_program()[0].digest, own);
    // It is sent again, however soon the next request comes.
    request();
    assert_eq!(server.next_program()[0].digest, own);
}

/// Calls the pool and answers the call.
fn answer_call(peer: &Peer, pool: &Pool, item: u64) {
    let result = pool.apply_async(double, (item,));
    let (job, _) = peer.receive_job();
    peer.send_done(job, 0, &encoded(&(2 * item)));
    peer.send_job_ended(job, false);
    assert_eq!(result.get().unwrap(), 2 * item);
}
