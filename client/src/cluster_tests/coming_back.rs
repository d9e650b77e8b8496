//! Connections that are lost, and coordinators that know nothing any more.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{Failure, FailureKind, ItemsFailed, OpenPool, PoolAt, ProgramWanted, Window};
use tonic::Status;

use super::server::items_in;
use super::*;
use crate::error::{Error, ErrorKind};

/// The same as `opened`, by a client that does not give up soon.
fn patient() -> (Server, Peer, Pool) {
    opened_with(Duration::from_secs(20))
}

/// Lets the client hear all that was said, and has it open its pool again at a coordinator of this name; returns what it wants.
fn again(server: &Server, peer: &Peer, pool: &Pool, coordinator: &'static str) -> (Peer, Wanted) {
    serve(peer, pool, 77);
    server.forget();
    peer.cut();
    let peer = server.session();
    let open = peer.welcome_by(coordinator, 1 << 20, 2);
    assert!(open.again);
    let mut wanted = Wanted::default();
    for body in peer.hear_all_again() {
        match body {
            Body::OpenJob(open) => drop(wanted.items.insert(open.job, Vec::new())),
            Body::Items(items) => {
                let (first, each) = items_in(&items);
                let job = wanted.items.get_mut(&items.job).unwrap();
                job.extend((first..).zip(each.into_iter().map(<[u8]>::to_vec)));
            }
            Body::EndItems(end) => wanted.ended.push(end.job),
            other => panic!("{other:?} has no place here"),
        }
    }
    (peer, wanted)
}

#[derive(Debug, Default)]
struct Wanted {
    items: BTreeMap<u64, Vec<(u64, Vec<u8>)>>,
    ended: Vec<u64>,
}

impl Wanted {
    fn indices(&self, job: u64) -> Vec<u64> {
        self.items[&job].iter().map(|(item, _)| *item).collect()
    }
}

fn finish(peer: &Peer, job: u64, items: impl IntoIterator<Item = u64>) {
    items.into_iter().for_each(|item| peer.say_done(job, item, &encoded(&(2 * item))));
}

fn doubles(items: u64) -> Vec<u64> {
    (0..items).map(double).collect()
}

#[test]
fn a_session_goes_on_over_another_connection() {
    let (server, peer, pool) = patient();
    let map = pool.map_async(double, 0..100);
    let (job, items) = peer.hear_job();
    assert_eq!(items, 100);
    finish(&peer, job, 0..30);
    for cut in 0..3 {
        peer.cut();
        finish(&peer, job, 30 + cut * 10..40 + cut * 10);
        // What is said meanwhile is not lost either.
        let other = pool.apply_async(double, (cut,));
        let (single, _) = peer.hear_job();
        peer.say_done(single, 0, &encoded(&(2 * cut)));
        peer.say_ended(single, false);
        assert_eq!(other.get().unwrap(), 2 * cut);
        assert_eq!(server.resumed(), cut as u32 + 1);
    }
    finish(&peer, job, 60..100);
    peer.say_ended(job, false);
    assert_eq!(map.get().unwrap(), doubles(100));
}

#[test]
fn a_coordinator_that_is_another_one_gets_what_has_no_outcome() {
    let (server, peer, pool) = patient();
    peer.say(Event::PoolAt(PoolAt { agent: vec![1; 16].into(), gone: false }));
    let map = pool.job(double).chunksize(4).map_async(0..20);
    let (job, _) = peer.hear_job();
    finish(&peer, job, (0..5).chain([8, 19]));
    // Has all its outcomes, and nobody has said so.
    let single = pool.apply_async(double, (4,));
    let (alone, _) = peer.hear_job();
    peer.say_done(alone, 0, &encoded(&8_u64));
    // Ends before the coordinator does.
    let done = pool.apply_async(double, (5,));
    let (gone, _) = peer.hear_job();
    peer.say_done(gone, 0, &encoded(&10_u64));
    peer.say_ended(gone, false);
    assert_eq!(done.get().unwrap(), 10);
    let (peer, wanted) = again(&server, &peer, &pool, "two");
    assert_eq!(wanted.items.keys().copied().collect::<Vec<_>>(), [job, alone]);
    assert_eq!(wanted.indices(job), [5, 6, 7].into_iter().chain(9..19).collect::<Vec<_>>());
    assert!(wanted.items[&job].iter().all(|(item, bytes)| *bytes == encoded(item)), "{wanted:?}");
    assert_eq!((wanted.indices(alone), &wanted.ended), (vec![], &vec![job, alone]));
    finish(&peer, job, [5, 6, 7].into_iter().chain(9..15));
    peer.say_ended(alone, false);
    assert_eq!(single.get().unwrap(), 8);
    // And that one is followed by a third.
    let (peer, wanted) = again(&server, &peer, &pool, "three");
    assert_eq!(wanted.indices(job), (15..19).collect::<Vec<_>>());
    finish(&peer, job, 15..19);
    peer.say_ended(job, false);
    assert_eq!(map.get().unwrap(), doubles(20));
}

