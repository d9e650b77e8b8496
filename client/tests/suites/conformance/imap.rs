//! The lazy verbs: what is pulled and when, errors, and use as a Stream.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};

use farpool::ErrorKind;
use futures_core::Stream;

use crate::conformance::async_use::block_on;
use crate::conformance::tasks::{bytes, even_only, length, nap, square};
use crate::pools;

crate::runner::cases![
    nothing_is_pulled_before_an_outcome_is_requested,
    an_error_does_not_end_the_iteration,
    an_ended_imap_stays_ended,
    slow_items_are_pulled_a_few_ahead,
    quick_items_are_pulled_a_bounded_distance_ahead,
    large_items_are_pulled_a_bounded_number_of_bytes_ahead,
    large_results_slow_down_the_input,
    an_endless_input_is_pulled_on_demand,
    imap_is_a_stream,
    two_imaps_on_one_thread,
];

fn nothing_is_pulled_before_an_outcome_is_requested() {
    let pool = pools::of(2);
    let pulled = Cell::new(false);
    let mut outcomes = pool.imap(square, (0..3_u64).inspect(|_| pulled.set(true)));
    assert!(!pulled.get());
    assert_eq!(outcomes.next().unwrap().unwrap(), 0);
    assert!(pulled.get());
}

fn an_error_does_not_end_the_iteration() {
    let pool = pools::of(2);
    let outcomes: Vec<_> = pool.imap(even_only, 0..10).collect();
    assert_eq!(outcomes.len(), 10);
    for (item, outcome) in (0..).zip(outcomes) {
        match outcome {
            Ok(n) => assert!(n == item && item % 2 == 0),
            Err(error) => {
                assert_eq!((error.kind(), error.item()), (ErrorKind::Panicked, Some(item)));
                assert!(item % 2 == 1 && error.message().contains(&format!("{item} is odd")));
            }
        }
    }
    assert_eq!(pool.imap_unordered(even_only, 0..10).filter(Result::is_ok).count(), 5);
}

fn an_ended_imap_stays_ended() {
    let pool = pools::of(1);
    let mut outcomes = pool.imap(square, [1, 2]);
    assert_eq!(outcomes.by_ref().count(), 2);
    assert!(outcomes.next().is_none() && outcomes.next().is_none());
}

/// Returns how far the input was ahead of the consumer at most, during this many outcomes.
fn most_ahead<R, T>(outcomes: impl Iterator<Item = Result<R, farpool::Error>>, pulled: &Cell<u64>, take: T) -> u64
where
    u64: From<T>,
{
    let mut most = 0;
    let take = u64::from(take);
    for (taken, outcome) in (1..=take).zip(outcomes) {
        assert!(outcome.is_ok());
        most = most.max(pulled.get() - taken);
    }
    most
}

fn slow_items_are_pulled_a_few_ahead() {
    let pool = pools::of(2);
    let pulled = Cell::new(0);
    let input = std::iter::repeat(20).inspect(|_| pulled.set(pulled.get() + 1));
    // Twice what two slots hold, and as much again in transit.
    assert!(most_ahead(pool.imap(nap, input), &pulled, 20_u32) <= 8);
}

fn quick_items_are_pulled_a_bounded_distance_ahead() {
    let pool = pools::of(2);
    let pulled = Cell::new(0);
    let input = (0..).inspect(|_| pulled.set(pulled.get() + 1));
    assert!(most_ahead(pool.imap(square, input), &pulled, 200_000_u32) <= 20_000);
}

fn large_items_are_pulled_a_bounded_number_of_bytes_ahead() {
    let pool = pools::of(2);
    let pulled = Cell::new(0);
    let input = std::iter::repeat_with(|| bytes(1 << 20)).inspect(|_| pulled.set(pulled.get() + 1));
    let ahead = most_ahead(pool.job(length).buffersize(1 << 20).imap(input), &pulled, 300_u32);
    // The window, and the items whose small results have arrived but were not taken yet.
    assert!(ahead <= 128, "{ahead} items of 1 MiB were pulled ahead");
}

/// The consumer takes nothing while results of 1 MiB arrive: no more items run than the bound allows.
fn large_results_slow_down_the_input() {
    let pool = pools::of(2);
    let pulled = Cell::new(0);
    let input = std::iter::repeat(1 << 20).inspect(|_| pulled.set(pulled.get() + 1));
    let ahead = most_ahead(pool.imap(bytes, input), &pulled, 300_u32);
    assert!(ahead <= 160, "{ahead} items with results of 1 MiB were pulled ahead");
}

fn an_endless_input_is_pulled_on_demand() {
    let pool = pools::of(2);
    let mut outcomes = pool.imap(square, 0..);
    assert!((0..50_000_u64).all(|n| outcomes.next().unwrap().unwrap() == n * n));
    drop(outcomes);
    let found = pool.imap_unordered(square, 0..).find(|outcome| *outcome.as_ref().unwrap() == 10_000);
    assert_eq!(found.unwrap().unwrap(), 10_000);
    assert_eq!(pool.map(square, [4]).unwrap(), [16]);
}

/// The next value of a stream.
struct Next<'s, S>(&'s mut S);

impl<S: Stream + Unpin> Future for Next<'_, S> {
    type Output = Option<S::Item>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut *self.0).poll_next(context)
    }
}

fn imap_is_a_stream() {
    let pool = pools::of(2);
    let mut outcomes = pool.imap(square, 0..1000);
    let mut unordered = pool.imap_unordered(nap, [30, 0, 10]);
    block_on(async {
        for n in 0..1000 {
            assert_eq!(Next(&mut outcomes).await.unwrap().unwrap(), n * n);
        }
        assert!(Next(&mut outcomes).await.is_none());
        let mut sum = 0;
        while let Some(outcome) = Next(&mut unordered).await {
            sum += outcome.unwrap();
        }
        assert_eq!(sum, 40);
    });
    // Some of it as a stream, the rest as an iterator.
    let mut mixed = pool.imap(square, 0..4);
    assert_eq!(block_on(Next(&mut mixed)).unwrap().unwrap(), 0);
    assert_eq!(mixed.map(Result::unwrap).collect::<Vec<_>>(), [1, 4, 9]);
}

fn two_imaps_on_one_thread() {
    let pool = pools::of(2);
    let (squares, naps) = (pool.imap(square, 0..100), pool.imap(nap, std::iter::repeat_n(1, 100)));
    for (n, (square, nap)) in squares.zip(naps).enumerate() {
        assert_eq!((square.unwrap(), nap.unwrap()), ((n * n) as u64, 1));
    }
}
