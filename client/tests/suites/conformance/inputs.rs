//! Inputs that wait for another thread, or for outcomes of their own job.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use farpool::{AsyncResult, ErrorKind};

use crate::conformance::async_use::block_on;
use crate::conformance::tasks::{even_only, nap, square};
use crate::pools;

crate::runner::cases![
    async_verbs_return_at_once_even_if_their_input_blocks,
    an_input_may_depend_on_outcomes,
    an_input_from_a_thread_keeps_the_order_of_items,
    an_input_from_a_thread_is_pulled_a_bounded_distance_ahead,
    a_panicking_input_from_a_thread_ends_the_iteration,
    dropping_outcomes_ends_the_job_while_its_input_blocks,
    an_input_that_waits_for_its_own_job_gets_an_error,
    inputs_that_wait_for_each_others_outcomes_get_an_error,
    many_small_calls_in_a_row,
    later_calls_come_after_many_small_ones,
];

/// An iterator that knows exactly how many items it has, and waits for each.
struct Exact(mpsc::Receiver<u64>, usize);

impl Iterator for Exact {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.1 = self.1.checked_sub(1)?;
        self.0.recv().ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.1, Some(self.1))
    }
}

/// A value that takes long to encode.
#[derive(serde::Deserialize)]
struct Slow(u64);

impl serde::Serialize for Slow {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        thread::sleep(Duration::from_millis(500));
        serializer.serialize_newtype_struct("Slow", &self.0)
    }
}

fn async_verbs_return_at_once_even_if_their_input_blocks() {
    let pool = pools::of(2);
    let (sender, items) = mpsc::channel();
    let taken = pool.map_async(square, items.into_iter().take(3));
    (1..=3).for_each(|n| sender.send(n).unwrap());
    assert_eq!(taken.get().unwrap(), [1, 4, 9]);

    let (sender, items) = mpsc::channel();
    let exact = pool.map_async(square, Exact(items, 2));
    let (pairs, tuples) = mpsc::channel();
    let starred = pool.starmap_async(u64::pow, tuples.into_iter().take(2));
    [4, 5].into_iter().for_each(|n| sender.send(n).unwrap());
    [(2, 3), (3, 2)].into_iter().for_each(|pair| pairs.send(pair).unwrap());
    assert_eq!(exact.get().unwrap(), [16, 25]);
    assert_eq!(starred.get().unwrap(), [8, 9]);
    let start = Instant::now();
    let slow = pool.map_async(|item: Slow| item.0, vec![Slow(1), Slow(2)]);
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    assert_eq!(slow.get().unwrap(), [1, 2]);
    // Inputs that never wait are still pulled.
    assert_eq!(pool.map_async(square, vec![1, 2]).get().unwrap(), [1, 4]);
    assert_eq!(pool.map_async(square, [1, 2]).get().unwrap(), [1, 4]);
    assert_eq!(pool.map_async(square, 1..=2).get().unwrap(), [1, 4]);
}

/// The input waits for what the consumer does with each outcome.
fn an_input_may_depend_on_outcomes() {
    let pool = pools::of(2);
    for unordered in [false, true] {
        let (sender, items) = mpsc::channel();
        sender.send(2u64).unwrap();
        let job = pool.job(square);
        let outcomes = if unordered { job.imap_unordered_from_thread(items) } else { job.imap_from_thread(items) };
        let mut seen = Vec::new();
        for outcome in outcomes {
            let n = outcome.unwrap();
            seen.push(n);
            if n > 1000 {
                break;
            }
            sender.send(n).unwrap();
        }
        assert_eq!(seen, [4, 16, 256, 65536]);
    }
}

fn an_input_from_a_thread_keeps_the_order_of_items() {
    let pool = pools::of(2);
    let expected: Vec<u64> = (0..5000).map(|n| n * n).collect();
    let ordered: Result<Vec<_>, _> = pool.job(square).imap_from_thread(0..5000).collect();
    assert_eq!(ordered.unwrap(), expected);
    let mut unordered: Vec<_> = pool.job(square).imap_unordered_from_thread(0..5000).map(Result::unwrap).collect();
    unordered.sort_unstable();
    assert_eq!(unordered, expected);
    let chunks: Vec<_> = pool.job(square).chunksize(7).imap_from_thread(0..20).map(Result::unwrap).collect();
    assert_eq!(chunks, expected[..20]);
    assert!(pool.job(square).imap_from_thread(Vec::new()).next().is_none());
    let failed: Vec<_> = pool.job(even_only).imap_from_thread(0..4).map(|outcome| outcome.is_ok()).collect();
    assert_eq!(failed, [true, false, true, false]);
    // As a stream.
    let mut outcomes = pool.job(square).imap_from_thread(0..3);
    let next = |outcomes: &mut farpool::Imap<_, u64>| {
        block_on(std::future::poll_fn(|context| {
            futures_core::Stream::poll_next(std::pin::Pin::new(&mut *outcomes), context)
        }))
    };
    assert_eq!(next(&mut outcomes).unwrap().unwrap(), 0);
    assert_eq!(next(&mut outcomes).unwrap().unwrap(), 1);
    assert_eq!(next(&mut outcomes).unwrap().unwrap(), 4);
    assert!(next(&mut outcomes).is_none());
}

fn an_input_from_a_thread_is_pulled_a_bounded_distance_ahead() {
    let pool = pools::of(2);
    for buffersize in [1, 5, 100] {
        let pulled = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&pulled);
        let endless = (0u64..).inspect(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let mut outcomes = pool.job(square).buffersize(buffersize).imap_from_thread(endless);
        for taken in 1..=500 {
            assert_eq!(outcomes.next().unwrap().unwrap(), (taken - 1) * (taken - 1));
            // The item just taken makes room for one more.
            let ahead = pulled.load(Ordering::SeqCst) - (taken - 1);
            assert!(ahead <= buffersize + 1, "{ahead} ahead, and {buffersize} allowed");
        }
    }
}