#[test]
fn a_pool_that_is_opened_again_is_the_same_one() {
    let server = Server::start();
    let address = server.address.clone();
    let settings = Settings { weight: 3, reconnect_timeout: Duration::from_secs(20), ..settings(5) };
    let client = thread::spawn(move || open(&address, settings));
    let peer = server.session();
    let first = peer.welcome(2);
    let pool = client.join().unwrap().unwrap();
    assert!(!first.again && first.secret.len() == 32 && first.id.is_empty() && first.agents.is_empty());
    for (agent, gone) in [(2, false), (1, false), (3, false), (2, true)] {
        peer.say(Event::PoolAt(PoolAt { agent: vec![agent; 16].into(), gone }));
    }
    // What was said before is known when this is over.
    serve(&peer, &pool, 1);
    server.forget();
    peer.cut();
    let peer = server.session();
    let second = peer.welcome_by("two", 1 << 20, 2);
    assert_eq!(second.agents, [vec![1; 16], vec![3; 16]]);
    assert!(second.again);
    assert_eq!(OpenPool { again: false, agents: Vec::new(), ..second }, first);
    assert_eq!(peer.hear_all_again(), []);
    serve(&peer, &pool, 2);
}

#[test]
fn an_input_that_goes_on_and_a_limit_that_is_another_one() {
    let (server, peer, pool) = patient();
    // 1 MiB may be on its way: ten items and the one that crosses it.
    let items = (0..40_u64).map(|item| (item, vec![item as u8; 100_000]));
    let feeding = thread::scope(|scope| {
        let map = scope.spawn(|| pool.starmap(|item: u64, _: Vec<u8>| 2 * item, items));
        let Body::OpenJob(opened) = peer.hear() else { panic!("a job is opened") };
        let mut heard = 0;
        while heard < 11 {
            let Body::Items(items) = peer.hear() else { panic!("items follow") };
            heard += items_in(&items).1.len();
        }
        finish(&peer, opened.job, 0..6);
        serve(&peer, &pool, 77);
        server.forget();
        peer.cut();
        let peer = server.session();
        // Less than there was: five items are on their way already.
        assert!(peer.welcome_by("two", 300_000, 2).again);
        let wanted = peer.hear_all_again();
        let [Body::OpenJob(_), rest @ ..] = &wanted[..] else { panic!("{wanted:?}") };
        let count = |body: &Body| if let Body::Items(items) = body { items_in(items).1.len() } else { 0 };
        assert_eq!(rest.iter().map(count).sum::<usize>(), heard - 6);
        assert!(!rest.iter().any(|body| matches!(body, Body::EndItems(_))));
        assert!(peer.is_silent());
        // The limit is in the coordinator's count: what it has got, and two items more.
        let got: usize =
            rest.iter().map(|body| if let Body::Items(i) = body { i.data.len() + i.ends.len() } else { 0 }).sum();
        finish(&peer, opened.job, 6..heard as u64);
        peer.say(Event::Window(Window { job: opened.job, limit: got as u64 + 150_000 }));
        let Body::Items(more) = peer.hear() else { panic!("there is room") };
        assert_eq!(more.first, heard as u64);
        assert!(peer.is_silent());
        peer.say(Event::Window(Window { job: opened.job, limit: 1 << 30 }));
        while !matches!(peer.hear(), Body::EndItems(_)) {}
        finish(&peer, opened.job, heard as u64..40);
        peer.say_ended(opened.job, false);
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
        let (job, items) = peer.hear_job();
        assert_eq!(items, 4);
        peer.say_done(job, 1, &encoded(&2_u64));
        let (peer, wanted) = again(&server, &peer, &pool, "two");
        assert_eq!(wanted.indices(job), [0, 3, 6]);
        for (item, length) in [(6, 4_u64), (3, 3), (0, 1)] {
            peer.say_done(job, item, &encoded(&length));
        }
        peer.say_ended(job, false);
        assert_eq!(all.join().unwrap(), [Some(1), Some(2), None, Some(3), None, None, Some(4)]);
    });
}

#[test]
fn an_outcome_counts_once() {
    let (_server, peer, pool) = patient();
    let mut results = pool.imap_unordered(double, 0..4);
    thread::scope(|scope| {
        let all = scope.spawn(move || results.by_ref().map(Result::unwrap).collect::<Vec<_>>());
        let (job, _) = peer.hear_job();
        finish(&peer, job, [1, 1, 0, 1, 3, 0, 2, 3]);
        peer.say_ended(job, false);
        assert_eq!(all.join().unwrap(), [2, 0, 6, 4]);
    });
}

