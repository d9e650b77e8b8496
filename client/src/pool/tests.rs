use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::Builder;
use crate::args::Args;
use crate::fake_session::{FakeSession, Pick, WINDOW, done, panicked};

fn double(n: u64) -> u64 {
    2 * n
}

/// A value that cannot be encoded if it is odd.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
struct Even(u64);

impl serde::Serialize for Even {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 % 2 {
            0 => serializer.serialize_u64(self.0),
            _ => Err(serde::ser::Error::custom("it is odd")),
        }
    }
}

#[test]
fn map_keeps_the_order_of_items_whatever_the_order_of_outcomes() {
    for pick in [Pick::First, Pick::Last, Pick::Random] {
        let (_, pool) = FakeSession::mapping(double).picking(pick).pool();
        let expected: Vec<u64> = (0..3000).map(double).collect();
        assert_eq!(pool.map(double, 0..3000).unwrap(), expected, "{pick:?}");
        assert!(pool.map(double, []).unwrap().is_empty());
    }
}

#[test]
fn starmap_and_apply_pass_tuples() {
    fn join(a: String, b: Vec<u8>) -> usize {
        a.len() + b.len()
    }
    let session = FakeSession::answering(|_, bytes| {
        let (a, b) = <(String, Vec<u8>)>::decode(bytes).unwrap();
        done(&join(a, b))
    });
    let (_, pool) = session.pool();
    assert_eq!(pool.apply(join, ("ab".to_owned(), vec![1])).unwrap(), 3);
    assert_eq!(pool.starmap(join, [(String::new(), vec![]), ("a".to_owned(), vec![0; 4])]).unwrap(), [0, 5]);
}

proptest! {
    #[test]
    fn the_failure_with_the_lowest_index_is_returned_after_all_have_finished(failing in proptest::collection::btree_set(0_u64..200, 1..20)) {
        let lowest = *failing.first().unwrap();
        let session = FakeSession::answering(move |item, _| {
            if failing.contains(&item) { panicked(&format!("number {item}")) } else { done(&item) }
        });
        let (session, pool) = session.picking(Pick::Random).pool();
        let error = pool.job(double).label("x").map(0..200).unwrap_err();
        prop_assert_eq!((error.kind(), error.item()), (ErrorKind::Panicked, Some(lowest)));
        let message = error.to_string();
        prop_assert!(message.starts_with(&format!("map \"x\", item {lowest}: number {lowest}")), "{}", message);
        prop_assert_eq!((session.open(), session.cancelled()), (0, 0));
    }
}

#[test]
fn only_the_item_that_cannot_be_sent_fails() {
    fn inner(even: Even) -> u64 {
        even.0
    }
    let (_, pool) = FakeSession::mapping(inner).pool();
    let outcomes: Vec<_> = pool.imap(inner, [0, 2, 3, 5, 6].map(Even)).collect();
    let kinds: Vec<_> = outcomes.iter().map(|outcome| outcome.as_ref().map_err(Error::kind).copied()).collect();
    assert_eq!(kinds, [Ok(0), Ok(2), Err(ErrorKind::Codec), Err(ErrorKind::Codec), Ok(6)]);
    let error = pool.map(inner, [0, 2, 3, 5, 6].map(Even)).unwrap_err();
    assert_eq!(error.item(), Some(2));
    assert!(error.to_string().contains("Even: it is odd"), "{error}");
    assert_eq!(pool.apply(inner, (Even(1),)).unwrap_err().kind(), ErrorKind::Codec);
    assert_eq!(pool.map_async(inner, [Even(1), Even(2)]).get().unwrap_err().kind(), ErrorKind::Codec);
}

