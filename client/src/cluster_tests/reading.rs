//! A consumer that takes its time holds back the session's reading, and nothing ever waits for itself.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use farpool_proto::v1::client_message::Body;

use super::server::items_in;
use super::*;
use crate::imap::Imap;

const MIB: usize = 1 << 20;

fn make(_: u64) -> Vec<u8> {
    Vec::new()
}

type Results = Imap<std::ops::Range<u64>, Vec<u8>>;

/// An imap of 160 items, whose results of 1 MiB are on their way in this order, and of which the first was taken.
fn flooded(peer: &Peer, pool: &Pool, order: impl Iterator<Item = u64>) -> (u64, Results) {
    let mut results = pool.job(make).buffersize(160).imap(0..160);
    let result = encoded(&vec![7_u8; MIB]);
    let job = thread::scope(|scope| {
        let first = scope.spawn(|| results.next().unwrap().unwrap().len());
        let Body::OpenJob(open) = peer.hear() else { panic!("the job comes first") };
        // Nobody answers what was not asked.
        let mut heard = 0;
        while heard < 160 {
            let Body::Items(items) = peer.hear() else { panic!("items follow") };
            heard += items_in(&items).1.len();
        }
        order.for_each(|item| peer.say_done(open.job, item, &result));
        assert_eq!(first.join().unwrap(), MIB);
        open.job
    });
    (job, results)
}

/// Waits until the session reads no more; returns how many MiB it has left with the coordinator.
fn settled(peer: &Peer) -> usize {
    let mut last = usize::MAX;
    loop {
        let unread = peer.unread();
        if unread == last {
            return unread / MIB;
        }
        last = unread;
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn what_a_consumer_does_not_take_stays_with_the_coordinator() {
    let (_server, peer, pool) = opened();
    let (_, mut results) = flooded(&peer, &pool, 0..160);
    // 64 MiB were delivered, and 16 MiB may be on their way.
    let unread = settled(&peer);
    assert!(unread > 50, "only {unread} MiB are left");
    // A consumer that goes on takes all.
    for _ in 1..160 {
        assert_eq!(results.next().unwrap().unwrap().len(), MIB);
    }
    assert_eq!(settled(&peer), 0);
}

#[test]
fn the_item_that_is_next_gets_through_whatever_is_before_it() {
    let (_server, peer, pool) = opened();
    let (_, mut results) = flooded(&peer, &pool, [0].into_iter().chain((1..160).rev()));
    assert!(settled(&peer) > 50);
    for _ in 1..160 {
        assert_eq!(results.next().unwrap().unwrap().len(), MIB);
    }
}

/// Whoever waits for something else is behind the flood too.
#[test]
fn other_jobs_get_through() {
    fn check(wait: impl FnOnce(crate::AsyncResult<u64>) -> u64 + Send) {
        let (_server, peer, pool) = opened();
        let (_, results) = flooded(&peer, &pool, 0..160);
        assert!(settled(&peer) > 50);
        let other = pool.apply_async(double, (4,));
        let job = loop {
            if let Body::OpenJob(open) = peer.hear() {
                break open.job;
            }
        };
        peer.say_done(job, 0, &encoded(&8_u64));
        peer.say_ended(job, false);
        assert_eq!(wait(other), 8);
        drop(results);
    }
    check(|result| result.get().unwrap());
    check(|mut result| result.get_timeout(Duration::from_secs(20)).unwrap());
    check(|result| {
        while !result.ready() {
            thread::sleep(Duration::from_millis(1));
        }
        result.get().unwrap()
    });
    check(|result| {
        let mut result = pin!(result);
        loop {
            if let Poll::Ready(value) = result.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                break value.unwrap();
            }
            thread::sleep(Duration::from_millis(1));
        }
    });
    check(|result| {
        let (send, receive) = std::sync::mpsc::channel();
        drop(result.callback(move |value| send.send(*value).unwrap()));
        receive.recv_timeout(Duration::from_secs(20)).unwrap()
    });
}

#[test]
fn a_dropped_imap_holds_nothing_back() {
    let (_server, peer, pool) = opened();
    let (_, results) = flooded(&peer, &pool, 0..160);
    assert!(settled(&peer) > 50);
    drop(results);
    assert_eq!(settled(&peer), 0);
}

#[test]
fn terminate_gets_through() {
    let (_server, peer, pool) = opened();
    let (job, results) = flooded(&peer, &pool, 0..160);
    assert!(settled(&peer) > 50);
    peer.hold_on();
    pool.terminate();
    peer.say_ended(job, true);
    peer.say_closed();
    let start = Instant::now();
    pool.join().unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
    drop(results);
}
