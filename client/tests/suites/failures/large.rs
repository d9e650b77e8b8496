//! Failures while large items and results are partly sent.

use farpool::ErrorKind;
use farpool_testkit::processes;
use nix::sys::signal::Signal;

use crate::failures::checks::{millis, pool, seconds, still_works, within};
use crate::failures::tasks::{Fault, identity};

crate::runner::cases![
    a_poison_between_large_items,
    workers_killed_while_large_data_are_sent,
    cancelled_while_large_data_are_sent,
    dropped_while_large_data_are_sent,
];

const BYTES: usize = 6 << 20;

fn large(n: u8) -> Vec<u8> {
    vec![n; BYTES + usize::from(n)]
}

fn a_poison_between_large_items() {
    let pool = pool(2);
    let one = |(text, fault): (String, Option<Fault>)| {
        fault.into_iter().for_each(Fault::trigger);
        text
    };
    // Text is copied as a whole, also within a tuple; a vector of bytes there is encoded byte by byte.
    let large = |n| String::from_utf8(large(n)).unwrap();
    let items = (0..10).map(|n| (large(n), (n == 4).then_some(Fault::Kill)));
    for (n, outcome) in (0..).zip(within(seconds(20), || pool.job(one).retries(1).imap(items).collect::<Vec<_>>())) {
        match outcome {
            Ok(text) => assert!(text == large(n)),
            Err(error) => {
                assert_eq!((error.kind(), error.item(), error.attempts()), (ErrorKind::WorkerDied, Some(4), 2))
            }
        }
    }
    still_works(&pool);
}

fn workers_killed_while_large_data_are_sent() {
    let pool = pool(2);
    let echo = pool.job(identity::<Vec<u8>>).retries(1000).map_async((0..16).map(large).collect::<Vec<_>>());
    // Rarely enough that some items get through.
    while !echo.wait(millis(60)) {
        let workers = processes::tagged(&processes::own_tag());
        if let Some(worker) = workers.iter().find(|process| process.name == "farpool-worker") {
            // It may have exited by itself meanwhile.
            let _ = processes::send(worker.pid, Signal::SIGKILL);
        }
    }
    let results = echo.get().unwrap();
    assert_eq!(results.len(), 16);
    assert!((0..).zip(results).all(|(n, bytes)| bytes == large(n)));
    still_works(&pool);
}

fn cancelled_while_large_data_are_sent() {
    let pool = pool(2);
    for moment in 0..12 {
        let doomed = pool.map_async(identity::<Vec<u8>>, (0..4).map(large).collect::<Vec<_>>());
        let spared = pool.map_async(identity::<Vec<u8>>, vec![large(9)]);
        doomed.wait(millis(moment * 3));
        doomed.cancel();
        match doomed.get() {
            Ok(results) => assert_eq!(results.len(), 4),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}"),
        }
        assert!(within(seconds(10), || spared.get().unwrap()) == [large(9)]);
    }
    still_works(&pool);
}

fn dropped_while_large_data_are_sent() {
    for moment in 0..8 {
        let pool = pool(2);
        let doomed = pool.map_async(identity::<Vec<u8>>, (0..4).map(large).collect::<Vec<_>>());
        doomed.wait(millis(moment * 4));
        within(seconds(1), || drop(pool));
        processes::assert_none_left();
        if let Err(error) = doomed.get() {
            assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
        }
    }
}
