//! Which thread drives a session. A counter tells how many calls drove it.

use farpool_proto::v1::PoolAt;
use farpool_proto::v1::client_event::Body as Event;
use farpool_session::caller_driven;

use super::*;
use crate::error::ErrorKind;

/// Returns a server, a pool with this reconnect timeout, and a function that counts the calls that drove the session.
fn opened_session(reconnect_timeout: Duration) -> (Server, Peer, Pool, impl Fn() -> u64) {
    let server = Server::start();
    let address = address_of(&server);
    let settings = Settings { reconnect_timeout, ..settings(0) };
    let client = thread::spawn(move || caller_driven::open_counting(address, settings, Arc::new(Terminal)).unwrap());
    let peer = server.next_session();
    peer.welcome(2);
    let (session, calls) = client.join().unwrap();
    (server, peer, Pool::with_session(session, 1 << 30), calls)
}

fn answer(peer: &Peer, argument: u64) {
    let (job, items) = peer.receive_job();
    assert_eq!(items, 1);
    peer.send_outcome(job, &encoded(&(2 * argument)));
}

#[test]
fn a_thread_that_waits_for_a_call_drives_the_session() {
    let (_server, peer, pool, calls) = opened_session(Duration::ZERO);
    thread::scope(|scope| {
        scope.spawn(|| (0..50).for_each(|argument| assert_eq!(pool.apply(double, (argument,)).unwrap(), 2 * argument)));
        (0..50).for_each(|argument| answer(&peer, argument));
    });
    assert_eq!(calls(), 50);
}

#[test]
fn a_thread_of_another_runtime_does_not_drive_the_session() {
    let (_server, peer, pool, calls) = opened_session(Duration::ZERO);
    thread::scope(|scope| {
        scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _within = runtime.enter();
            (0..3).for_each(|argument| assert_eq!(pool.apply(double, (argument,)).unwrap(), 2 * argument));
        });
        (0..3).for_each(|argument| answer(&peer, argument));
    });
    assert_eq!(calls(), 0);
}

#[test]
fn the_session_continues_after_its_driver_returns() {
    let (_server, peer, pool, calls) = opened_session(Duration::ZERO);
    thread::scope(|scope| {
        let call = scope.spawn(|| pool.apply(double, (1,)).unwrap());
        let (first, _) = peer.receive_job();
        let later = pool.apply_async(double, (2,));
        let (second, _) = peer.receive_job();
        peer.send_outcome(first, &encoded(&2_u64));
        assert_eq!(call.join().unwrap(), 2);
        assert_eq!(calls(), 1);
        peer.send_outcome(second, &encoded(&4_u64));
        assert_eq!(later.get().unwrap(), 4);
    });
}

#[test]
fn messages_are_sent_even_if_no_call_waits() {
    let (_server, peer, pool, _) = opened_session(Duration::ZERO);
    for argument in 0..10 {
        thread::scope(|scope| {
            scope.spawn(|| assert_eq!(pool.apply(double, (argument,)).unwrap(), 2 * argument));
            answer(&peer, argument);
        });
        let later = pool.apply_async(double, (argument,));
        answer(&peer, argument);
        assert_eq!(later.get().unwrap(), 2 * argument);
    }
    pool.close();
    peer.send_closed();
    pool.join().unwrap();
    peer.wait_for_disconnect();
}

#[test]
fn an_idle_session_is_driven_after_a_while() {
    let (_server, peer, pool, calls) = opened_session(Duration::ZERO);
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(pool.apply(double, (3,)).unwrap(), 6));
        answer(&peer, 3);
    });
    assert_eq!(calls(), 1);
    // Nothing starts at this agent before the client acknowledges this message.
    peer.send(Event::PoolAt(PoolAt { agent: vec![7; 16].into(), gone: false }));
    peer.wait_until_acknowledged();
}

#[test]
fn a_driving_call_reconnects() {
    let (server, peer, pool, calls) = opened_session(Duration::from_secs(20));
    thread::scope(|scope| {
        let call = scope.spawn(|| pool.apply(double, (5,)).unwrap());
        let (job, _) = peer.receive_job();
        peer.cut();
        peer.send_outcome(job, &encoded(&10_u64));
        assert_eq!(call.join().unwrap(), 10);
    });
    assert_eq!((server.resumed(), calls()), (1, 1));
}

#[test]
fn the_end_of_the_pool_ends_a_driving_call() {
    let (_server, peer, pool, _) = opened_session(Duration::ZERO);
    thread::scope(|scope| {
        let call = scope.spawn(|| pool.apply(double, (5,)).unwrap_err());
        peer.receive_job();
        pool.terminate();
        assert_eq!(call.join().unwrap().kind(), ErrorKind::Closed);
    });
    pool.join().unwrap();
    peer.wait_for_disconnect();
}