#[test]
fn of_items_that_failed_alike_only_those_count_that_have_no_outcome() {
    let (_server, peer, pool) = patient();
    let mut results = pool.imap_unordered(double, 0..7);
    thread::scope(|scope| {
        let all = scope.spawn(move || {
            let index = |outcome: Result<u64, Error>| outcome.unwrap_or_else(|error| 100 + error.item().unwrap());
            results.by_ref().map(index).collect::<Vec<_>>()
        });
        let (job, _) = peer.hear_job();
        finish(&peer, job, [1, 5]);
        for (first, count) in [(3, 1), (0, 6), (5, 1)] {
            let failure = Some(Failure { kind: FailureKind::AgentLost.into(), ..Failure::default() });
            peer.say(Event::ItemsFailed(Box::new(ItemsFailed { job, first, count, failure })));
        }
        finish(&peer, job, [4, 6]);
        peer.say_ended(job, false);
        assert_eq!(all.join().unwrap(), [2, 10, 103, 100, 102, 104, 12]);
    });
}

#[test]
fn a_closed_pool_finishes_what_it_has() {
    let (server, peer, pool) = patient();
    let map = pool.map_async(double, 0..3);
    let (job, _) = peer.hear_job();
    pool.close();
    assert!(matches!(peer.hear(), Body::ClosePool(close) if !close.now));
    server.forget();
    peer.cut();
    let peer = server.session();
    peer.welcome_by("two", 1 << 20, 2);
    assert!(matches!(peer.hear_all_again()[..], [Body::OpenJob(_), Body::Items(_), .., Body::EndItems(_)]));
    assert!(matches!(peer.hear(), Body::ClosePool(close) if !close.now));
    finish(&peer, job, 0..3);
    peer.say_ended(job, false);
    peer.say_closed();
    pool.join().unwrap();
    assert_eq!(map.get().unwrap(), doubles(3));
}

#[test]
fn what_may_run_once_only_is_sent_again_to_another_coordinator_only() {
    let (server, peer, pool) = patient();
    let at_most_once = pool.job(double).retries(0).map_async(0..4);
    let (job, _) = peer.hear_job();
    finish(&peer, job, [1]);
    let (peer, wanted) = again(&server, &peer, &pool, "two");
    assert_eq!(wanted.indices(job), [0, 2, 3]);
    finish(&peer, job, [3]);
    // It is still itself, and has given the pool up.
    let (peer, wanted) = again(&server, &peer, &pool, "two");
    assert_eq!((wanted.indices(job), wanted.ended), (vec![], vec![job]));
    peer.say_ended(job, false);
    let error = at_most_once.get().unwrap_err();
    assert_eq!((error.kind(), error.item(), error.attempts()), (ErrorKind::AgentLost, Some(0), 1), "{error}");
    assert!(error.to_string().contains("may have run") && error.to_string().contains("retries"), "{error}");
    serve(&peer, &pool, 3);
}

#[test]
fn a_coordinator_that_stays_away_is_given_up() {
    let (server, peer, pool) = opened_with(Duration::from_millis(700));
    let map = pool.map_async(double, 0..3);
    peer.hear_job();
    server.refuse(Some(Status::unavailable("nobody is at home")));
    let start = Instant::now();
    peer.cut();
    let mut early = pool.apply_async(double, (1,));
    let waiting = early.get_timeout(Duration::from_millis(300)).unwrap_err();
    assert_eq!(waiting.kind(), ErrorKind::WaitTimedOut);
    assert!(waiting.to_string().contains("was lost (the cable was cut); trying again"), "{waiting}");
    for error in [map.get().unwrap_err(), early.get().unwrap_err(), pool.apply(double, (1,)).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let story = error.to_string();
        let words =
            ["was lost while 2 jobs were open: the cable was cut", "700ms", "nobody is at home", "reconnect_timeout"];
        assert!(words.iter().all(|word| story.contains(word)), "{story}");
    }
    let took = start.elapsed();
    assert!((Duration::from_millis(700)..Duration::from_secs(3)).contains(&took), "{took:?}");
}

