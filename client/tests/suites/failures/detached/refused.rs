//! Jobs that are rejected: the client gets the reason, and nothing of them is kept or runs.

use std::fs;
use std::path::Path;
use std::process::Command;

use farpool::{Detached, ErrorKind};
use farpool_testkit::waiting;

use super::{bare, cluster, items, noted_nap, pool, squares};
use crate::failures::checks::{check_words, seconds, within};
use crate::log::Log;
use crate::{pools, runner};

crate::runner::cases![
    a_job_that_cannot_be_sent_leaves_nothing,
    names_and_types,
    a_coordinator_without_a_journal,
    a_full_disk_rejects_the_job,
];

fn a_job_that_cannot_be_sent_leaves_nothing() {
    let cluster = cluster();
    let pool = pools::pool(pools::builder().address(cluster.address()).payload_limit(10_000));
    let length = |bytes: Vec<u8>| bytes.len() as u64;
    let with_a_large_one = (0..50_000).map(|item| vec![0; if item == 49_999 { 20_000 } else { 10 }]);
    let error = pool.job(length).detach("nightly").map(with_a_large_one).unwrap_err();
    assert_eq!((error.kind(), error.item()), (ErrorKind::PayloadTooLarge, Some(49_999)));
    let panics = (0..50_000).map(|item| if item == 49_999 { panic!("the input panics") } else { vec![0; 10] });
    let job = pool.job(length).detach("nightly");
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job.map(panics).map(drop))).unwrap_err();
    // The name is free.
    let job = job.map([vec![0; 7]]).unwrap();
    assert_eq!(within(seconds(20), || job.get().unwrap()), [7]);
    drop(pool);
    cluster.stop().unwrap();
}

fn names_and_types() {
    let cluster = cluster();
    let pool = pool(cluster.address());
    let job = pool.job(noted_nap).detach("nightly");
    let log = Log::new("runs");
    let detached = job.starmap(items(log.path(), 3)).unwrap();
    let error = job.starmap(items(log.path(), 3)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    check_words(&error, &["detach \"nightly\"", "--discard"]);
    let error = farpool::attach_to::<String>(cluster.address(), "nightly").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    check_words(&error, &["of type u64", "alloc::string::String"]);
    let error = farpool::attach_to::<u64>(cluster.address(), "weekly").unwrap_err();
    check_words(&error, &["attach \"weekly\"", "farpool results"]);
    assert_eq!(within(seconds(20), || detached.get().unwrap()), squares(3));
    for name in [String::new(), "a\nb".to_owned(), "x".repeat(10_000)] {
        let error = pool.job(noted_nap).detach(&*name).apply((log.path(), 1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
    // A job without items, and one with a single item.
    let none = pool.job(noted_nap).detach("none").starmap(items(log.path(), 0)).unwrap();
    assert_eq!(within(seconds(20), || none.get().unwrap()), squares(0));
    let one = pool.job(noted_nap).detach("one").apply((log.path(), 3)).unwrap();
    assert_eq!(within(seconds(20), || one.get().unwrap()), [9]);
    pool.close();
    let error = pool.job(noted_nap).detach("more").apply((log.path(), 3)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    drop(pool);
    cluster.stop().unwrap();
}

fn a_coordinator_without_a_journal() {
    let cluster = cluster::empty();
    let pool = pool(cluster.address());
    let errors = [
        pool.job(noted_nap).detach("nightly").apply(("x".to_owned(), 1)).unwrap_err(),
        farpool::attach_to::<u64>(cluster.address(), "nightly").unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        check_words(&error, &["--journal"]);
    }
    drop(pool);
    cluster.stop().unwrap();
}

/// Returns the lengths of the records in a segment of a journal.
fn records(segment: &Path) -> Vec<u64> {
    let bytes = fs::read(segment).expect("no segment");
    let (mut rest, mut records) = (&bytes[32..], Vec::new());
    while let [_, _, _, _, _, _, _, _, a, b, c, d, ..] = *rest {
        let length = 16 + u32::from_le_bytes([a, b, c, d]) as usize;
        records.push(length as u64);
        rest = rest.get(length..).unwrap_or_default();
    }
    records
}

/// The disk becomes full at any byte of a job: the job is rejected at once and never runs, even if the coordinator is killed
/// then. A limit on the coordinator's file sizes simulates a full disk.
fn a_full_disk_rejects_the_job() {
    let (mut cluster, log) = (bare(), Log::new("runs"));
    let segment = runner::scratch().join("journal/0000000001.farpool-journal");
    let pool = pool(cluster.address());
    let detach = |name: &str| pool.job(noted_nap).detach(name).starmap(items(log.path(), 1));
    for name in ["kept-0", "kept-1"] {
        detach(name).unwrap();
    }
    // For each job: its pool, the job, the item, the end, and the mark that the item may have been given out.
    waiting::until(|| records(&segment).len() == 10);
    let bytes = records(&segment)[5..9].iter().sum::<u64>();
    for (round, lacking) in [1, 28, 30, bytes / 2, bytes].into_iter().enumerate() {
        let limit = fs::metadata(&segment).expect("cannot read the segment").len() + bytes - lacking;
        let mut limiting = Command::new("prlimit");
        limiting.args([format!("--pid={}", cluster.coordinator()), format!("--fsize={limit}:")]);
        assert!(limiting.status().expect("cannot run a program of util-linux").success());
        let error = within(seconds(1), || detach(&format!("lost-{round}")).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{lacking} of {bytes} bytes: {error}");
        check_words(&error, &["the journal in", "cannot be written to", "File too large"]);
        cluster.restart_coordinator();
    }
    drop(pool);
    cluster.add_agent(2, &[]);
    for name in ["kept-0", "kept-1"] {
        let job: Detached<u64> = farpool::attach_to(cluster.address(), name).unwrap();
        assert_eq!(within(seconds(20), || job.get().unwrap()), squares(1));
    }
    assert_eq!(log.lines().len(), 2, "a refused job has run");
    cluster.stop().unwrap();
}
