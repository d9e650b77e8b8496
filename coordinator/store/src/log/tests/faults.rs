//! Disks that are full or fail.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use farpool_proto::v1::{OpenJob, OpenPool};

use super::model::{Act, World, contents, open, settings};
use crate::JobStoreErrorKind;
use crate::log::Journal;
use crate::log::location::RecordLocation;
use crate::log::part::Part;
use crate::log::reader::{NotRead, Reader};
use crate::log::simulated::{Done, Simulated};

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

fn error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

/// Waits until the journal can write again.
fn recover(journal: &mut Journal) {
    for _ in 0..500 {
        std::thread::sleep(Duration::from_millis(10));
        if journal.progress().failed.is_none() && journal.sync().is_ok() {
            return;
        }
    }
    panic!("the journal stays failed");
}

/// Acts while the disk fails, and lets it recover: nothing that was accepted is missing.
fn check(fault: impl FnMut(&Done) -> Option<(io::Error, usize)> + Send + 'static, words: &str) {
    let mut world = World::new(1 << 20);
    let long = 50;
    for act in [Act::Open { long }, Act::Items { job: 0, count: 4, long }, Act::Sync] {
        world.act(&act);
    }
    let (durable, before) = (world.disk.files(), world.model.clone());
    world.disk.fail(Some(Box::new(fault)));
    world.act(&Act::Done { job: 0, at: 0, count: 2, long });
    let failed = world.journal.sync().expect_err("the disk did not fail");
    assert_eq!(failed.kind(), JobStoreErrorKind::Io);
    assert!(failed.to_string().contains(words), "{failed}");
    assert!(world.journal.progress().failed.is_some());
    let job = world.journal.find("local", "job 1").expect("no such job").number;
    for refused in [world.journal.would_fit(0), world.journal.forget(job)] {
        let refused = refused.expect_err("the write succeeded");
        assert!(refused.to_string().contains(words), "{refused}");
    }
    assert!(!world.journal.has_room_for_outcomes());
    // If the coordinator ended now, what was durable would exist.
    let (journal, _) = open(world.disk.files(), 1 << 20);
    let found = contents(&journal.expect("cannot open the journal"));
    assert!(found == before || found == world.model, "{found:?}");
    assert!(world.disk.files()[&1].starts_with(&durable[&1]), "durable bytes are unchanged");
    // Reports of agents are accepted meanwhile.
    world.act(&Act::Done { job: 0, at: 0, count: 1, long });
    world.disk.fail(None);
    recover(&mut world.journal);
    world.act(&Act::Failed { job: 0, at: 0, count: 1 });
    world.act(&Act::Sync);
    assert_eq!(contents(&world.journal), world.model);
    let (journal, warnings) = open(world.disk.files(), 1 << 20);
    assert_eq!((contents(&journal.expect("cannot open the journal")), warnings), (world.model.clone(), Vec::new()));
}

#[test]
fn a_full_disk_loses_nothing() {
    check(|done| matches!(done, Done::Write(..)).then(|| (error(ENOSPC), 0)), "No space left");
}

#[test]
fn a_disk_that_fills_up_within_a_record_loses_nothing() {
    check(|done| matches!(done, Done::Write(..)).then(|| (error(ENOSPC), 21)), "No space left");
}

#[test]
fn unsynced_records_are_written_again() {
    check(|done| matches!(done, Done::Sync(_)).then(|| (error(EIO), 0)), "Input/output error");
    let mut world = World::new(1 << 20);
    world.act(&Act::Open { long: 9 });
    world.act(&Act::Sync);
    let before = world.disk.done().len();
    let mut once = Some(error(EIO));
    world.disk.fail(Some(Box::new(move |done| {
        let fails = matches!(done, Done::Sync(_));
        fails.then(|| once.take()).flatten().map(|error| (error, 0))
    })));
    world.act(&Act::Items { job: 0, count: 1, long: 9 });
    world.journal.sync().expect_err("the disk did not fail");
    recover(&mut world.journal);
    let done = world.disk.done();
    // What was written before a failed sync may be lost, and the next sync would not report that.
    let [Done::Write(1, at, bytes), Done::Write(1, again, same), Done::Sync(1)] = &done[before..] else {
        panic!("{:?}", &done[before..])
    };
    assert_eq!((at, bytes), (again, same));
}

