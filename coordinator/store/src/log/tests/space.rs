//! How a journal fills, and how it gets room again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farpool_proto::v1::{OpenJob, OpenPool};

use super::model::{batch, contents, open, settings};
use crate::log::reader::RecordContents;
use crate::log::simulated::Simulated;
use crate::log::{Journal, Settings};
use crate::{JobStoreError, JobStoreErrorKind};

const SIZE: u64 = 256 << 10;

fn journal(settings: Settings) -> (Arc<Simulated>, Journal, u64) {
    let disk = Arc::new(Simulated::default());
    let journal = Journal::open_in(Arc::clone(&disk) as _, settings, &mut |_| ());
    let mut journal = journal.expect("cannot open the journal");
    let pool = journal.open_pool(&OpenPool::default()).expect("cannot open the pool");
    (disk, journal, pool)
}

fn on_disk(disk: &Simulated) -> u64 {
    disk.files().values().map(|file| file.len() as u64).sum()
}

/// Lets the journal finish its background work.
fn settle(journal: &mut Journal) {
    for _ in 0..200 {
        journal.sync().expect("cannot sync the journal");
    }
}

#[test]
fn a_small_remaining_job_does_not_block_removal() {
    let (disk, mut journal, pool) = journal(settings(SIZE));
    let mut most = 0;
    for round in 0..300u64 {
        let name = if round % 50 == 0 { format!("stays {round}") } else { format!("goes {round}") };
        let job = journal.open_job(pool, name.as_str(), &OpenJob::default(), round).expect("cannot open the job");
        let (data, ends) = batch(&[vec![round as u8; 1500], vec![1; 10]]);
        journal.items(job, 0, data.clone(), ends.clone()).expect("the journal has no room");
        journal.done(job, 0, data, ends, false, 0).expect("the journal refused the outcomes");
        journal.end_items(job, 2, round).expect("cannot end the job's input");
        journal.end_job(job, false, None, round).expect("cannot end the job");
        journal.sync().expect("cannot sync the journal");
        if round % 50 != 0 {
            journal.forget(job).expect("cannot forget the job");
        }
        settle(&mut journal);
        most = most.max(on_disk(&disk));
    }
    assert_eq!(journal.bytes(), on_disk(&disk));
    assert!(most < 60 << 10, "{most} bytes, and {} are wanted", journal.live_bytes());
    let there = contents(&journal);
    assert_eq!(there.len(), 6);
    drop(journal);
    let (journal, warnings) = open(disk.files(), SIZE);
    assert_eq!((contents(&journal.expect("cannot open the journal")), warnings), (there, Vec::new()));
}

#[test]
fn a_full_journal_accepts_outcomes_and_reports_room() {
    let (disk, mut journal, pool) = journal(settings(SIZE));
    let job = journal.open_job(pool, "fills", &OpenJob::default(), 1).expect("cannot open the job");
    let (data, ends) = batch(&[vec![7; 4000]]);
    let mut items = 0;
    let full = loop {
        match journal.items(job, items, data.clone(), ends.clone()) {
            Ok(()) => items += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), JobStoreErrorKind::Full);
    assert!(full.to_string().contains("full") && full.to_string().contains("256KiB"), "{full}");
    assert_eq!(journal.would_fit(4000).expect_err("the full journal accepted more").kind(), JobStoreErrorKind::Full);
    assert!(journal.has_room_for_outcomes() && items >= 50);
    journal
        .open_pool(&OpenPool { id: vec![7; 4000].into(), ..OpenPool::default() })
        .expect_err("the full journal accepted more");
    // Results are as large as the items, and replace them one by one.
    for item in 0..items {
        journal.done(job, item, data.clone(), ends.clone(), false, 0).expect("the journal refused the outcomes");
        settle(&mut journal);
        assert!(on_disk(&disk) < SIZE, "{} at item {item}", on_disk(&disk));
    }
    assert_eq!(journal.would_fit(4000).expect_err("the full journal accepted more").kind(), JobStoreErrorKind::Full);
    assert_eq!(contents(&journal)["fills"].outcomes.len() as u64, items);
    journal.forget(job).expect("cannot forget the job");
    settle(&mut journal);
    journal.would_fit(4000).expect("the journal has no room");
}