fn a_panicking_input_from_a_thread_ends_the_iteration() {
    let pool = pools::of(2);
    let input = (0u64..).map(|n| if n < 3 { n } else { panic!("no more than three") });
    let outcomes: Vec<_> = pool.job(square).imap_from_thread(input).collect();
    let error = outcomes.last().unwrap().as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Panicked);
    assert!(error.to_string().contains("no more than three"), "{error}");
    assert_eq!(pool.apply(square, (3,)).unwrap(), 9);
}

fn dropping_outcomes_ends_the_job_while_its_input_blocks() {
    let pool = pools::of(1);
    let (sender, items) = mpsc::channel();
    sender.send(60_000u64).unwrap();
    let mut outcomes = pool.job(nap).timeout(Duration::from_millis(50)).imap_from_thread(items);
    assert_eq!(outcomes.next().unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
    drop(outcomes);
    assert_eq!(pool.apply(square, (3,)).unwrap(), 9);
    let start = Instant::now();
    pool.close();
    pool.join().unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "the dropped job holds the pool");
    drop(sender);
}

fn an_input_that_waits_for_its_own_job_gets_an_error() {
    let pool = pools::of(1);
    let (give, result) = mpsc::channel::<AsyncResult<Vec<u64>>>();
    let (sender, receiver) = mpsc::channel();
    let result = Arc::new(Mutex::new(Some(result)));
    let input = std::iter::from_fn(move || {
        let own = result.lock().unwrap().take()?.recv().unwrap();
        sender.send(own.get()).unwrap();
        None
    });
    give.send(pool.map_async(square, input)).unwrap();
    let error = receiver.recv_timeout(Duration::from_secs(30)).expect("the input hangs").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("imap_from_thread"), "{error}");
}

/// Each of three inputs waits for the outcome of the next job: one of them gets an error, and the others get their outcomes.
fn inputs_that_wait_for_each_others_outcomes_get_an_error() {
    let pool = pools::of(2);
    let (errors_sender, errors) = mpsc::channel();
    let (mut others, mut results) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let (other, asked) = mpsc::channel::<AsyncResult<Vec<u64>>>();
        let errors_sender = errors_sender.clone();
        let input = std::iter::once_with(move || match asked.recv().unwrap().get() {
            Ok(squares) => squares[0],
            Err(error) => {
                errors_sender.send(error).unwrap();
                3
            }
        });
        results.push(pool.map_async(square, input));
        others.push(other);
    }
    // The first input waits for the last job, and so on.
    others.rotate_right(1);
    others.into_iter().zip(results).for_each(|(other, result)| other.send(result).unwrap());
    let error = errors.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(error.kind() == ErrorKind::InvalidArgument && error.to_string().contains("imap_from_thread"), "{error}");
    drop(errors_sender);
    assert!(errors.recv_timeout(Duration::from_secs(60)).is_err(), "only one of them gets an error");
    // A finished wait is forgotten.
    let nine = pool.map_async(square, [3]);
    assert_eq!(pool.map_async(square, std::iter::once_with(move || nine.get().unwrap()[0])).get().unwrap(), [81]);
}

fn many_small_calls_in_a_row() {
    let pool = pools::of(2);
    for _ in 0..3 {
        let results: Vec<_> = (0..1000).map(|n| pool.apply_async(square, (n,))).collect();
        results[999].cancel();
        for (n, result) in (0..).zip(results).take(999) {
            assert_eq!(result.get().unwrap(), n * n);
        }
        // A single call, for which no thread waits in farpool.
        let (sender, squares) = mpsc::channel();
        let _result = pool.apply_async(square, (7,)).callback(move |n| sender.send(*n).unwrap());
        let _other = pool.apply_async(square, (8,));
        assert_eq!(squares.recv_timeout(Duration::from_secs(30)), Ok(49));
    }
    thread::scope(|scope| {
        for thread in 0..4 {
            let pool = &pool;
            scope.spawn(move || {
                let results: Vec<_> = (0..500).map(|n| pool.apply_async(square, (thread * 500 + n,))).collect();
                assert!(results.into_iter().all(|result| result.get().is_ok()));
            });
        }
    });
    let pending: Vec<_> = (0..100).map(|n| pool.apply_async(square, (n,))).collect();
    pool.close();
    assert_eq!(pool.apply_async(square, (1,)).get().unwrap_err().kind(), ErrorKind::Closed);
    assert!(pending.into_iter().all(|result| result.get().is_ok()));
    pool.join().unwrap();
}

/// There are many more calls than are processed at once.
fn later_calls_come_after_many_small_ones() {
    let pool = pools::of(2);
    let many = || (0..3000).map(|n| pool.apply_async(square, (n,))).collect::<Vec<_>>();
    let results = many();
    let last = pool.apply_async(|| thread::sleep(Duration::from_secs(300)), ());
    last.cancel();
    assert_eq!(last.get().unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(pool.apply(square, (3,)).unwrap(), 9);
    assert!((0..).zip(results).all(|(n, result)| result.get().unwrap() == n * n));
    let results = many();
    pool.terminate();
    // Each call ends.
    let fails = |result: AsyncResult<u64>| result.get().err().map(|error| error.kind());
    assert!(results.into_iter().filter_map(fails).all(|kind| kind == ErrorKind::Cancelled));
}
