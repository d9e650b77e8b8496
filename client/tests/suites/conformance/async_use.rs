//! AsyncResult: waiting, polling, cancelling, and use as a Future.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use farpool::ErrorKind;

use crate::conformance::tasks::{even_only, nap, noted, square};
use crate::log::Log;
use crate::pools;

crate::runner::cases![
    get_blocks_until_the_outcome_is_ready,
    get_timeout_times_out_and_may_be_called_again,
    an_outcome_is_taken_once,
    ready_wait_and_successful_report_the_state,
    cancel_ends_only_its_job,
    cancelling_an_ended_job_changes_nothing,
    a_dropped_result_leaves_its_job_running,
    results_are_futures,
    futures_of_one_task_run_concurrently,
    a_result_is_awaited_on_another_thread,
];

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls only when it is woken: a lost wake-up hangs.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

fn get_blocks_until_the_outcome_is_ready() {
    let pool = pools::of(2);
    let start = Instant::now();
    assert_eq!(pool.apply_async(nap, (100,)).get().unwrap(), 100);
    assert!(start.elapsed() >= Duration::from_millis(100));
    assert_eq!(pool.map_async(nap, [10, 20]).get().unwrap(), [10, 20]);
}

fn get_timeout_times_out_and_may_be_called_again() {
    let pool = pools::of(1);
    let mut result = pool.apply_async(nap, (400,));
    let error = result.get_timeout(Duration::from_millis(20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WaitTimedOut);
    assert!(error.to_string().contains("not ready after 20ms"), "{error}");
    assert_eq!(result.get_timeout(Duration::ZERO).unwrap_err().kind(), ErrorKind::WaitTimedOut);
    assert_eq!(result.get_timeout(Duration::MAX).unwrap(), 400);
}

fn an_outcome_is_taken_once() {
    let pool = pools::of(1);
    let mut result = pool.apply_async(square, (3,));
    assert_eq!(result.get_timeout(Duration::MAX).unwrap(), 9);
    let error = result.get_timeout(Duration::MAX).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("taken"), "{error}");
    assert!(result.ready() && result.successful().unwrap());
}

fn ready_wait_and_successful_report_the_state() {
    let pool = pools::of(1);
    let mut good = pool.apply_async(nap, (300,));
    assert!(!good.ready());
    assert!(!good.wait(Duration::from_millis(10)));
    assert_eq!(good.successful().unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert!(good.wait(Duration::MAX));
    assert!(good.ready() && good.successful().unwrap());
    assert_eq!(good.get_timeout(Duration::ZERO).unwrap(), 300);

    let bad = pool.map_async(even_only, [2, 3]);
    assert!(bad.wait(Duration::MAX));
    assert!(bad.ready() && !bad.successful().unwrap());
    assert_eq!(bad.get().unwrap_err().item(), Some(1));
}

fn cancel_ends_only_its_job() {
    let pool = pools::of(2);
    let mut doomed = pool.map_async(nap, [60_000; 4]);
    let other = pool.map_async(nap, [50; 4]);
    let start = Instant::now();
    doomed.cancel();
    let error = doomed.get_timeout(Duration::from_secs(20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(other.get().unwrap(), [50; 4]);
    assert_eq!(pool.map(square, [1, 2, 3]).unwrap(), [1, 4, 9]);
    assert!(start.elapsed() < Duration::from_secs(20));
}

fn cancelling_an_ended_job_changes_nothing() {
    let pool = pools::of(1);
    let result = pool.apply_async(square, (3,));
    assert!(result.wait(Duration::MAX));
    result.cancel();
    assert_eq!(result.get().unwrap(), 9);
}

fn a_dropped_result_leaves_its_job_running() {
    let (pool, log) = (pools::of(2), Log::new("runs"));
    let input: Vec<_> = (0..50).map(|item| (log.path(), item)).collect();
    drop(pool.starmap_async(noted, input));
    pool.close();
    pool.join().unwrap();
    assert_eq!(log.lines().len(), 50);
}

fn results_are_futures() {
    let pool = pools::of(2);
    block_on(async {
        assert_eq!(pool.apply_async(square, (5,)).await.unwrap(), 25);
        assert_eq!(pool.map_async(square, 0..4).await.unwrap(), [0, 1, 4, 9]);
        assert_eq!(pool.starmap_async(u64::pow, [(2, 3)]).await.unwrap(), [8]);
        let error = pool.map_async(even_only, [0, 1]).await.unwrap_err();
        assert_eq!((error.kind(), error.item()), (ErrorKind::Panicked, Some(1)));
        // This outcome arrives before it is first polled.
        let early = pool.apply_async(square, (6,));
        assert!(early.wait(Duration::MAX));
        assert_eq!(early.await.unwrap(), 36);
    });
}

fn futures_of_one_task_run_concurrently() {
    let pool = pools::of(2);
    pool.map(nap, [1; 4]).unwrap();
    let start = Instant::now();
    block_on(async {
        let (one, two) = (pool.apply_async(nap, (400,)), pool.apply_async(nap, (400,)));
        assert_eq!((one.await.unwrap(), two.await.unwrap()), (400, 400));
    });
    assert!(start.elapsed() < Duration::from_millis(750), "one after the other: {:?}", start.elapsed());
}

fn a_result_is_awaited_on_another_thread() {
    let pool = pools::of(1);
    let results: Vec<_> = (0..20).map(|n| pool.apply_async(square, (n,))).collect();
    let waiting = thread::spawn(move || results.into_iter().map(|result| block_on(result).unwrap()).sum::<u64>());
    assert_eq!(waiting.join().unwrap(), (0..20).map(|n| n * n).sum::<u64>());
}