#[test]
fn outcomes_larger_than_items_stop_at_the_bound() {
    let (_disk, mut journal, pool) = journal(settings(SIZE));
    let job = journal.open_job(pool, "grows", &OpenJob::default(), 1).expect("cannot open the job");
    let (data, ends) = batch(&vec![vec![1; 10]; 1000]);
    journal.items(job, 0, data, ends).expect("the journal has no room");
    let (data, ends) = batch(&[vec![7; 4000]]);
    let mut item = 0;
    while journal.has_room_for_outcomes() {
        journal.done(job, item, data.clone(), ends.clone(), false, 0).expect("the journal refused the outcomes");
        item += 1;
        settle(&mut journal);
    }
    assert!((55..65).contains(&item), "{item}");
    journal.done(job, item, data, ends, false, 0).expect("the journal refused the outcomes");
}

#[test]
fn many_tiny_records_reach_a_bound() {
    let (_disk, mut journal, pool) = journal(settings(SIZE));
    let job = journal.open_job(pool, "small", &OpenJob::default(), 1).expect("cannot open the job");
    let taken =
        (0..10_000u64).take_while(|&at| journal.items(job, at, Bytes::new(), Bytes::from_static(&[0; 4])).is_ok());
    assert_eq!(taken.count() as u64, SIZE / 512 - 2);
}

#[test]
fn consecutive_results_are_joined() {
    let (disk, mut journal, pool) = journal(settings(1 << 20));
    let job = journal.open_job(pool, "many", &OpenJob::default(), 1).expect("cannot open the job");
    let (data, ends) = batch(&(0..1000u64).map(|at| at.to_le_bytes().to_vec()).collect::<Vec<_>>());
    journal.items(job, 0, data, ends).expect("the journal has no room");
    for at in (0..500).chain(600..1000u64) {
        let (data, ends) = batch(&[at.to_le_bytes().to_vec()]);
        journal.done(job, at, data, ends, false, 0).expect("the journal refused the outcomes");
    }
    let (data, ends) = batch(&[vec![1]]);
    for at in [3, 700, 999] {
        let again =
            journal.done(job, at, data.clone(), ends.clone(), false, 0).expect_err("a second outcome was accepted");
        assert_eq!(again.kind(), JobStoreErrorKind::Invalid);
    }
    let number = journal.flush();
    assert_eq!(number, 5);
    journal.sync().expect("cannot sync the journal");
    assert_eq!(journal.located(job).expect("no such job").outcomes_from(0).count(), 2);
    assert_eq!(journal.located(job).expect("no such job").outcomes_from(400).next().map(|(first, ..)| first), Some(0));
    assert_eq!(contents(&journal)["many"].outcomes[&700], Ok(700u64.to_le_bytes().to_vec()));
    let there = contents(&journal);
    assert_eq!(contents(&open(disk.files(), 1 << 20).0.expect("cannot open the journal")), there);
}

#[test]
fn results_keep_whether_they_failed_and_after_how_many_attempts() {
    let (disk, mut journal, pool) = journal(settings(1 << 20));
    let job = journal.open_job(pool, "tried", &OpenJob::default(), 1).expect("cannot open the job");
    let (data, ends) = batch(&vec![vec![7]; 6]);
    journal.items(job, 0, data, ends).expect("the journal has no room");
    let alike = [(false, 0), (false, 0), (false, 2), (true, 2), (true, 3), (true, 3)];
    for (item, (failed, attempts)) in (0..).zip(alike) {
        let (data, ends) = batch(&[vec![1]]);
        journal.done(job, item, data, ends, failed, attempts).expect("the journal refused the outcomes");
    }
    journal.flush();
    journal.sync().expect("cannot sync the journal");
    let check = |journal: &Journal| {
        let there = journal.located(job).expect("no such job");
        let read = there.outcomes_from(0).map(|(.., location)| match journal.reads.reader.read(location) {
            Ok(RecordContents::Done { first, ends, failed, attempts, .. }) => (first, ends.len() / 4, failed, attempts),
            other => panic!("{other:?}"),
        });
        let expected = [(0, 2, false, 0), (2, 1, false, 2), (3, 1, true, 2), (4, 2, true, 3)];
        assert_eq!((read.collect::<Vec<_>>(), there.job.failed), (expected.to_vec(), 3));
    };
    check(&journal);
    check(&open(disk.files(), 1 << 20).0.expect("cannot open the journal"));
}

