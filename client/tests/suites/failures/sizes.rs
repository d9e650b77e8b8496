//! Items and results that are larger than the limit.

use farpool::{Error, ErrorKind, Pool};

use crate::failures::checks::{check_words, still_works};
use crate::failures::tasks::pid_after;
use crate::pools;

crate::runner::cases![
    an_item_beyond_the_limit,
    a_result_beyond_the_limit,
    the_limit_itself_is_allowed,
    an_initializers_arguments_may_be_large
];

const LIMIT: u64 = 1 << 20;

fn limited() -> Pool {
    pools::builder().processes(1).payload_limit(LIMIT).build().unwrap()
}

fn make(length: u64) -> Vec<u8> {
    vec![1; length as usize]
}

fn measure(bytes: Vec<u8>) -> u64 {
    bytes.len() as u64
}

fn too_large(error: &Error, item: u64) {
    assert_eq!((error.kind(), error.item()), (ErrorKind::PayloadTooLarge, Some(item)), "{error}");
    check_words(error, &["bytes", "limit", &LIMIT.to_string(), "payload_limit"]);
}

fn an_item_beyond_the_limit() {
    let pool = limited();
    for length in [LIMIT, LIMIT + 1, 40 * LIMIT] {
        let items = || [make(5), make(length), make(7)];
        too_large(&pool.apply(measure, (make(length),)).unwrap_err(), 0);
        too_large(&pool.apply_async(measure, (make(length),)).get().unwrap_err(), 0);
        too_large(&pool.map(measure, items()).unwrap_err(), 1);
        too_large(&pool.map_async(measure, items()).get().unwrap_err(), 1);
        too_large(&pool.job(measure).chunksize(3).map(items()).unwrap_err(), 1);
        let outcomes: Vec<_> = pool.imap(measure, items()).collect();
        assert_eq!((outcomes[0].as_ref().unwrap(), outcomes[2].as_ref().unwrap()), (&5, &7));
        too_large(outcomes[1].as_ref().unwrap_err(), 1);
    }
    still_works(&pool);
}

fn a_result_beyond_the_limit() {
    let pool = limited();
    let pid = pool.apply(pid_after, (0,)).unwrap();
    for length in [LIMIT, LIMIT + 1, 40 * LIMIT] {
        too_large(&pool.apply(make, (length,)).unwrap_err(), 0);
        too_large(&pool.apply_async(make, (length,)).get().unwrap_err(), 0);
        too_large(&pool.map(make, [5, length, 7]).unwrap_err(), 1);
        too_large(&pool.job(make).chunksize(3).map([5, length, 7]).unwrap_err(), 1);
        let outcomes: Vec<_> = pool.imap(make, [5, length, 7]).collect();
        assert_eq!((outcomes[0].as_ref().unwrap().len(), outcomes[2].as_ref().unwrap().len()), (5, 7));
        too_large(outcomes[1].as_ref().unwrap_err(), 1);
        assert_eq!(outcomes[1].as_ref().unwrap_err().pid(), Some(pid), "the worker keeps running");
    }
    still_works(&pool);
}

fn the_limit_itself_is_allowed() {
    let pool = limited();
    // Its encoded length takes three bytes.
    let largest = LIMIT - 3;
    assert_eq!(pool.apply(measure, (make(largest),)).unwrap(), largest);
    assert_eq!(pool.apply(make, (largest,)).unwrap().len() as u64, largest);
}

/// Data that every call needs is passed here, so it may be larger than an ordinary message.
fn an_initializers_arguments_may_be_large() {
    static TABLE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    let options = pools::builder().processes(2);
    let pool = options.initializer(|table: Vec<u8>| TABLE.set(table).unwrap(), (make(20 << 20),)).build().unwrap();
    assert_eq!(pool.map(|_: u64| TABLE.get().unwrap().len(), 0..10).unwrap(), [20 << 20; 10]);
}
