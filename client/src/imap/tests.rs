use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Wake, Waker};
use std::thread;

use farpool_session::{Delivery, Held};

use super::arrivals::Arrivals;
use super::*;
use crate::error::ErrorKind;
use crate::fake_session::{FakeSession, Pick, WINDOW, done, panicked};

fn double(n: u64) -> u64 {
    2 * n
}

/// Returns an iterator over the numbers from 0, and a count of how many were pulled.
fn counted() -> (Arc<AtomicU64>, impl Iterator<Item = u64>) {
    let pulled = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&pulled);
    let numbers = (0..).inspect(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    (pulled, numbers)
}

#[test]
fn imap_keeps_the_order_and_imap_unordered_returns_everything() {
    for pick in [Pick::First, Pick::Last, Pick::Random] {
        let (session, pool) = FakeSession::mapping(double).picking(pick).pool();
        let expected: Vec<u64> = (0..2000).map(double).collect();
        let ordered: Vec<u64> = pool.imap(double, 0..2000).map(Result::unwrap).collect();
        assert_eq!(ordered, expected, "{pick:?}");
        let mut unordered: Vec<u64> = pool.imap_unordered(double, 0..2000).map(Result::unwrap).collect();
        assert_eq!(unordered.is_sorted(), matches!(pick, Pick::First));
        unordered.sort_unstable();
        assert_eq!(unordered, expected, "{pick:?}");
        assert_eq!((session.open(), session.cancelled()), (0, 0));
        assert!(pool.imap(double, []).next().is_none());
    }
}

#[test]
fn input_is_pulled_on_demand_and_up_to_the_buffersize() {
    for buffersize in [1, 2, 7, 100, 1000] {
        let (_, pool) = FakeSession::mapping(double).picking(Pick::Last).pool();
        let (pulled, numbers) = counted();
        let mut imap = pool.job(double).buffersize(buffersize).imap(numbers);
        assert_eq!(pulled.load(Ordering::Relaxed), 0);
        for taken in 0..3000 {
            assert_eq!(imap.next().unwrap().unwrap(), 2 * taken);
            let ahead = pulled.load(Ordering::Relaxed) - taken;
            assert!(ahead <= buffersize, "{ahead} ahead of {taken}, and {buffersize} allowed");
        }
    }
}

#[test]
fn an_endless_input_is_pulled_a_bounded_distance_and_dropping_cancels() {
    let (session, pool) = FakeSession::mapping(double).pool();
    let (pulled, numbers) = counted();
    let mut imap = pool.imap(double, numbers);
    assert_eq!(imap.by_ref().take(10).count(), 10);
    assert!(pulled.load(Ordering::Relaxed) <= 100);
    assert_eq!(imap.by_ref().take(100_000).count(), 100_000);
    assert!(pulled.load(Ordering::Relaxed) <= 100_010 + 16_384);
    assert_eq!((session.open(), session.cancelled()), (1, 0));
    drop(imap);
    assert_eq!((session.open(), session.cancelled()), (0, 1));
    drop(pool.imap(double, [1]));
    assert_eq!(session.cancelled(), 1);
}

#[test]
fn the_bytes_ahead_of_the_consumer_are_bounded() {
    fn same(bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }
    const ITEM: usize = 100 << 10;
    // Results arrive together and are taken one by one, while several items fit into a batch.
    let (session, pool) = FakeSession::mapping(same).manual_delivery().pool();
    let (pulled, numbers) = counted();
    let mut imap = pool.job(same).buffersize(100_000).imap(numbers.map(|_| vec![0; ITEM]));
    thread::scope(|scope| {
        let taker = scope.spawn(|| assert_eq!(imap.by_ref().take(400).filter(Result::is_ok).count(), 400));
        while !taker.is_finished() {
            session.deliver(1000);
            thread::yield_now();
        }
    });
    let ahead = pulled.load(Ordering::Relaxed) - 400;
    assert!(ahead <= WINDOW / ITEM as u64 + 5, "{ahead}");
    assert!(session.most_bytes() as u64 <= WINDOW + (1 << 20));
}

#[test]
fn a_failed_item_does_not_end_the_iteration() {
    let answer = |item, _: &[u8]| if item % 3 == 1 { panicked("one in three") } else { done(&item) };
    for order in [Order::Input, Order::Completion] {
        let (_, pool) = FakeSession::answering(answer).picking(Pick::Random).pool();
        let outcomes: Vec<_> = match order {
            Order::Input => pool.imap(double, 0..100).collect(),
            Order::Completion => pool.imap_unordered(double, 0..100).collect(),
        };
        let mut failed: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()?.item()).collect();
        failed.sort_unstable();
        assert_eq!((outcomes.len(), failed), (100, (0..100).filter(|n| n % 3 == 1).collect()));
    }
}

