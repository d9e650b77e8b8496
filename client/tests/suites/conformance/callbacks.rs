//! Callbacks of AsyncResult: they run once, with the outcome, on farpool's own thread.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use farpool::ErrorKind;

use crate::conformance::async_use::block_on;
use crate::conformance::tasks::{even_only, nap, square};
use crate::pools;

crate::runner::cases![
    a_callback_gets_the_value_and_an_error_callback_the_error,
    callbacks_run_once_and_before_get_returns,
    a_late_callback_runs_at_once,
    a_panicking_callback_affects_nothing_else,
    a_callback_may_call_the_pool,
    callbacks_run_even_if_the_result_is_dropped,
    callbacks_run_before_a_future_is_ready,
    a_cancelled_job_calls_its_error_callback,
    callbacks_run_on_farpools_own_thread,
];

fn a_callback_gets_the_value_and_an_error_callback_the_error() {
    let pool = pools::of(1);
    let (sender, receiver) = mpsc::channel();
    for items in [vec![0, 2], vec![0, 1, 3]] {
        let (good, bad) = (sender.clone(), sender.clone());
        let result = pool
            .map_async(even_only, items)
            .callback(move |values| good.send(Ok(values.clone())).unwrap())
            .error_callback(move |error| bad.send(Err(error.clone())).unwrap());
        result.wait(Duration::MAX);
    }
    drop(sender);
    let outcomes: Vec<_> = receiver.iter().collect();
    assert_eq!(outcomes.len(), 2);
    assert_eq!(outcomes[0].as_ref().unwrap(), &[0, 2]);
    let error = outcomes[1].as_ref().unwrap_err();
    assert_eq!((error.kind(), error.item()), (ErrorKind::Panicked, Some(1)));
}

fn callbacks_run_once_and_before_get_returns() {
    let pool = pools::of(1);
    let runs = Arc::new(AtomicUsize::new(0));
    for round in 1..=20 {
        let mut result = pool.apply_async(square, (3,));
        for _ in 0..2 {
            let runs = Arc::clone(&runs);
            result = result.callback(move |_| {
                runs.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(result.get().unwrap(), 9);
        assert_eq!(runs.load(Ordering::Relaxed), 2 * round);
    }
}

fn a_late_callback_runs_at_once() {
    let pool = pools::of(1);
    let result = pool.apply_async(square, (4,));
    assert!(result.wait(Duration::MAX));
    let (sender, receiver) = mpsc::channel();
    let mut result = result.callback(move |&value| sender.send(value).unwrap());
    assert_eq!(receiver.recv().unwrap(), 16);
    assert_eq!(result.get_timeout(Duration::MAX).unwrap(), 16);
    // After the outcome was taken, the callback does not run, and nothing hangs.
    let result = result.callback(|_| panic!("the value was taken"));
    assert!(result.wait(Duration::from_secs(20)));
}

fn a_panicking_callback_affects_nothing_else() {
    let pool = pools::of(1);
    let (sender, receiver) = mpsc::channel();
    let result = pool
        .apply_async(square, (5,))
        .callback(|_| panic!("a callback of this test panics on purpose"))
        .callback(move |&value| sender.send(value).unwrap());
    assert_eq!(result.get().unwrap(), 25);
    assert_eq!(receiver.recv().unwrap(), 25);
    assert_eq!(pool.apply_async(square, (6,)).callback(|_| ()).get().unwrap(), 36);
}

fn a_callback_may_call_the_pool() {
    let pool = Arc::new(pools::of(1));
    let (sender, receiver) = mpsc::channel();
    let inner = Arc::clone(&pool);
    let result = pool.apply_async(square, (2,)).callback(move |&value| {
        let blocking = inner.map(square, [value]).unwrap();
        // A result with its own callback, awaited on the thread that runs callbacks.
        let nested = inner.apply_async(square, (blocking[0],)).callback(|_| ()).get().unwrap();
        sender.send(nested).unwrap();
    });
    assert_eq!(result.get().unwrap(), 4);
    assert_eq!(receiver.recv().unwrap(), 256);
}

fn callbacks_run_even_if_the_result_is_dropped() {
    let pool = pools::of(1);
    let (sender, receiver) = mpsc::channel();
    drop(pool.apply_async(nap, (50,)).callback(move |&value| sender.send(value).unwrap()));
    assert_eq!(receiver.recv().unwrap(), 50);
}

fn callbacks_run_before_a_future_is_ready() {
    let pool = pools::of(1);
    let ran = Arc::new(AtomicUsize::new(0));
    for round in 1..=50 {
        let inner = Arc::clone(&ran);
        let result = pool.apply_async(square, (7,)).callback(move |_| {
            inner.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(block_on(result).unwrap(), 49);
        assert_eq!(ran.load(Ordering::Relaxed), round);
    }
}

fn a_cancelled_job_calls_its_error_callback() {
    let pool = pools::of(1);
    let (sender, receiver) = mpsc::channel();
    let result = pool
        .map_async(nap, [60_000; 2])
        .callback(|_| panic!("a cancelled job has no result"))
        .error_callback(move |error| sender.send(error.kind()).unwrap());
    result.cancel();
    assert_eq!(receiver.recv().unwrap(), ErrorKind::Cancelled);
}

fn callbacks_run_on_farpools_own_thread() {
    let pool = pools::of(1);
    let (sender, receiver) = mpsc::channel();
    let result = pool.apply_async(square, (1,));
    result.wait(Duration::MAX);
    let result = result.callback(move |_| sender.send(thread::current().id()).unwrap());
    assert_ne!(receiver.recv().unwrap(), thread::current().id());
    assert_eq!(result.get().unwrap(), 1);
}
