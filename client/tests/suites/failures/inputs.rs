//! Input iterators that panic half-way.

use std::panic::{self, AssertUnwindSafe};

use farpool::{ErrorKind, Pool};

use crate::failures::checks::{check_words, pool, seconds, still_works, within};
use crate::failures::tasks::{nap, square};

crate::runner::cases![
    the_panic_reaches_the_caller_of_a_blocking_map,
    the_panic_becomes_the_outcome_of_an_async_map,
    the_panic_reaches_the_consumer_of_an_imap,
    items_sent_before_the_panic_are_dropped,
];

fn broken(panics_at: u64) -> impl Iterator<Item = u64> + Send {
    (0..1_000_000).inspect(move |&n| assert!(n != panics_at, "the input failed at {n}"))
}

/// At the first item, in the first batches, and in the middle of a long stream.
const PLACES: [u64; 4] = [0, 1, 100, 100_000];

fn panics(pool: &Pool, place: u64, call: impl FnOnce()) {
    let panic = within(seconds(10), || panic::catch_unwind(AssertUnwindSafe(call)).unwrap_err());
    let text = panic.downcast_ref::<String>().expect("the panic has another payload");
    assert_eq!(*text, format!("the input failed at {place}"));
    assert_eq!(within(seconds(5), || pool.map(square, [3]).unwrap()), [9]);
}

fn the_panic_reaches_the_caller_of_a_blocking_map() {
    let pool = pool(2);
    for place in PLACES {
        panics(&pool, place, || drop(pool.map(square, broken(place))));
        panics(&pool, place, || drop(pool.starmap(square, broken(place).map(|n| (n,)))));
        panics(&pool, place, || drop(pool.job(square).chunksize(30).map(broken(place))));
    }
    still_works(&pool);
}

fn the_panic_becomes_the_outcome_of_an_async_map() {
    let pool = pool(2);
    for place in PLACES {
        let words = [&*format!("the input iterator panicked after {place} items"), &format!("failed at {place}")];
        for result in [pool.map_async(square, broken(place)), pool.starmap_async(square, broken(place).map(|n| (n,)))] {
            let error = within(seconds(10), || result.get().unwrap_err());
            assert_eq!((error.kind(), error.item()), (ErrorKind::Panicked, None));
            check_words(&error, &words);
        }
    }
    still_works(&pool);
}

fn the_panic_reaches_the_consumer_of_an_imap() {
    let pool = pool(2);
    for place in PLACES {
        panics(&pool, place, || _ = pool.imap(square, broken(place)).count());
        panics(&pool, place, || _ = pool.imap_unordered(square, broken(place)).count());
    }
    // Later calls return that the iteration has ended.
    let mut outcomes = pool.imap(square, broken(50));
    assert!(panic::catch_unwind(AssertUnwindSafe(|| outcomes.by_ref().count())).is_err());
    assert!(outcomes.next().is_none());
    still_works(&pool);
}

fn items_sent_before_the_panic_are_dropped() {
    let pool = pool(2);
    let naps = broken(10).map(|_| 3_600_000);
    panics(&pool, 10, || drop(pool.map(nap, naps)));
    still_works(&pool);
}