#[test]
fn ended_jobs_expire() {
    let settings = Settings { expiry: Duration::from_millis(1000), ..settings(SIZE) };
    let (disk, mut journal, pool) = journal(settings.clone());
    let mut job =
        |name: &str, now| journal.open_job(pool, name, &OpenJob::default(), now).expect("cannot open the job");
    let (ended, runs, later, _fed) = (job("ended", 100), job("runs", 100), job("later", 100), job("fed", 300));
    for job in [ended, runs, later] {
        journal.end_items(job, 0, 150).expect("cannot end the job's input");
    }
    assert_eq!(journal.next_expiry(), None);
    for (job, at) in [(later, 300), (ended, 200)] {
        journal.end_job(job, false, None, at).expect("cannot end the job");
        assert_eq!(journal.next_expiry(), Some(at + 1000));
    }
    assert_eq!(journal.expire(1199).expect("cannot append the records"), Vec::new());
    assert_eq!(journal.expire(1200).expect("cannot append the records"), [(ended, "ended".to_owned())]);
    journal.sync().expect("cannot sync the journal");
    drop(journal);
    // The time before the restart counts.
    let journal = Journal::open_in(Arc::new(Simulated::new(disk.files())), settings, &mut |_| ());
    let mut journal = journal.expect("cannot open the journal");
    assert_eq!(journal.next_expiry(), Some(1300));
    assert_eq!(journal.expire(u64::MAX).expect("cannot append the records"), [(later, "later".to_owned())]);
    assert_eq!((journal.jobs().count(), journal.next_expiry()), (2, None));
}

#[test]
fn oversized_records_are_refused() {
    let (_disk, mut journal, pool) = journal(settings(SIZE));
    let open = OpenJob::default();
    let job = journal.open_job(pool, "one", &open, 1).expect("cannot open the job");
    let kind = |error: Result<u64, JobStoreError>| error.expect_err("the job was accepted").kind();
    assert_eq!(kind(journal.open_job(pool, "one", &open, 1)), JobStoreErrorKind::NameTaken);
    assert_eq!(kind(journal.open_job(pool, "", &open, 1)), JobStoreErrorKind::Invalid);
    assert_eq!(kind(journal.open_job(pool, "x".repeat(1025).as_str(), &open, 1)), JobStoreErrorKind::Invalid);
    assert_eq!(kind(journal.open_job(pool + 1, "two", &open, 1)), JobStoreErrorKind::NotFound);
    journal.close_pool(pool);
    assert_eq!(kind(journal.open_job(pool, "two", &open, 1)), JobStoreErrorKind::NotFound);
    let (data, ends) = batch(&[vec![1], vec![2]]);
    journal.items(job, 3, data.clone(), ends.clone()).expect("the journal refused the items");
    let short = data.slice(1..);
    let refused = |result: Result<(), JobStoreError>, kind| {
        assert_eq!(result.expect_err("the call was accepted").kind(), kind);
    };
    refused(journal.items(job, 4, data.clone(), ends.clone()), JobStoreErrorKind::Invalid);
    refused(journal.items(job, 5, short.clone(), ends.clone()), JobStoreErrorKind::Invalid);
    refused(journal.items(job, u64::MAX, data.clone(), ends.clone()), JobStoreErrorKind::Invalid);
    refused(journal.items(job, 5, Bytes::new(), Bytes::new()), JobStoreErrorKind::Invalid);
    refused(journal.items(job + 1, 0, data.clone(), ends.clone()), JobStoreErrorKind::NotFound);
    refused(journal.done(job, 3, short, ends.clone(), false, 0), JobStoreErrorKind::Invalid);
    refused(journal.failed(job, u64::MAX, 1, &Default::default()), JobStoreErrorKind::Invalid);
    refused(journal.forget(job + 1), JobStoreErrorKind::NotFound);
    journal.end_items(job, 5, 1).expect("cannot end the job's input");
    refused(journal.items(job, 5, data, ends), JobStoreErrorKind::Invalid);
    assert_eq!(journal.located(job).expect("no such job").lost().collect::<Vec<_>>(), [(0, 3)]);
}

#[test]
fn many_small_records_fill_it_as_well() {
    let (_, mut journal, pool) = journal(settings(SIZE));
    let job = journal.open_job(pool, "small", &OpenJob::default(), 1).expect("cannot open the job");
    let (data, ends) = batch(&[vec![7]]);
    let full = (0..).find_map(|item| journal.items(job, item, data.clone(), ends.clone()).err());
    let full = full.expect("the journal did not get full");
    assert_eq!(full.kind(), JobStoreErrorKind::Full);
    assert!(full.to_string().contains("is full (512 of 512 records in use"), "{full}");
}
