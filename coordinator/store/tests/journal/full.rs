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
        eprintln!("left out: a file system can only be mounted by root; disks that fail are simulated elsewhere");
        return;
    };
    let ballast = scratch.path().join("ballast");
    std::fs::write(&ballast, vec![7; 512 << 10]).expect("there is space");
    let directory = scratch.path().join("journal");
    let mut journal = open(&directory).expect("the journal opens");
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
    let refused = journal.open("one more".into(), &pool, &open_job, 1).expect_err("the journal is full");
    assert!(refused.to_string().contains("No space left"), "{refused}");
    assert!((50..200).contains(&durable), "{durable}");

    std::fs::remove_file(ballast).expect("the ballast can be removed");
    for _ in 0..1000 {
        std::thread::sleep(Duration::from_millis(10));
        if journal.progress().failed.is_none() {
            break;
        }
    }
    journal.open("one more".into(), &pool, &open_job, 1).expect("there is space again");
    journal.sync().expect("there is space again");
    assert_eq!(journal.jobs().count(), durable + 2);
    drop(journal);
    let journal = open(&directory).expect("the journal opens");
    assert_eq!(journal.jobs().count(), durable + 2);
    for job in journal.jobs() {
        journal.opening_now(job.number).expect("the job can be read");
    }
}

#[test]
fn two_processes_cannot_open_it() {
    let scratch = Scratch::new("locked");
    let journal = open(scratch.path()).expect("the journal opens");
    let error = open(scratch.path()).expect_err("the journal is locked");
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
    std::fs::write(&file, "x").expect("the file can be written");
    let error = open(&file).expect_err("the path is a file");
    assert!(error.kind() == JobStoreErrorKind::Io && error.to_string().contains("file"), "{error}");
}