#[test]
fn only_the_item_above_the_limit_fails() {
    fn len(bytes: Vec<u8>) -> usize {
        bytes.len()
    }
    let (_, pool) = FakeSession::mapping(len).pool_with_limit(101);
    let sizes: Vec<_> = pool.imap(len, [100, 101, 3].map(|n| vec![0; n])).collect();
    assert_eq!((sizes[0].as_ref().unwrap(), sizes[2].as_ref().unwrap()), (&100, &3));
    let error = sizes[1].as_ref().unwrap_err();
    assert_eq!((error.kind(), error.item()), (ErrorKind::PayloadTooLarge, Some(1)));
    assert!(error.to_string().contains("102 bytes, and the limit is 101"), "{error}");
    assert_eq!(pool.apply(len, (vec![0; 200],)).unwrap_err().kind(), ErrorKind::PayloadTooLarge);
}

#[test]
fn no_more_than_the_window_is_in_flight() {
    fn len(bytes: Vec<u8>) -> usize {
        bytes.len()
    }
    let (session, pool) = FakeSession::mapping(len).pool();
    let sizes = pool.map(len, (0..200).map(|_| vec![7; 1 << 20])).unwrap();
    assert_eq!(sizes, vec![1 << 20; 200]);
    let most = session.most_bytes() as u64;
    assert!((WINDOW / 2..WINDOW + (2 << 20)).contains(&most), "{most}");
}

/// Window grants arrive separately, after the outcomes, from a thread that does nothing else.
#[test]
fn every_verb_continues_when_room_is_granted() {
    for window in [1, 50, 1000] {
        let (session, pool) = FakeSession::mapping(double).whole_chunks().window(window).pool();
        let expected: Vec<u64> = (0..300).map(double).collect();
        let running = AtomicBool::new(true);
        thread::scope(|scope| {
            scope.spawn(|| {
                while running.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_micros(100));
                    session.grant();
                }
            });
            assert_eq!(pool.map(double, 0..300).unwrap(), expected);
            assert_eq!(pool.map_async(double, 0..300).get().unwrap(), expected);
            let imap = pool.imap(double, 0..300);
            assert!(imap.map(Result::unwrap).eq(expected.iter().copied()));
            assert_eq!(pool.job(double).chunksize(70).map(0..300).unwrap(), expected);
            assert_eq!(pool.apply(double, (4,)).unwrap(), 8);
            running.store(false, Ordering::Relaxed);
        });
        assert_eq!(session.open(), 0);
    }
}

#[test]
fn an_explicit_chunk_is_completed_beyond_the_window() {
    fn len(bytes: Vec<u8>) -> usize {
        bytes.len()
    }
    let (session, pool) = FakeSession::mapping(len).whole_chunks().pool();
    let sizes = pool.job(len).chunksize(90).map((0..100).map(|_| vec![7; 1 << 20])).unwrap();
    assert_eq!(sizes.len(), 100);
    assert!(session.most_bytes() >= 90 << 20);
    let sizes = pool.job(len).chunksize(90).imap((0..100).map(|_| vec![7; 1 << 20]));
    assert_eq!(sizes.map(Result::unwrap).count(), 100);
}

#[test]
fn a_panicking_input_cancels_only_its_job() {
    let (session, pool) = FakeSession::mapping(double).pool();
    let fragile = || (0..50).inspect(|&n| assert!(n < 30, "no more"));
    let panic = catch_unwind(AssertUnwindSafe(|| pool.map(double, fragile()))).unwrap_err();
    assert_eq!(crate::panics::message(&*panic), "no more");
    assert_eq!((session.cancelled(), session.open()), (1, 0));
    let error = pool.map_async(double, fragile()).get().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Panicked);
    assert!(error.to_string().contains("the input iterator panicked after 30 items: no more"), "{error}");
    assert_eq!((session.cancelled(), session.open()), (2, 0));
    assert_eq!(pool.map(double, 0..3).unwrap(), [0, 2, 4]);
}

