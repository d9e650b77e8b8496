//! Jobs that were refused because they have filled the disk: their items make room, even if the coordinator ends at any
//! time.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use farpool_proto::v1::{OpenJob, OpenPool};

use super::model::{batch, open_disk, settings};
use crate::log::Journal;
use crate::log::simulated::{Done, Fault, Simulated};
use crate::{Ended, Phase};

const SIZE: u64 = 64 << 20;
const PAGE: u64 = 4 << 10;
const PAGES: usize = 64;
const ENOSPC: i32 = 28;

/// A disk with room for this many pages; extending a file takes none.
fn small() -> Fault {
    let mut used = BTreeSet::new();
    Box::new(move |done| {
        match done {
            Done::Create(segment) | Done::Remove(segment) => used.retain(|(of, _)| of != segment),
            Done::Truncate(segment, length) => used.retain(|&(of, page)| of != *segment || page * PAGE < *length),
            Done::Write(segment, offset, bytes) => {
                let end = offset + bytes.len() as u64;
                for page in offset / PAGE..end.div_ceil(PAGE) {
                    if used.len() == PAGES && !used.contains(&(*segment, page)) {
                        let written = (page * PAGE).saturating_sub(*offset) as usize;
                        return Some((io::Error::from_raw_os_error(ENOSPC), written));
                    }
                    used.insert((*segment, page));
                }
            }
            _ => {}
        }
        None
    })
}

/// What else happens when the disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    /// Everything after the first job belongs to the one that fills the disk.
    OfItsItems,
    /// An outcome of the first job comes after most of its items.
    BehindAnOutcome,
    /// Many of its items were not yet flushed when writing began to fail.
    AndMoreComes,
}

struct Filled {
    disk: Arc<Simulated>,
    journal: Journal,
    first: u64,
    big: u64,
}

fn fill(full: Full) -> Filled {
    let disk = Arc::new(Simulated::default());
    disk.fail(Some(small()));
    let journal = Journal::open_in(Arc::clone(&disk) as _, settings(SIZE), &mut |warning| panic!("{warning}"));
    let mut journal = journal.expect("cannot open the journal");
    let open = |journal: &mut Journal, name: &str| {
        let pool = journal.open_pool(&OpenPool::default()).expect("cannot open the pool");
        let job = journal.open_job(pool, name, &OpenJob::default(), 1).expect("cannot open the job");
        journal.close_pool(pool);
        job
    };
    let (data, ends) = batch(&[vec![1], vec![2]]);
    let first = open(&mut journal, "first");
    journal.items(first, 0, data.clone(), ends).expect("the journal refused the items");
    journal.end_items(first, 2, 1).expect("cannot end the job's input");
    let big = open(&mut journal, "big");
    // Some of it is too large to be copied into a batch.
    let (large, ends) = batch(&[vec![7; 9000], vec![8; 20]]);
    let mut items = 0;
    let mut more = |journal: &mut Journal| {
        let taken = journal.items(big, items, large.clone(), ends.clone());
        items += 2;
        taken
    };
    for _ in 0..20 {
        more(&mut journal).expect("the journal refused the items");
    }
    journal.sync().expect("cannot sync the journal");
    if full == Full::BehindAnOutcome {
        journal
            .done(first, 0, data.slice(..1), vec![1, 0, 0, 0].into(), false, 0)
            .expect("the journal refused the outcomes");
        journal.sync().expect("cannot sync the journal");
    }
    while journal.sync().is_ok() {
        more(&mut journal).expect("the journal refused an entry before a write failed");
        if full == Full::AndMoreComes {
            (0..10).for_each(|_| more(&mut journal).expect("the journal refused an entry before a write failed"));
        }
    }
    Filled { disk, journal, first, big }
}

/// Waits until everything flushed is durable.
fn recovers(journal: &mut Journal) {
    let late = Instant::now() + Duration::from_secs(10);
    while journal.sync().is_err() {
        assert!(Instant::now() < late, "nothing can be written");
        thread::yield_now();
    }
}

