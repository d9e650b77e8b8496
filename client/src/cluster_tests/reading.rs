//! A slow consumer stops the session from reading, without a deadlock.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use farpool_proto::v1::client_message::Body;
use farpool_testkit::coordinator::clients::items_in;

use super::*;
use crate::imap::Imap;

const MIB: usize = 1 << 20;

fn make(_: u64) -> Vec<u8> {
    Vec::new()
}

type Results = Imap<std::ops::Range<u64>, Vec<u8>>;

/// Returns an imap of 160 items, whose results of 1 MiB are sent in this order. The first result was taken.
fn imap_with_results(peer: &Peer, pool: &Pool, order: impl Iterator<Item = u64>) -> (u64, Results) {
    let mut results = pool.job(make).buffersize(160).imap(0..160);
    let result = encoded(&vec![7_u8; MIB]);
    let job = thread::scope(|scope| {
        let first = scope.spawn(|| results.next().unwrap().unwrap().len());
        let Body::OpenJob(open) = peer.receive() else { panic!("the message is not OpenJob") };
        // Results may only be sent for items that have arrived.
        let mut received = 0;
        while received < 160 {
            let Body::Items(items) = peer.receive() else { panic!("the message is not Items") };
            received += items_in(&items).1.len();
        }
        order.for_each(|item| peer.send_done(open.job, item, &result));
        assert_eq!(first.join().unwrap(), MIB);
        open.job
    });
    (job, results)
}

/// Waits until the session stops reading; returns how many MiB it has not read.
fn unread_when_idle(peer: &Peer) -> usize {
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
fn results_that_are_not_taken_stay_with_the_coordinator() {
    let (_server, peer, pool) = opened();
    let (_, mut results) = imap_with_results(&peer, &pool, 0..160);
    // 64 MiB were delivered, and 16 MiB may be in flight.
    let unread = unread_when_idle(&peer);
    assert!(unread > 50, "only {unread} MiB are left");
    // The consumer resumes and takes everything.
    for _ in 1..160 {
        assert_eq!(results.next().unwrap().unwrap().len(), MIB);
    }
    assert_eq!(unread_when_idle(&peer), 0);
}

#[test]
fn the_next_item_gets_through_behind_others() {
    let (_server, peer, pool) = opened();
    let (_, mut results) = imap_with_results(&peer, &pool, [0].into_iter().chain((1..160).rev()));
    assert!(unread_when_idle(&peer) > 50);
    for _ in 1..160 {
        assert_eq!(results.next().unwrap().unwrap().len(), MIB);
    }
}

/// A caller that waits for another job's outcome is blocked by the unread results, too.
#[test]
fn other_jobs_get_through() {
    fn check(wait: impl FnOnce(crate::AsyncResult<u64>) -> u64 + Send) {
        let (_server, peer, pool) = opened();
        let (_, results) = imap_with_results(&peer, &pool, 0..160);
        assert!(unread_when_idle(&peer) > 50);
        let other = pool.apply_async(double, (4,));
        let job = loop {
            if let Body::OpenJob(open) = peer.receive() {
                break open.job;
            }
        };
        peer.send_done(job, 0, &encoded(&8_u64));
        peer.send_job_ended(job, false);
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
fn a_dropped_imap_does_not_stop_reading() {
    let (_server, peer, pool) = opened();
    let (_, results) = imap_with_results(&peer, &pool, 0..160);
    assert!(unread_when_idle(&peer) > 50);
    drop(results);
    assert_eq!(unread_when_idle(&peer), 0);
}

#[test]
fn terminate_gets_through() {
    let (_server, peer, pool) = opened();
    let (job, results) = imap_with_results(&peer, &pool, 0..160);
    assert!(unread_when_idle(&peer) > 50);
    peer.stop_closing_terminated();
    pool.terminate();
    peer.send_job_ended(job, true);
    peer.send_closed();
    let start = Instant::now();
    pool.join().unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
    drop(results);
}