#[test]
fn a_segment_that_cannot_be_created_only_delays_writing() {
    let mut world = World::new(1 << 20);
    let long = 5000;
    world.act(&Act::Open { long });
    world.act(&Act::Items { job: 0, count: 3, long });
    world.act(&Act::Sync);
    world.disk.fail(Some(Box::new(|done| matches!(done, Done::Create(_)).then(|| (error(ENOSPC), 0)))));
    world.act(&Act::Items { job: 0, count: 3, long });
    world.journal.sync().expect_err("the disk did not fail");
    world.disk.fail(None);
    recover(&mut world.journal);
    assert_eq!(contents(&world.journal), world.model);
    let (journal, warnings) = open(world.disk.files(), 1 << 20);
    assert_eq!((contents(&journal.expect("cannot open the journal")), warnings), (world.model.clone(), Vec::new()));
}

#[test]
fn it_ends_even_if_the_disk_fails() {
    let mut world = World::new(1 << 20);
    world.act(&Act::Open { long: 9 });
    world.act(&Act::Sync);
    world.disk.fail(Some(Box::new(|_| Some((error(EIO), 0)))));
    let before = contents(&world.journal);
    world.act(&Act::Items { job: 0, count: 1, long: 9 });
    world.journal.flush();
    let World { disk, journal, .. } = world;
    drop(journal);
    assert_eq!(contents(&open(disk.files(), 1 << 20).0.expect("cannot open the journal")), before);
}

#[test]
fn it_writes_everything_before_it_ends() {
    let mut world = World::new(1 << 20);
    world.act(&Act::Open { long: 9 });
    world.act(&Act::Items { job: 0, count: 2, long: 9 });
    world.act(&Act::Done { job: 0, at: 0, count: 2, long: 9 });
    let World { disk, journal, model, .. } = world;
    drop(journal);
    assert_eq!(contents(&open(disk.files(), 1 << 20).0.expect("cannot open the journal")), model);
}

#[test]
fn unreadable_records_are_neither_moved_nor_removed() {
    let disk = Arc::new(Simulated::default());
    let size = 100 << 10;
    let mut journal =
        Journal::open_in(Arc::clone(&disk) as _, settings(size), &mut |_| ()).expect("cannot open the journal");
    let pool = journal.open_pool(&OpenPool::default()).expect("cannot open the pool");
    disk.set_unreadable(true);
    let mut warnings = Vec::new();
    for at in 0..100 {
        let function = vec![at; if at % 4 == 0 { 20 } else { 500 }];
        let open = OpenJob { function: function.into(), ..OpenJob::default() };
        let job = journal.open_job(pool, format!("{at}").as_str(), &open, 1).expect("cannot open the job");
        if at % 4 != 0 {
            journal.forget(job).expect("cannot forget the job");
        }
        warnings.extend(journal.sync().expect("cannot sync the journal").warnings);
    }
    assert!(warnings.len() > 3 && warnings[0].contains("cannot be emptied"), "{warnings:?}");
    disk.set_unreadable(false);
    let there = contents(&journal);
    assert_eq!(there.len(), 25);
    drop(journal);
    let (journal, warnings) = open(disk.files(), size);
    assert_eq!((contents(&journal.expect("cannot open the journal")), warnings), (there, Vec::new()));
}

#[test]
fn missing_records_are_distinguished_from_damaged_ones() {
    let mut world = World::new(1 << 20);
    world.act(&Act::Open { long: 100 });
    let location = opened(&world.journal, "job 1");
    assert!(!world.journal.is_durable(location));
    world.act(&Act::Sync);
    assert!(world.journal.is_durable(location));
    let mut files = world.disk.files();
    *files.get_mut(&1).and_then(|file| file.last_mut()).expect("the segment is empty") ^= 1;
    let reader = Reader::new(Arc::new(Simulated::new(files)));
    let Err(NotRead::Damaged(why)) = reader.read(location) else { panic!("the record is damaged") };
    assert!(why.contains("segment-1") && why.contains("checksum"), "{why}");
    let reader = Reader::new(Arc::new(Simulated::default()));
    assert!(matches!(reader.read(location), Err(NotRead::Moved)));
}

fn opened(journal: &Journal, name: &str) -> RecordLocation {
    let job = journal.find("local", name).expect("no such job");
    journal.index.location_of(Part::Opened(job.number)).expect("the job is not open")
}
