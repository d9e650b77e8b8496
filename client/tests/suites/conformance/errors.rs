//! The contents of errors, and which error a call returns.

use std::time::{Duration, Instant};

use farpool::{Error, ErrorKind};

use crate::conformance::tasks::{even_only, nap, square, whereabouts};
use crate::log::{self, Log};
use crate::pools;

crate::runner::cases![
    an_error_has_kind_item_host_pid_and_attempts,
    a_panic_has_its_message_and_location,
    map_returns_the_error_of_the_lowest_index_after_all_have_run,
    errors_are_returned_by_the_verb_that_was_called,
    an_error_propagates_like_any_other,
];

fn an_error_has_kind_item_host_pid_and_attempts() {
    let pool = pools::of(1);
    let (worker, _) = pool.apply(whereabouts::<()>, ((),)).unwrap();
    let error = pool.map(even_only, [0, 2, 4, 5]).unwrap_err();
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    assert_eq!((error.kind(), error.item(), error.attempts()), (ErrorKind::Panicked, Some(3), 1));
    assert_eq!((error.host(), error.pid()), (Some(&*host), Some(worker)));
    let message = error.to_string();
    for part in ["map, item 3: ", "5 is odd", &format!("host {host}"), &format!("pid {worker}"), "1 attempt"] {
        assert!(message.contains(part), "{part:?} is missing in: {message}");
    }
    assert_eq!(format!("{error:?}"), message);
}

fn a_panic_has_its_message_and_location() {
    let pool = pools::of(1);
    let check = |error: Error, message: &str| {
        assert_eq!(error.kind(), ErrorKind::Panicked);
        assert!(error.message().contains(message), "{error}");
        assert!(error.message().contains(&format!("at {}:", file!())), "the location is missing: {error}");
    };
    check(pool.apply(|| -> () { panic!("plain words") }, ()).unwrap_err(), "plain words");
    check(pool.apply(|n: u8| -> () { panic!("with {n}") }, (7,)).unwrap_err(), "with 7");
    check(pool.apply(|n: usize| [1, 2][n], (5,)).unwrap_err(), "index out of bounds");
    check(pool.apply(|n: Option<u8>| n.unwrap(), (None,)).unwrap_err(), "unwrap");
    // The payload of a panic may be anything.
    let error = pool.apply(|| -> () { std::panic::panic_any(5_u8) }, ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Panicked);
}

fn map_returns_the_error_of_the_lowest_index_after_all_have_run() {
    fn run(path: String, item: u64) -> u64 {
        // Of the two that fail, the one with the lower index fails later.
        nap(if item == 3 { 150 } else { 0 });
        log::note(&path, item);
        assert!(item != 3 && item != 17, "item {item} fails");
        item
    }
    let pool = pools::of(2);
    for chunksize in [1, 5, 40] {
        let log = Log::new("runs");
        let error = pool.job(run).chunksize(chunksize).starmap((0..40).map(|item| (log.path(), item))).unwrap_err();
        assert_eq!((error.kind(), error.item()), (ErrorKind::Panicked, Some(3)));
        assert_eq!(log.lines().len(), 40, "every item runs, and once");
    }
}

fn errors_are_returned_by_the_verb_that_was_called() {
    let pool = pools::of(1);
    let errors = [
        ("apply", pool.apply(even_only, (1,)).unwrap_err()),
        ("apply_async", pool.apply_async(even_only, (1,)).get().unwrap_err()),
        ("map", pool.map(even_only, [1]).unwrap_err()),
        ("map_async", pool.map_async(even_only, [1]).get().unwrap_err()),
        ("starmap", pool.starmap(even_only, [(1,)]).unwrap_err()),
        ("starmap_async", pool.starmap_async(even_only, [(1,)]).get().unwrap_err()),
        ("imap", pool.imap(even_only, [1]).next().unwrap().unwrap_err()),
        ("imap_unordered", pool.imap_unordered(even_only, [1]).next().unwrap().unwrap_err()),
    ];
    for (verb, error) in errors {
        assert!(error.to_string().starts_with(&format!("{verb}, item 0: ")), "{error}");
        assert_eq!((error.kind(), error.item(), error.attempts()), (ErrorKind::Panicked, Some(0), 1));
    }
}

fn an_error_propagates_like_any_other() {
    fn main_like(pool: &farpool::Pool) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
        Ok(pool.apply(square, (2,))? + pool.apply(even_only, (1,))?)
    }
    let pool = pools::of(1);
    let start = Instant::now();
    let error = main_like(&pool).unwrap_err();
    assert!(error.downcast_ref::<Error>().is_some_and(|error| error.kind() == ErrorKind::Panicked));
    assert!(start.elapsed() < Duration::from_secs(20));
}