#[test]
fn items_failed_as_a_range_are_returned_one_by_one() {
    let inbox = farpool_session::Inbox::new(1, "imap", "", farpool_session::Interest::Outcomes);
    inbox.set_pulled(6);
    let alike = |first, count| {
        let error = farpool_session::Error::new(ErrorKind::AgentLost, "gone");
        Delivery::Failed { first, count, error, held: Held::default() }
    };
    for (order, expected) in [(Order::Input, [0, 1, 2, 3, 4, 5]), (Order::Completion, [4, 5, 0, 1, 2, 3])] {
        let mut arrivals = Arrivals::new(order);
        arrivals.add(alike(4, 2), &inbox).unwrap();
        arrivals.add(alike(0, 3), &inbox).unwrap();
        arrivals.add(alike(3, 1), &inbox).unwrap();
        let mut pop = || arrivals.pop::<u64>(&inbox).unwrap().map(|outcome| outcome.unwrap_err().item().unwrap());
        let items: Vec<u64> = std::iter::from_fn(&mut pop).collect();
        assert_eq!(items, expected, "{order:?}");
    }
    let mut arrivals = Arrivals::new(Order::Input);
    arrivals.add(alike(5, 2), &inbox).unwrap_err();
    arrivals.add(alike(u64::MAX, 2), &inbox).unwrap_err();
}

#[test]
fn a_panicking_input_affects_only_its_caller() {
    let (session, pool) = FakeSession::mapping(double).pool();
    for from in [0, 20] {
        let before = session.cancelled();
        let mut imap = pool.imap(double, (0..50).inspect(|&n| assert!(n < from, "no more")));
        let panic = catch_unwind(AssertUnwindSafe(|| imap.by_ref().count())).unwrap_err();
        assert_eq!(crate::panics::message(&*panic), "no more");
        assert!(imap.next().is_none());
        assert_eq!(session.cancelled() - before, u32::from(from > 0));
        assert_eq!(session.open(), 0);
    }
    assert_eq!(pool.apply(double, (4,)).unwrap(), 8);
}

#[test]
fn the_error_of_the_pool_is_the_last_outcome() {
    let (_, pool) = FakeSession::mapping(double).pool();
    let mut imap = pool.imap(double, 0..);
    assert_eq!(imap.next().unwrap().unwrap(), 0);
    pool.terminate();
    // Outcomes that had arrived are still returned.
    let last = imap.by_ref().find_map(Result::err).unwrap();
    assert_eq!(last.kind(), ErrorKind::Cancelled);
    assert!(imap.next().is_none());
    drop(pool);
}

#[test]
fn small_buffers_hold_a_complete_chunk() {
    let (_, pool) = FakeSession::mapping(double).whole_chunks().picking(Pick::Random).pool();
    let imap = pool.job(double).chunksize(100).buffersize(100).imap(0..1050);
    assert_eq!(imap.map(Result::unwrap).collect::<Vec<_>>(), (0..1050).map(double).collect::<Vec<_>>());
    assert_eq!(pool.job(double).chunksize(1000).imap_unordered(0..5001).count(), 5001);
}

struct CountWakes(AtomicU64);

impl Wake for CountWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_stream_wakes_its_task_for_outcomes_and_the_end() {
    let (session, pool) = FakeSession::mapping(double).manual_delivery().pool();
    let wakes = Arc::new(CountWakes(AtomicU64::new(0)));
    let waker = Waker::from(Arc::clone(&wakes));
    let mut context = Context::from_waker(&waker);
    let mut stream = pin!(pool.imap(double, 0..3));
    let mut poll = || stream.as_mut().poll_next(&mut context).map(Option::transpose).map(Result::unwrap);
    let woken = || wakes.0.swap(0, Ordering::Relaxed);
    assert_eq!((poll(), woken()), (Poll::Pending, 0));
    assert_eq!((session.deliver(2), woken()), (2, 1));
    assert_eq!([poll(), poll(), poll()], [Poll::Ready(Some(0)), Poll::Ready(Some(2)), Poll::Pending]);
    assert_eq!((session.deliver(2), woken()), (1, 1));
    assert_eq!([poll(), poll(), poll()], [Poll::Ready(Some(4)), Poll::Ready(None), Poll::Ready(None)]);
}

#[test]
fn a_stream_wakes_its_task_for_room() {
    let (session, pool) = FakeSession::mapping(double).manual_delivery().window(1).pool();
    let wakes = Arc::new(CountWakes(AtomicU64::new(0)));
    let waker = Waker::from(Arc::clone(&wakes));
    let mut context = Context::from_waker(&waker);
    let mut stream = pin!(pool.job(double).buffersize(1).imap(0..));
    let mut poll = || stream.as_mut().poll_next(&mut context).map(Option::transpose).map(Result::unwrap);
    let woken = || wakes.0.swap(0, Ordering::Relaxed);
    for item in 0..5 {
        assert_eq!((poll(), woken()), (Poll::Pending, 0));
        assert_eq!((session.deliver(9), woken()), (1, 1));
        assert_eq!([poll(), poll()], [Poll::Ready(Some(2 * item)), Poll::Pending]);
        assert_eq!(session.deliver(9), 0, "an item arrived without room for it");
        session.grant();
        assert_eq!(woken(), 1);
    }
}
