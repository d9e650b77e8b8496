//! Failures while large items and results are on their way, half of them here and half of them there.

use farpool::ErrorKind;
use farpool_testkit::processes;
use nix::sys::signal::Signal;

use crate::failures::checks::{millis, pool, seconds, serves_on, within};
use crate::failures::tasks::{Way, identity};

crate::runner::cases![
    a_poison_between_large_items,
    workers_killed_while_large_data_pass,
    cancelled_while_large_data_pass,
    dropped_while_large_data_pass,
];

const BYTES: usize = 6 << 20;

fn large(n: u8) -> Vec<u8> {
    vec![n; BYTES + usize::from(n)]
}

fn a_poison_between_large_items() {
    let pool = pool(2);
    let one = |(bytes, way): (Vec<u8>, Option<Way>)| {
        way.into_iter().for_each(Way::take);
        bytes
    };
    let items = (0..10).map(|n| (large(n), (n == 4).then_some(Way::Kill)));
    for (n, outcome) in (0..).zip(within(seconds(20), || pool.job(one).retries(1).imap(items).collect::<Vec<_>>())) {
        match outcome {
            Ok(bytes) => assert!(bytes == large(n)),
            Err(error) => {
                assert_eq!((error.kind(), error.item(), error.attempts()), (ErrorKind::WorkerDied, Some(4), 2))
            }
        }
    }
    serves_on(&pool);
}

fn workers_killed_while_large_data_pass() {
    let pool = pool(2);
    let echo = pool.job(identity::<Vec<u8>>).retries(1000).map_async((0..16).map(large).collect::<Vec<_>>());
    // Not so often that nothing ever gets through.
    while !echo.wait(millis(60)) {
        let workers = processes::tagged(&processes::own_tag());
        if let Some(worker) = workers.iter().find(|process| process.name == "farpool-worker") {
            // It may have ended by itself meanwhile.
            let _ = processes::send(worker.pid, Signal::SIGKILL);
        }
    }
    let results = echo.get().unwrap();
    assert_eq!(results.len(), 16);
    assert!((0..).zip(results).all(|(n, bytes)| bytes == large(n)));
    serves_on(&pool);
}

fn cancelled_while_large_data_pass() {
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
    serves_on(&pool);
}

fn dropped_while_large_data_pass() {
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
