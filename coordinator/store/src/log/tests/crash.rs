//! Crashes at any moment, while segments are being emptied.

use std::sync::Arc;

use farpool_proto::v1::{OpenJob, OpenPool};
use proptest::prelude::*;

use super::model::{Act, Model, World, acts, contents, open_disk, settings};
use crate::log::Journal;
use crate::log::simulated::{Done, Files, Simulated};

/// Segments of half a kibibyte, so that they are emptied often.
const SIZE: u64 = 64 << 10;

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// The contents after a crash are those after some step, and not one before the last durable one.
    #[test]
    fn everything_durable_survives(
        acts in acts(400),
        crashes in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 24),
    ) {
        let mut world = World::new(SIZE);
        let mut models = vec![Model::new()];
        // The number of disk operations when this many steps were durable.
        let mut durable = vec![(0, 0)];
        for act in &acts {
            world.act(act);
            models.push(world.model.clone());
            if matches!(act, Act::Sync) {
                durable.push((world.disk.done().len(), models.len() - 1));
            }
        }
        prop_assert_eq!(&contents_when_durable(&mut world), &world.model);
        let done = world.disk.done();
        for (at, seed) in crashes {
            let at = at.index(done.len() + 1);
            let mut seed = seed;
            let disk = crashed(&done[..at], || {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (seed >> 33) as usize
            });
            let least = durable.iter().filter(|(disk, _)| *disk <= at).map(|(_, steps)| *steps).max().unwrap_or(0);
            let (journal, _) = open_disk(&Arc::new(disk), SIZE);
            let journal = journal.map_err(TestCaseError::fail)?;
            let found = contents(&journal);
            prop_assert!(models[least..].contains(&found), "none of the steps from {least} on, at {at}: {found:?}");
        }
    }
}

/// Returns what remains after a crash on a disk with these operations.
fn crashed(done: &[Done], mut chance: impl FnMut() -> usize) -> Simulated {
    let disk = Simulated::default();
    // The last note, or an earlier one.
    let (mut synced, latest) = (None, chance() % (done.len() + 1));
    for (at, done) in done.iter().enumerate() {
        disk.act(done.clone()).expect("the simulated disk failed");
        if let Done::Sync(segment) = done
            && (at < latest || synced.is_none() || latest.is_multiple_of(2))
        {
            synced = Some((*segment, disk.files()[segment].len() as u64));
        }
    }
    disk.set_synced(Some(synced.unwrap_or_default()));
    disk.crash(|most| {
        let kept = chance() % (most + 1);
        let (holes, length) = (chance() % (kept + 1), chance() % 64);
        (kept, if chance().is_multiple_of(4) { 0..kept } else { holes..(holes + length).min(kept) })
    });
    disk
}

fn contents_when_durable(world: &mut World) -> Model {
    world.journal.sync().expect("cannot sync the journal");
    contents(&world.journal)
}

#[test]
fn it_continues_after_every_crash() {
    let mut files = Files::new();
    let mut expected = 0;
    for round in 0..40u64 {
        let disk = Arc::new(Simulated::new(files));
        let mut warnings = 0;
        let journal = Journal::open_in(Arc::clone(&disk) as _, settings(SIZE), &mut |_| warnings += 1);
        let mut journal = journal.expect("cannot open the journal");
        assert_eq!((journal.jobs().count(), warnings), (expected, usize::from(round > 0)));
        let pool = journal.open_pool(&OpenPool::default()).expect("cannot open the pool");
        for at in 0..3 {
            journal
                .open_job(pool, format!("{round}/{at}").as_str(), &OpenJob::default(), round)
                .expect("cannot open the job");
        }
        if round % 4 == 3 {
            let all: Vec<_> = journal.jobs().map(|job| job.number).collect();
            all.iter().for_each(|&job| journal.forget(job).expect("cannot forget the job"));
        }
        for _ in 0..20 {
            journal.sync().expect("cannot sync the journal");
        }
        expected = journal.jobs().count();
        drop(journal);
        files = disk.files();
        files.last_entry().expect("no segment").get_mut().extend([7; 11]);
    }
    assert!(files.len() < 4, "unneeded segments are removed: {:?}", files.keys());
}
