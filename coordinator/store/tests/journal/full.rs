use std::time::{Duration, Instant};

use farpool_proto::v1::{OpenJob, OpenPool};
use farpool_store::log::{Journal, Settings};
use farpool_store::{JobStore, JobStoreError, JobStoreErrorKind};

use crate::scratch::Scratch;

fn open(directory: &std::path::Path) -> Result<Journal, JobStoreError> {
    Journal::open(Settings::new(directory), |warning| panic!("{warning}"))
}

#[test]
fn a_full_disk_loses_nothing_and_continues_when_there_is_space() {
    let Some(scratch) = Scratch::small_disk("full", 2048) else {
        eprintln!("skipped: only root can mount a file system; disks that fail are simulated elsewhere");
        return;
    };
    let ballast = scratch.path().join("ballast");
    std::fs::write(&ballast, vec![7; 512 << 10]).expect("the journal has no space");
    let directory = scratch.path().join("journal");
    let mut journal = open(&directory).expect("cannot open the journal");
    let pool = OpenPool::default();
    let mut durable = 0;
    let open_job = OpenJob { function: vec![7; 10_000].into(), ..OpenJob::default() };
    let full = loop {
        journal
            .open(format!("{durable}").as_str().into(), &pool, &open_job, 1)
            .expect("the journal was not full before");
        match journal.sync() {
            Ok(_) => durable += 1,
            Err(error) => break error,
        }
    };
    assert!(full.kind() == JobStoreErrorKind::Io && full.to_string().contains("No space left"), "{full}");
    let refused = journal.open("one more".into(), &pool, &open_job, 1).expect_err("the full journal accepted more");
    assert!(refused.to_string().contains("No space left"), "{refused}");
    assert!((50..200).contains(&durable), "{durable}");

    std::fs::remove_file(ballast).expect("cannot remove the ballast");
    for _ in 0..1000 {
        std::thread::sleep(Duration::from_millis(10));
        if journal.progress().failed.is_none() {
            break;
        }
    }
    journal.open("one more".into(), &pool, &open_job, 1).expect("the journal still has no space");
    journal.sync().expect("the journal still has no space");
    assert_eq!(journal.jobs().count(), durable + 2);
    drop(journal);
    let journal = open(&directory).expect("cannot open the journal");
    assert_eq!(journal.jobs().count(), durable + 2);
    for job in journal.jobs() {
        journal.opening_now(job.number).expect("cannot read the job");
    }
}

#[test]
fn two_processes_cannot_open_it() {
    let scratch = Scratch::new("locked");
    let journal = open(scratch.path()).expect("cannot open the journal");
    let error = open(scratch.path()).expect_err("the locked journal opened");
    assert_eq!(error.kind(), JobStoreErrorKind::Locked);
    assert!(error.to_string().contains(&scratch.path().display().to_string()), "{error}");
    drop(journal);
    // A process that another test has just forked may have the lock until its exec.
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Err(error) = open(scratch.path()) {
        assert!(error.kind() == JobStoreErrorKind::Locked && Instant::now() < deadline, "{error}");
        std::thread::yield_now();
    }
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let scratch = Scratch::new("file");
    let file = scratch.path().join("file");
    std::fs::write(&file, "x").expect("cannot write the file");
    let error = open(&file).expect_err("the journal opened on a file");
    assert!(error.kind() == JobStoreErrorKind::Io && error.to_string().contains("file"), "{error}");
}
