//! Segments that are missing, emptied, or so short that whole jobs are missing.

use std::sync::Arc;

use farpool_proto::v1::{OpenJob, OpenPool};

use super::model::{Act, World, contents, contents_after_damage, open_disk};
use crate::log::simulated::{Files, Simulated};
use crate::log::storage::Storage;
use crate::{Ended, Phase};

/// Returns a disk with these files, whose note has what is durable.
fn disk(files: Files, synced: Option<(u32, u64)>) -> Arc<Simulated> {
    let disk = Simulated::new(files);
    disk.set_synced(synced);
    Arc::new(disk)
}

/// A size with one segment, and one with many.
const SIZE: u64 = 1 << 20;
const SMALL: u64 = 64 << 10;

/// Three jobs of one item each, none of which has run.
fn jobs(size: u64) -> World {
    let mut world = World::new(size);
    for _ in 0..3 {
        let before = world.model.clone();
        world.act(&Act::Open { long: 40 });
        let job = world.model.keys().position(|name| !before.contains_key(name)).expect("no new job");
        for act in [Act::Items { job, count: 1, long: 900 }, Act::EndItems { job }, Act::Sync] {
            world.act(&act);
        }
    }
    assert_eq!(world.disk.files().len() > 1, size == SMALL);
    world
}

fn has(warnings: &[String], words: &str) -> bool {
    warnings.iter().any(|warning| warning.contains(words))
}

#[test]
fn a_missing_segment_is_reported_until_the_log_continues_behind_it() {
    let world = jobs(SIZE);
    let synced = world.disk.synced();
    assert_eq!(synced, Some((1, world.disk.files()[&1].len() as u64)));
    let disk = disk(Files::new(), synced);
    // Nothing is written, and each start reports it.
    for _ in 0..2 {
        let (journal, warnings) = open_disk(&disk, SIZE);
        let mut journal = journal.expect("cannot open the journal");
        journal.sync().expect("cannot sync the journal");
        assert!(
            warnings[0].contains("segment-1 is missing, and ") && warnings[0].contains("put it back"),
            "{warnings:?}"
        );
        assert!(has(&warnings, "jobs may be missing from the journal as a whole"), "{warnings:?}");
        assert_eq!((journal.jobs().count(), disk.synced()), (0, synced));
    }
    let (journal, _) = open_disk(&disk, SIZE);
    let mut journal = journal.expect("cannot open the journal");
    let pool = journal.open_pool(&OpenPool::default()).expect("cannot open the pool");
    journal.open_job(pool, "another", &OpenJob::default(), 1).expect("cannot open the job");
    journal.sync().expect("cannot sync the journal");
    drop(journal);
    assert_eq!(
        disk.files().keys().copied().collect::<Vec<_>>(),
        [2],
        "the number of the missing segment is not used again"
    );
    let (journal, warnings) = open_disk(&disk, SIZE);
    assert_eq!((journal.expect("cannot open the journal").jobs().count(), warnings), (1, Vec::new()));
}

#[test]
fn a_missing_last_segment_is_reported_and_affects_other_jobs() {
    let world = jobs(SMALL);
    let mut files = world.disk.files();
    let (last, _) = files.pop_last().expect("no segment");
    let disk = disk(files, world.disk.synced());
    let (journal, warnings) = open_disk(&disk, SMALL);
    let mut journal = journal.expect("cannot open the journal");
    journal.sync().expect("cannot sync the journal");
    assert!(warnings[0].contains(&format!("segment-{last} is missing")), "{warnings:?}");
    let before = contents(&world.journal);
    assert_eq!(contents_after_damage(&journal).len(), before.len(), "every job has records in other segments");
    // The last job lacks the end of its items, and the others may have lost the record that they had ended.
    assert!(has(&warnings, "it is unknown whether all items of the job had arrived"), "{warnings:?}");
    assert!(has(&warnings, "nothing is known to be missing from"), "{warnings:?}");
    assert!(disk.files().keys().all(|segment| *segment != last), "the segment's number is not used again");
}

#[test]
fn an_unfinished_segment_is_not_missing() {
    let world = jobs(SIZE);
    let files = world.disk.files();
    let (journal, warnings) = open_disk(&disk(files, Some((2, 32))), SIZE);
    assert_eq!((journal.expect("cannot open the journal").jobs().count(), warnings), (3, Vec::new()));
}

#[test]
fn the_missing_size_of_an_emptied_segment_is_reported() {
    let world = jobs(SIZE);
    let synced = world.disk.synced();
    let (journal, warnings) = open_disk(&disk(Files::from([(1, Vec::new())]), synced), SIZE);
    assert_eq!(journal.expect("cannot open the journal").jobs().count(), 0);
    let words = ["segment-1 is damaged: it is empty, and ", "of it were durable"];
    assert!(words.iter().all(|words| warnings[0].contains(words)), "{warnings:?}");
    assert!(!has(&warnings, "bytes 0 to 0") && has(&warnings, "missing from the journal as a whole"), "{warnings:?}");
    // If it is not the last segment, its size is unknown.
    let world = jobs(SMALL);
    let mut files = world.disk.files();
    files.insert(1, Vec::new());
    let (_, warnings) = open_disk(&disk(files, world.disk.synced()), SMALL);
    assert!(warnings[0].contains("segment-1 is damaged: it is empty: all that was in it is missing"), "{warnings:?}");
}

#[test]
fn a_short_segment_reports_that_jobs_may_be_missing() {
    let world = jobs(SIZE);
    let mut files = world.disk.files();
    let file = files.get_mut(&1).expect("no such segment");
    file.truncate(file.len() / 2);
    let (journal, warnings) = open_disk(&disk(files, world.disk.synced()), SIZE);
    let journal = journal.expect("cannot open the journal");
    assert!(journal.jobs().count() < 3, "the test's precondition does not hold");
    assert!(
        has(&warnings, "its last ") && has(&warnings, "jobs may be missing from the journal as a whole"),
        "{warnings:?}"
    );
    // A sealed segment lists all its jobs in the seal: here none is missing.
    let world = jobs(SMALL);
    let mut files = world.disk.files();
    let file = files.get_mut(&1).expect("no such segment");
    let middle = file.len() / 2;
    file[middle] ^= 1;
    let (journal, warnings) = open_disk(&disk(files, world.disk.synced()), SMALL);
    assert!(warnings[0].contains("segment-1 is damaged") && !has(&warnings, "as a whole"), "{warnings:?}");
    let ended = |phase| matches!(phase, Phase::Running | Phase::Ended(Ended::Failed));
    assert!(journal.expect("cannot open the journal").jobs().all(|job| ended(job.phase())));
}