#[test]
fn a_refusal_is_not_asked_for_twice() {
    for (refusal, kind) in [
        (Status::failed_precondition("install the same release on both sides"), ErrorKind::Unavailable),
        (Status::unauthenticated("install the same release on both sides"), ErrorKind::Unauthenticated),
    ] {
        let (server, peer, pool) = patient();
        let map = pool.map_async(double, 0..3);
        peer.hear_job();
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
fn a_coordinator_may_take_its_time_to_come_back() {
    let (server, peer, pool) = patient();
    let map = pool.map_async(double, 0..3);
    let (job, _) = peer.hear_job();
    server.refuse(Some(Status::resource_exhausted("too many connections")));
    peer.cut();
    thread::sleep(Duration::from_millis(400));
    server.refuse(None);
    finish(&peer, job, 0..3);
    peer.say_ended(job, false);
    assert_eq!(map.get().unwrap(), doubles(3));
}

/// Its welcome is lost on the way, and so is what it knows.
#[test]
fn a_pool_that_was_not_welcomed_again_begins_anew() {
    let (server, peer, pool) = patient();
    let map = pool.map_async(double, 0..3);
    let (job, _) = peer.hear_job();
    server.forget();
    peer.cut();
    let unwelcome = server.session();
    assert!(matches!(unwelcome.hear(), Body::OpenPool(open) if open.again));
    unwelcome.cut();
    let peer = server.session();
    assert!(peer.welcome(2).again);
    assert_eq!(server.resumed(), 0);
    assert!(matches!(peer.hear_all_again()[..], [Body::OpenJob(_), Body::Items(_), .., Body::EndItems(_)]));
    finish(&peer, job, 0..3);
    peer.say_ended(job, false);
    assert_eq!(map.get().unwrap(), doubles(3));
}

#[test]
fn who_does_not_want_the_pool_any_more_does_not_wait() {
    fn check(end: impl FnOnce(Pool), jobs: bool) {
        let (server, peer, pool) = patient();
        let map = jobs.then(|| {
            let map = pool.map_async(double, 0..3);
            peer.hear_job();
            map
        });
        server.refuse(Some(Status::unavailable("nobody is at home")));
        peer.cut();
        peer.hear_the_end();
        let start = Instant::now();
        end(pool);
        if let Some(map) = map {
            assert_eq!(map.get().unwrap_err().kind(), ErrorKind::Cancelled);
        }
        assert!(start.elapsed() < Duration::from_millis(500), "it took {:?}", start.elapsed());
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
fn a_job_that_is_cancelled_meanwhile_ends_at_once() {
    let (server, peer, pool) = patient();
    let map = pool.map_async(double, 0..3);
    let (job, _) = peer.hear_job();
    server.refuse(Some(Status::unavailable("nobody is at home")));
    peer.cut();
    peer.hear_the_end();
    thread::sleep(Duration::from_millis(100));
    map.cancel();
    let start = Instant::now();
    assert_eq!(map.get().unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(start.elapsed() < Duration::from_millis(500));
    server.refuse(None);
    // The coordinator hears of it.
    assert!(matches!(peer.hear(), Body::CancelJob(cancel) if cancel.job == job));
    peer.say_ended(job, true);
    serve(&peer, &pool, 5);
}

#[test]
fn a_program_that_was_cut_is_sent_again() {
    let (server, peer, pool) = patient();
    let own = farpool_session::by_hand::own_digest().unwrap();
    server.swallow_a_program();
    peer.say(Event::ProgramWanted(ProgramWanted { digest: own.clone() }));
    server.swallowed();
    peer.cut();
    let pieces = server.program();
    assert_eq!(pieces[0].digest, own);
    let sent: Vec<u8> = pieces.iter().flat_map(|piece| piece.data.iter().copied()).collect();
    assert_eq!(zstd::decode_all(&sent[..]).unwrap().len() as u64, pieces[0].size);
    serve(&peer, &pool, 5);
}

/// A client that has a new coordinator may send it the program before that knows that somebody needs it, and learn of the refusal
/// after it was asked.
#[test]
fn a_program_that_is_wanted_while_it_is_sent_is_sent_again() {
    let (server, peer, pool) = patient();
    let own = farpool_session::by_hand::own_digest().unwrap();
    let wanted = || peer.say(Event::ProgramWanted(ProgramWanted { digest: own.clone() }));
    server.swallow_a_program();
    wanted();
    server.swallowed();
    wanted();
    // The client has heard all of that.
    serve(&peer, &pool, 5);
    server.refuse_the_swallowed();
    assert_eq!(server.program()[0].digest, own);
    // However soon it is wanted once more.
    wanted();
    assert_eq!(server.program()[0].digest, own);
}

/// A call is answered.
fn serve(peer: &Peer, pool: &Pool, item: u64) {
    let result = pool.apply_async(double, (item,));
    let (job, _) = peer.hear_job();
    peer.say_done(job, 0, &encoded(&(2 * item)));
    peer.say_ended(job, false);
    assert_eq!(result.get().unwrap(), 2 * item);
}
