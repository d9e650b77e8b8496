//! Jobs that become incomplete again because the disk does not accept the record that completes them: they are never
//! found complete, whenever the coordinator ends.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::model::{Act, World, batch, open_disk};
use crate::log::Journal;
use crate::log::simulated::{Done, Simulated};
use crate::{Phase, Progress};

/// All that is written fits into one segment, or hardly any of it.
const SIZES: [u64; 2] = [64 << 20, 1 << 20];
const ENOSPC: i32 = 28;

/// Where the record that completes the job is when its disk fails.
#[derive(Clone, Copy, Debug)]
enum Where {
    /// With the items, in the batch that is being written.
    WithItems,
    /// Behind something that was written before.
    Alone,
    /// In front of something that needs another segment.
    InFront,
    /// Sent to the thread, which has not taken it yet.
    Behind,
    /// Not sent yet.
    NotHanded,
}

/// A complete job whose end is not durable, on a disk that fails.
struct Failing {
    world: World,
    job: u64,
}

fn failing(size: u64, at: Where, fault: impl Fn(&Done) -> Option<usize> + Send + 'static) -> Failing {
    let mut world = World::new(size);
    // Some of it is too large to be copied into a batch.
    for act in [Act::Open { long: 50 }, Act::Items { job: 0, count: 2, long: 5000 }, Act::Sync] {
        world.act(&act);
    }
    let job = world.journal.find("local", "job 1").expect("no such job").number;
    world.disk.fail(Some(Box::new(move |done| fault(done).map(|left| (io::Error::from_raw_os_error(ENOSPC), left)))));
    let more = |journal: &mut Journal, first| {
        let (data, ends) = batch(&[vec![7; 5000], vec![8; 20]]);
        journal.items(job, first, data, ends).expect("the journal refused the items");
    };
    let journal = &mut world.journal;
    if !matches!(at, Where::Alone) {
        more(journal, 2);
    }
    if matches!(at, Where::Behind | Where::NotHanded) {
        journal.flush();
    }
    let items = journal.job(job).expect("no such job").counts().items;
    journal.end_items(job, items, 1).expect("the journal refused an entry before a write failed");
    if matches!(at, Where::InFront) {
        world.act(&Act::Open { long: 9000 });
    }
    if !matches!(at, Where::NotHanded) {
        world.journal.flush();
    }
    until(&mut world.journal, |progress| progress.failed.is_some());
    Failing { world, job }
}

/// Waits for progress that fulfils `so`.
fn until(journal: &mut Journal, so: impl Fn(&Progress) -> bool) -> Progress {
    let late = Instant::now() + Duration::from_secs(10);
    loop {
        let progress = journal.progress();
        if so(&progress) {
            return progress;
        }
        assert!(Instant::now() < late, "{progress:?}");
        thread::yield_now();
    }
}

/// Whether a coordinator finds the job complete on this disk.
fn is_complete(disk: &Arc<Simulated>) -> bool {
    let (journal, _) = open_disk(disk, SIZES[0]);
    let journal = journal.expect("cannot open the journal");
    journal.find("local", "job 1").is_some_and(|job| job.phase() != Phase::Feeding)
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

fn never_complete(size: u64, at: Where, fault: impl Fn(&Done) -> Option<usize> + Send + 'static) {
    let Failing { mut world, job } = failing(size, at, fault);
    world.journal.withdraw_end(job);
    let progress = until(&mut world.journal, |progress| !progress.withdrawn.is_empty());
    assert_eq!((progress.withdrawn, progress.failed.is_some()), (vec![job], true), "{at:?}");
    assert_eq!(world.journal.job(job).map(|job| job.phase()), Some(Phase::Feeding));
    let refused = world.disk.done().len();
    world.journal.forget_incomplete(job).expect("cannot forget the incomplete job");
    assert!(world.journal.find("local", "job 1").is_none(), "the job's name is free");
    world.disk.fail(None);
    until(&mut world.journal, |progress| progress.failed.is_none());
    world.journal.sync().expect("cannot sync the journal");
    let done = world.disk.done();
    for end in refused..=done.len() {
        for host in [false, true] {
            assert!(
                !is_complete(&after(&done[..end], host)),
                "{size}, {at:?}, after {end} of {} steps: {done:?}",
                done.len()
            );
        }
    }
    let (journal, warnings) = open_disk(&after(&done, true), size);
    assert!(
        journal.expect("cannot open the journal").find("local", "job 1").is_none() && warnings.is_empty(),
        "{at:?}: {warnings:?}"
    );
}

#[test]
fn withdrawn_records_are_never_found() {
    use Where::{Alone, Behind, InFront, NotHanded, WithItems};
    let cases = [WithItems, Alone, InFront, Behind, NotHanded].map(|at| SIZES.map(|size| (size, at)));
    for (size, at) in cases.into_iter().flatten() {
        // The disk accepts this many bytes of a write, and in the end all of it.
        for left in [0, 20, 5000, 5300, 1 << 20] {
            never_complete(size, at, move |done| matches!(done, Done::Write(..)).then_some(left));
        }
        // All of it is written, and not durable.
        never_complete(size, at, |done| matches!(done, Done::Sync(_)).then_some(1 << 20));
    }
}

#[test]
fn records_that_cannot_be_cut_off_are_not_withdrawn() {
    let fails = |done: &Done| matches!(done, Done::Sync(_) | Done::Truncate(..)).then_some(1 << 20);
    let Failing { mut world, job } = failing(SIZES[0], Where::WithItems, fails);
    assert!(is_complete(&after(&world.disk.done(), false)), "the test's precondition does not hold");
    let attempts = world.disk.done().len();
    world.journal.withdraw_end(job);
    // Wait until the withdrawal was attempted.
    let late = Instant::now() + Duration::from_secs(10);
    while world.disk.done().len() < attempts + 2 {
        assert!(world.journal.progress().withdrawn.is_empty() && Instant::now() < late, "the record may be on disk");
        thread::yield_now();
    }
    assert!(world.journal.forget_incomplete(job).is_err(), "the job may be complete");
    world.disk.fail(None);
    let progress = until(&mut world.journal, |progress| progress.failed.is_none());
    assert!(progress.withdrawn.is_empty(), "{progress:?}");
    world.journal.sync().expect("cannot sync the journal");
    assert_eq!(world.journal.job(job).map(|job| job.phase()), Some(Phase::Running));
    assert!(is_complete(&after(&world.disk.done(), true)));
}

#[test]
fn records_that_become_durable_are_not_withdrawn() {
    let Failing { mut world, job } =
        failing(SIZES[0], Where::WithItems, |done| matches!(done, Done::Write(..)).then_some(0));
    world.disk.fail(None);
    world.journal.withdraw_end(job);
    let progress = until(&mut world.journal, |progress| progress.failed.is_none());
    assert!(progress.withdrawn.is_empty(), "{progress:?}");
    // A later withdrawal is separate.
    world.journal.withdraw_end(job);
    world.journal.sync().expect("cannot sync the journal");
    assert_eq!(world.journal.job(job).map(|job| job.phase()), Some(Phase::Running));
    assert!(is_complete(&after(&world.disk.done(), true)));
}