/// Returns the disk after these operations, when the coordinator was killed or its host crashed.
fn after(done: &[Done], host: bool) -> Arc<Simulated> {
    let disk = Simulated::default();
    done.iter().for_each(|done| disk.act(done.clone()).expect("the simulated disk failed"));
    if host {
        disk.crash(|_| (0, 0..0));
    }
    Arc::new(disk)
}

fn check(full: Full) {
    let Filled { disk, mut journal, first, big } = fill(full);
    let refused = disk.done().len();
    journal.forget_incomplete(big).expect("cannot forget the incomplete job");
    recovers(&mut journal);
    assert!(disk.files()[&1].len() as u64 > PAGES as u64 * PAGE, "nothing has another location");
    // There is room for the outcomes of the first job, and for another one.
    let done = journal.job(first).expect("no such job").counts().done;
    let (data, ends) = batch(&(done..2).map(|at| vec![at as u8]).collect::<Vec<_>>());
    journal.done(first, done, data.clone(), ends.clone(), false, 0).expect("the journal refused the outcomes");
    journal.end_job(first, false, None, 2).expect("cannot end the job");
    let pool = journal.open_pool(&OpenPool::default()).expect("cannot open the pool");
    let other = journal.open_job(pool, "big", &OpenJob::default(), 3).expect("the name is taken");
    journal.items(other, 0, data, ends).expect("the journal refused the items");
    journal.end_items(other, 2 - done, 3).expect("cannot end the job's input");
    journal.sync().expect("cannot sync the journal");
    let done = disk.done();
    for end in refused..=done.len() {
        for host in [false, true] {
            let (journal, warnings) = open_disk(&after(&done[..end], host), SIZE);
            let journal = journal.unwrap_or_else(|error| panic!("{full:?}, after {end} steps: {error}"));
            let phase = journal.find("local", "first").map(|job| job.phase());
            assert!(matches!(phase, Some(Phase::Running | Phase::Ended(Ended::Finished))), "{full:?}: {phase:?}");
            assert_eq!(journal.located(first).expect("no such job").lost().count(), 0);
            let is_complete = |job: &crate::Job| job.number == big && job.phase() != Phase::Feeding;
            assert!(!journal.jobs().any(is_complete), "{full:?}, after {end} steps");
            assert!(!warnings.iter().any(|warning| warning.contains("damaged")), "{full:?}: {warnings:?}");
        }
    }
    // The note of what is durable is right, whatever was cut off.
    let disk_after = Arc::new(Simulated::new(disk.files()));
    disk_after.set_synced(crate::log::storage::Storage::synced(&*disk));
    let (journal, warnings) = open_disk(&disk_after, SIZE);
    let journal = journal.expect("cannot open the journal");
    let phases: Vec<_> = journal.jobs().map(|job| (job.name().to_owned(), job.phase())).collect();
    let expected = [("first".to_owned(), Phase::Ended(Ended::Finished)), ("big".to_owned(), Phase::Running)];
    assert_eq!((phases, warnings), (expected.to_vec(), Vec::new()), "{full:?}");
}

#[test]
fn items_of_a_refused_job_make_room_for_others() {
    [Full::OfItsItems, Full::BehindAnOutcome, Full::AndMoreComes].into_iter().for_each(check);
}

/// Nothing of a job is left out if it is not refused.
#[test]
fn a_job_that_waits_for_room_keeps_its_items() {
    let Filled { disk, mut journal, big, .. } = fill(Full::AndMoreComes);
    disk.fail(None);
    recovers(&mut journal);
    let there = journal.located(big).expect("no such job");
    assert_eq!((there.lost().count(), there.job.phase()), (0, Phase::Feeding));
    let items = there.job.counts().items;
    let (again, warnings) = open_disk(&Arc::new(Simulated::new(disk.files())), SIZE);
    let again = again.expect("cannot open the journal");
    let there = again.located(big).expect("no such job");
    assert_eq!((there.job.counts().items, there.lost().count(), warnings), (items, 0, Vec::new()));
}
