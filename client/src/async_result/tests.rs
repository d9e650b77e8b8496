use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use super::*;
use crate::fake_session::{FakeSession, WINDOW, panicked};
use crate::pool::Pool;

const SOON: Duration = Duration::from_secs(5);

fn double(n: u64) -> u64 {
    2 * n
}

fn manual_pool() -> (Arc<FakeSession>, Pool) {
    FakeSession::mapping(double).manual_delivery().pool()
}

#[test]
fn an_outcome_can_be_awaited_polled_and_taken_once() {
    let (session, pool) = manual_pool();
    let mut result = pool.job(double).label("x").apply_async((4,));
    assert!(!result.ready() && !result.wait(Duration::from_millis(2)));
    assert_eq!(result.successful().unwrap_err().kind(), ErrorKind::InvalidArgument);
    let error = result.get_timeout(Duration::from_millis(2)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "apply_async \"x\": the outcome was not ready after 2ms; the job is still running: wait again, or cancel it"
    );
    session.deliver(1);
    assert!(result.ready() && result.wait(Duration::ZERO) && result.successful().unwrap());
    assert_eq!(result.get_timeout(Duration::ZERO).unwrap(), 8);
    assert!(result.successful().unwrap());
    assert_eq!(result.get_timeout(Duration::ZERO).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn a_failure_is_not_a_success() {
    let (_, pool) = FakeSession::answering(|_, _| panicked("oh")).pool();
    let result = pool.map_async(double, 0..5);
    assert!(result.wait(SOON));
    assert!(!result.successful().unwrap());
    assert_eq!((result.get().unwrap_err().item()), Some(0));
}

#[test]
fn many_outcomes_keep_their_order() {
    let (_, pool) = FakeSession::mapping(double).picking(crate::fake_session::Pick::Random).pool();
    let expected: Vec<u64> = (0..5000).map(double).collect();
    assert_eq!(pool.map_async(double, 0..5000).get().unwrap(), expected);
    assert_eq!(pool.starmap_async(double, (0..5000).map(|n| (n,))).get().unwrap(), expected);
    // This input does not know its length, so a thread pulls it.
    assert_eq!(
        pool.map_async(double, (0..5000).filter(|_| true).chain(std::iter::from_fn(|| None))).get().unwrap(),
        expected
    );
}

#[test]
fn an_input_that_blocks_does_not_block_the_call() {
    let (_, pool) = FakeSession::mapping(double).pool();
    let (send, receive) = mpsc::channel();
    let result = pool.map_async(double, receive);
    for n in 0..10 {
        send.send(n).unwrap();
    }
    assert!(!result.ready());
    drop(send);
    assert_eq!(result.get().unwrap(), (0..10).map(double).collect::<Vec<_>>());
}

#[test]
fn a_thread_feeds_what_exceeds_the_window() {
    fn len(bytes: Vec<u8>) -> usize {
        bytes.len()
    }
    let (session, pool) = FakeSession::mapping(len).manual_delivery().pool();
    let result = pool.map_async(len, (0..150).map(|_| vec![7; 1 << 20]));
    while session.most_bytes() < WINDOW as usize {
        thread::sleep(Duration::from_millis(1));
    }
    while !result.ready() {
        session.deliver(5);
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(result.get().unwrap(), vec![1 << 20; 150]);
    assert!(session.most_bytes() <= 66 << 20, "{}", session.most_bytes());
}

#[test]
fn cancel_ends_the_job_and_its_feeder() {
    let (session, pool) = manual_pool();
    let one = pool.apply_async(double, (1,));
    let endless = pool.map_async(double, 0..);
    endless.cancel();
    one.cancel();
    one.cancel();
    assert_eq!(endless.get().unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(one.get().unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!((session.cancelled(), session.open()), (2, 0));
}

#[test]
fn dropping_it_leaves_the_job_running() {
    let (session, pool) = manual_pool();
    drop(pool.map_async(double, 0..3));
    assert_eq!((session.open(), session.cancelled()), (1, 0));
    assert_eq!(session.deliver(9), 3);
    assert_eq!(session.open(), 0);
}

#[test]
fn callbacks_run_once_before_or_after_the_outcome() {
    let (session, pool) = manual_pool();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = |name: &'static str| {
        let seen = Arc::clone(&seen);
        move |value: &u64| seen.lock().unwrap().push((name, *value, thread::current().name().map(str::to_owned)))
    };
    let result = pool
        .apply_async(double, (4,))
        .callback(note("before"))
        .error_callback(|_| panic!("error callback without an error"));
    assert!(seen.lock().unwrap().is_empty());
    session.deliver(1);
    let result = result.callback(note("after"));
    assert_eq!(result.get().unwrap(), 8);
    let thread = Some("farpool-callbacks".to_owned());
    assert_eq!(*seen.lock().unwrap(), [("before", 8, thread.clone()), ("after", 8, thread)]);
}

#[test]
fn an_error_callback_runs_only_for_an_error() {
    let (_, pool) = FakeSession::answering(|_, _| panicked("oh")).pool();
    let (send, receive) = mpsc::channel();
    let result = pool
        .map_async(double, 0..3)
        .callback(|_| panic!("callback without a value"))
        .error_callback(move |error| send.send(error.message().to_owned()).unwrap());
    assert!(result.wait(SOON));
    assert_eq!(receive.try_recv().unwrap(), "oh");
    let (send, receive) = mpsc::channel();
    pool.close();
    drop(pool.apply_async(double, (1,)).error_callback(move |error| send.send(error.kind()).unwrap()));
    assert_eq!(receive.recv_timeout(SOON).unwrap(), ErrorKind::Closed);
}

#[test]
fn a_dropped_result_still_calls_back() {
    let (session, pool) = manual_pool();
    let (send, receive) = mpsc::channel();
    drop(pool.map_async(double, 0..3).callback(move |values| send.send(values.clone()).unwrap()));
    session.deliver(3);
    assert_eq!(receive.recv_timeout(SOON).unwrap(), [0, 2, 4]);
}

#[test]
fn a_panicking_callback_affects_nothing_else() {
    let (session, pool) = manual_pool();
    let result = pool.apply_async(double, (1,)).callback(|_| panic!("on purpose"));
    session.deliver(1);
    assert_eq!(result.get().unwrap(), 2);
    let (send, receive) = mpsc::channel();
    let _result = pool.apply_async(double, (2,)).callback(move |n| send.send(*n).unwrap());
    session.deliver(1);
    assert_eq!(receive.recv_timeout(SOON).unwrap(), 4);
}

#[test]
fn a_callback_may_use_the_pool_and_wait_for_other_callbacks() {
    let (_, pool) = FakeSession::mapping(double).pool();
    let (inner, outer) = (Arc::new(pool), mpsc::channel());
    let (send, receive) = outer;
    let pool = Arc::clone(&inner);
    let result = pool.apply_async(double, (1,)).callback(move |_| {
        let nested = inner.apply_async(double, (5,)).callback(|_| ());
        send.send((nested.get().unwrap(), inner.map(double, 0..3).unwrap())).unwrap();
    });
    assert_eq!(result.get().unwrap(), 2);
    assert_eq!(receive.recv_timeout(SOON).unwrap(), (10, vec![0, 2, 4]));
}

struct CountWakes(AtomicU64);

impl Wake for CountWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_future_is_woken_after_the_end_and_the_callbacks() {
    let (session, pool) = manual_pool();
    let wakes = Arc::new(CountWakes(AtomicU64::new(0)));
    let waker = Waker::from(Arc::clone(&wakes));
    let mut context = Context::from_waker(&waker);
    let mut plain = pin!(pool.map_async(double, 0..2));
    assert!(plain.as_mut().poll(&mut context).is_pending());
    session.deliver(1);
    assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
    session.deliver(1);
    assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    let Poll::Ready(values) = plain.as_mut().poll(&mut context) else { panic!("the outcome has not arrived") };
    assert_eq!(values.unwrap(), [0, 2]);

    let (go, wait) = mpsc::channel::<()>();
    let mut lent = pin!(pool.apply_async(double, (3,)).callback(move |_| wait.recv().unwrap()));
    session.deliver(1);
    assert!(lent.as_mut().poll(&mut context).is_pending());
    go.send(()).unwrap();
    while wakes.0.load(Ordering::Relaxed) == 1 {
        thread::sleep(Duration::from_millis(1));
    }
    let Poll::Ready(value) = lent.as_mut().poll(&mut context) else { panic!("the callback has not run") };
    assert_eq!(value.unwrap(), 6);
}