#[test]
fn a_closed_pool_finishes_and_rejects_new_calls() {
    let (_, pool) = FakeSession::mapping(double).pool();
    assert_eq!(pool.join().unwrap_err().kind(), ErrorKind::InvalidArgument);
    let before = pool.map_async(double, 0..100);
    pool.close();
    pool.close();
    check_closed(&pool, "the pool was closed before the call");
    pool.join().unwrap();
    assert_eq!(before.get().unwrap().len(), 100);
}

#[test]
fn a_terminated_pool_cancels_and_rejects_new_calls() {
    let (session, pool) = FakeSession::mapping(double).manual_delivery().pool();
    let before = pool.map_async(double, 0..100);
    pool.close();
    pool.terminate();
    pool.terminate();
    check_closed(&pool, "the pool was terminated before the call");
    pool.join().unwrap();
    assert_eq!(before.get().unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(session.cancelled(), 1);
}

fn check_closed(pool: &Pool, message: &str) {
    for error in [
        pool.apply(double, (1,)).unwrap_err(),
        pool.apply_async(double, (1,)).get().unwrap_err(),
        pool.map(double, [1]).unwrap_err(),
        pool.map_async(double, [1]).get().unwrap_err(),
        pool.starmap(double, [(1,)]).unwrap_err(),
        pool.starmap_async(double, [(1,)]).get().unwrap_err(),
        pool.imap(double, [1]).next().unwrap().unwrap_err(),
        pool.imap_unordered(double, [1]).next().unwrap().unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert!(error.to_string().ends_with(&format!("{message}; open another pool")), "{error}");
    }
    let mut closed = pool.imap(double, [1]);
    assert_eq!((closed.next().is_some(), closed.next().is_none()), (true, true));
}

#[test]
fn every_call_and_join_return_the_error_of_a_failed_pool() {
    let (session, pool) = FakeSession::mapping(double).manual_delivery().pool();
    let running = pool.apply_async(double, (1,));
    session.fail(&farpool_session::Error::new(ErrorKind::InitializerFailed, "no such file"));
    for error in [running.get().unwrap_err(), pool.map(double, [1]).unwrap_err(), pool.apply(double, (1,)).unwrap_err()]
    {
        assert_eq!(error.kind(), ErrorKind::InitializerFailed);
    }
    let error = pool.map_async(double, [1]).get().unwrap_err();
    assert_eq!(error.to_string(), "map_async: no such file; fix the initializer and open another pool");
    pool.close();
    assert_eq!(pool.join().unwrap_err().kind(), ErrorKind::InitializerFailed);
}

#[test]
fn dropping_a_pool_terminates_it() {
    let (session, pool) = FakeSession::mapping(double).manual_delivery().pool();
    let running = pool.apply_async(double, (1,));
    drop(pool);
    assert_eq!((session.cancelled(), session.open()), (1, 0));
    assert_eq!(running.get().unwrap_err().kind(), ErrorKind::Cancelled);
}

#[test]
fn every_verb_rejects_invalid_options() {
    let (session, pool) = FakeSession::mapping(double).pool();
    let job = pool.job(double).chunksize(0);
    for error in [
        job.map([1]).unwrap_err(),
        job.map_async([1]).get().unwrap_err(),
        job.apply((1,)).unwrap_err(),
        job.imap([1]).next().unwrap().unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("chunksize must be at least 1"), "{error}");
    }
    assert_eq!(session.open(), 0);
}

#[test]
fn types_are_send_and_sync() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<Pool>();
    shared::<Builder>();
    shared::<crate::AsyncResult<Vec<std::cell::Cell<u8>>>>();
    sent::<crate::Imap<std::ops::Range<u64>, std::rc::Rc<u8>>>();
}

#[test]
fn threads_share_a_pool() {
    let (_, pool) = FakeSession::mapping(double).picking(Pick::Random).pool();
    let failed = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let results = pool.map(double, 0..500).unwrap();
                failed.fetch_or(results != (0..500).map(double).collect::<Vec<_>>(), Ordering::Relaxed);
            });
        }
    });
    assert!(!failed.into_inner());
}
