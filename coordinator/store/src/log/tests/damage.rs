//! Journals that were damaged after they had been written.

mod lost_records;
mod segments;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use farpool_proto::v1::journal_record::Body;
use proptest::prelude::*;

use super::model::{Act, Model, ModelJob, World, acts, contents, contents_after_damage, open_disk};
use crate::log::Journal;
use crate::log::record::run;
use crate::log::simulated::{Files, Simulated};
use crate::log::source::Source;
use crate::log::storage::Storage;
use crate::{Ended, Phase};

/// Kinds of damage to a file. All numbers are parts of its length.
#[derive(Clone, Debug)]
enum Harm {
    Flip(u8),
    Zero(usize),
    Cut(usize),
    Insert(Vec<u8>),
    /// A block exists twice.
    Duplicate(usize),
    /// Two blocks are swapped.
    Swap(usize),
    Truncate,
    Append(Vec<u8>),
}

impl Harm {
    fn inflict(&self, file: &mut Vec<u8>, at: usize) {
        let at = at.min(file.len());
        let until = |length: usize| (at + length).min(file.len());
        match self {
            Harm::Flip(other) => file.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= other),
            Harm::Zero(length) => {
                let end = until(*length);
                file[at..end].fill(0);
            }
            Harm::Cut(length) => drop(file.drain(at..until(*length))),
            Harm::Insert(bytes) => drop(file.splice(at..at, bytes.iter().copied())),
            Harm::Duplicate(length) => {
                let block = file[at..until(*length)].to_vec();
                file.splice(at..at, block);
            }
            Harm::Swap(length) => {
                let length = (*length).min((file.len() - at) / 2);
                let (one, two) = file[at..].split_at_mut(length);
                one.swap_with_slice(&mut two[..length]);
            }
            Harm::Truncate => file.truncate(at),
            Harm::Append(bytes) => file.extend(bytes),
        }
    }
}

fn harmed(files: &Files, harms: &[(usize, prop::sample::Index, Harm)]) -> Files {
    let mut damaged = files.clone();
    for (which, at, harm) in harms {
        let which = which % damaged.len();
        let file = damaged.values_mut().nth(which).expect("no such segment");
        harm.inflict(file, at.index(file.len() + 1));
    }
    damaged
}

/// Returns a world in which all these acts were done, after some others.
fn done(acts: &[Act], size: u64) -> World {
    let mut world = World::new(size);
    [Act::Open { long: 9 }].iter().chain(acts).for_each(|act| _ = world.act(act));
    world.journal.sync().expect("cannot sync the journal");
    world
}

fn harms() -> impl Strategy<Value = Vec<(usize, prop::sample::Index, Harm)>> {
    let bytes = || prop::collection::vec(any::<u8>(), 1..300);
    let harm = prop_oneof![
        3 => (1..=255u8).prop_map(Harm::Flip),
        3 => (1..600usize).prop_map(Harm::Zero),
        1 => (1..300usize).prop_map(Harm::Cut),
        1 => bytes().prop_map(Harm::Insert),
        1 => (1..300usize).prop_map(Harm::Duplicate),
        1 => (1..300usize).prop_map(Harm::Swap),
        1 => Just(Harm::Truncate),
        1 => bytes().prop_map(Harm::Append),
    ];
    prop::collection::vec((any::<usize>(), any::<prop::sample::Index>(), harm), 1..4)
}

/// Returns all records of a whole log: the location of each, and its job or pool.
fn records(files: &Files) -> Vec<(u32, u64, u64, Body)> {
    let disk = Simulated::new(files.clone());
    let mut all = Vec::new();
    for segment in disk.segments() {
        let mut source = Source::new(&disk, segment).expect("cannot read the segment");
        let mut at = 32;
        while at < source.length() {
            let (body, location) =
                source.record(at).expect("cannot read the record").expect("the record is incomplete");
            all.push((segment, at, location.end(), body));
            at = location.end();
        }
    }
    all
}

fn job_of(body: &Body) -> Option<u64> {
    match body {
        Body::PoolOpened(_) | Body::Sealed(_) | Body::Filler(_) => None,
        Body::JobOpened(opened) => Some(opened.job),
        Body::Items(_) | Body::ItemsDone(_) | Body::ItemsFailed(_) => run(body).map(|(job, ..)| job),
        Body::ItemsEnded(ended) => Some(ended.job),
        Body::ItemsFed(fed) => Some(fed.job),
        Body::Placed(placed) => Some(placed.job),
        Body::JobEnded(ended) => Some(ended.job),
        Body::JobForgotten(forgotten) => Some(forgotten.job),
        Body::JobState(state) => Some(state.job),
    }
}

/// Returns the names of jobs whose records, and those of their pool, are all unchanged.
fn untouched(files: &Files, damaged: &Files) -> BTreeSet<String> {
    let (mut names, mut pools_of) = (BTreeMap::new(), BTreeMap::new());
    let (mut hit_jobs, mut hit_pools) = (BTreeSet::new(), BTreeSet::new());
    for (segment, from, to, body) in records(files) {
        let (from, to) = (from as usize, to as usize);
        let is_whole = damaged.get(&segment).is_some_and(|file| file.get(from..to) == files[&segment].get(from..to));
        match &body {
            Body::JobOpened(opened) => {
                names.insert(opened.job, opened.name.clone());
                pools_of.insert(opened.job, opened.pool);
            }
            Body::PoolOpened(opened) if !is_whole => drop(hit_pools.insert(opened.pool)),
            _ => {}
        }
        hit_jobs.extend(job_of(&body).filter(|_| !is_whole));
    }
    names.retain(|job, _| !hit_jobs.contains(job) && !hit_pools.contains(&pools_of[job]));
    names.into_values().collect()
}

/// If all records of a job are whole, it is unchanged. Only whether all its items had arrived may be unknown.
fn check_untouched(name: &str, before: &ModelJob, after: &Model) {
    let after = after.get(name).unwrap_or_else(|| panic!("{name} is gone"));
    let mut expected = before.clone();
    if before.phase == Phase::Feeding {
        (expected.phase, expected.times_ms) = (after.phase, after.times_ms);
        assert!(matches!(after.phase, Phase::Feeding | Phase::Ended(Ended::Failed)), "{:?}", after.phase);
    }
    if before.phase == Phase::Ended(Ended::Finished) && before.times_ms.0 == 0 {
        // Then it may also be unknown how many items it had.
        (expected.phase, expected.times_ms) = (after.phase, after.times_ms);
        assert!(matches!(after.phase, Phase::Ended(Ended::Finished | Ended::Failed)), "{:?}", after.phase);
    } else if before.phase == Phase::Ended(Ended::Finished) {
        // The model ends jobs at random. Items without outcomes are reported as failures then, as they may be missing.
        expected.items.clear();
        let lacks: Vec<u64> = (0..before.counts.0).filter(|item| !before.outcomes.contains_key(item)).collect();
        let reported =
            lacks.iter().filter_map(|item| Some((*item, after.outcomes.get(item)?.clone()))).collect::<Vec<_>>();
        if reported.is_empty() {
            expected.items.clone_from(&before.items);
        } else {
            assert_eq!(reported.len(), lacks.len());
            assert!(reported.iter().all(|(_, outcome)| outcome.as_ref().is_err_and(|why| why.contains("damaged"))));
            expected.counts = (before.counts.0, before.counts.0, before.counts.2 + lacks.len() as u64);
            expected.outcomes.extend(reported);
        }
    }
    assert_eq!(*after, expected, "{name}");
}

/// Lets a journal empty its damaged segments.
fn settle(journal: &mut Journal) {
    for _ in 0..200 {
        journal.sync().expect("cannot sync the journal");
        if !journal.index.segments.all.values().any(|segment| segment.damaged) {
            journal.sync().expect("cannot sync the journal");
            return;
        }
    }
    panic!("damaged segments stay");
}

/// Every byte of a damaged file is kept, unless it consists of whole records and a partial last one.
fn check_kept(damaged: &Files, disk: &Simulated) {
    let (now, aside) = (disk.files(), disk.set_aside());
    for (&segment, file) in damaged {
        let kept: Vec<&[u8]> = aside.iter().filter(|(of, _)| *of == segment).map(|(_, kept)| &kept[..]).collect();
        let is_kept = |rest: &[u8]| is_torn(rest) || kept.contains(&rest);
        let front = kept.iter().copied().chain(now.get(&segment).map(|now| &now[..]));
        let mut front = front.filter_map(|front| {
            let same = front.iter().zip(file).take_while(|(now, was)| now == was).count();
            // What follows it may have been written since.
            (same == front.len() || kept.contains(&&file[same..]) || same == file.len()).then_some(same)
        });
        if front.any(|same| is_kept(&file[same..])) {
            continue;
        }
        let one = Simulated::new(Files::from([(segment, file.clone())]));
        let mut source = Source::new(&one, segment).expect("cannot read the segment");
        let mut whole = 0;
        if file.starts_with(&crate::log::segment::header(segment)) {
            whole = 32;
            while let Ok(Ok((_, location))) = source.record(whole) {
                whole = location.end();
            }
        }
        let rest = &file[whole as usize..];
        let was_being_made = whole == 0 && crate::log::segment::is_unfinished(segment, file);
        assert!(is_kept(rest) || was_being_made, "{segment}: {} bytes from {whole} on are gone", rest.len());
    }
}

/// Whether these are zeros, or the first bytes of a longer record, with or without a block of zeros.
fn is_torn(rest: &[u8]) -> bool {
    let word = |at: usize| rest.get(at..at + 4).map(|word| u32::from_le_bytes(word.try_into().expect("not 4 bytes")));
    let zeros = rest.iter().rev().take_while(|byte| **byte == 0).count();
    let written = if zeros > 512 { rest.len() - zeros } else { rest.len() };
    zeros == rest.len() || word(8).is_some_and(|all| rest.len() >= 16 && u64::from(all) + 16 > written as u64)
}

/// Damages a journal and opens it.
fn check_damage(acts: &[Act], size: u64, harms: &[(usize, prop::sample::Index, Harm)], note: bool) {
    let world = done(acts, size);
    assert_eq!(contents(&world.journal), world.model);
    let (files, synced) = (world.disk.files(), world.disk.synced());
    let damaged = harmed(&files, harms);
    let whole = untouched(&files, &damaged);
    let disk = Arc::new(Simulated::new(damaged.clone()));
    disk.set_synced(synced.filter(|_| note));
    let (journal, warnings) = open_disk(&disk, size);
    let mut journal = journal.unwrap_or_else(|error| panic!("the journal does not open: {error}"));
    assert!(!warnings.is_empty() || damaged == files || !note, "there is a warning");
    journal.sync().expect("cannot sync the journal");
    let found = contents_after_damage(&journal);
    // Without a note, the last records may not have been durable, and what follows them is lost.
    for (name, before) in world.model.iter().filter(|(name, _)| note && whole.contains(*name)) {
        check_untouched(name, before, &found);
    }
    settle(&mut journal);
    assert_eq!(contents_after_damage(&journal), found);
    drop(journal);
    check_kept(&damaged, &disk);
    let (again, warnings) = open_disk(&disk, size);
    assert_eq!(contents_after_damage(&again.expect("cannot open the journal")), found);
    assert!(warnings.iter().all(|warning| warning.contains("kept beside the journal")), "{warnings:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn whole_records_survive_any_damage(acts in acts(120), harms in harms(), note in any::<bool>()) {
        check_damage(&acts, 1 << 20, &harms, note);
    }

    #[test]
    fn whole_records_survive_damage_in_one_of_many_segments(acts in acts(300), harms in harms(), note in any::<bool>()) {
        check_damage(&acts, 64 << 10, &harms, note);
    }

    /// A second start before anything was copied finds the same.
    #[test]
    fn a_crash_during_the_repair_changes_nothing(acts in acts(120), harms in harms(), after in 0..40usize) {
        let world = done(&acts, 64 << 10);
        let (damaged, synced) = (harmed(&world.disk.files(), &harms), world.disk.synced());
        let disk = Arc::new(Simulated::new(damaged));
        disk.set_synced(synced);
        let (journal, _) = open_disk(&disk, 64 << 10);
        let mut journal = journal.map_err(TestCaseError::fail)?;
        journal.sync().expect("cannot sync the journal");
        let found = contents_after_damage(&journal);
        // It dies at some step of the copying.
        let mut left = after;
        disk.fail(Some(Box::new(move |_| {
            left = left.saturating_sub(1);
            (left == 0).then(|| (std::io::Error::from_raw_os_error(5), 0))
        })));
        for _ in 0..after {
            journal.progress();
        }
        drop(journal);
        disk.fail(None);
        let (again, _) = open_disk(&disk, 64 << 10);
        let mut again = again.map_err(TestCaseError::fail)?;
        again.sync().expect("cannot sync the journal");
        prop_assert_eq!(contents_after_damage(&again), found);
    }
}

/// Returns a journal with one segment: jobs of three items each, all finished.
fn finished(jobs: u64) -> (Files, Model) {
    let mut world = World::new(1 << 20);
    let long = 40;
    for _ in 0..jobs {
        let before: BTreeSet<String> = world.model.keys().cloned().collect();
        world.act(&Act::Open { long });
        let job = world.model.keys().position(|name| !before.contains(name)).expect("no new job");
        for act in [Act::Items { job, count: 3, long }, Act::EndItems { job }] {
            world.act(&act);
        }
        for _ in 0..3 {
            world.act(&Act::Done { job, at: 0, count: 1, long });
        }
        world.act(&Act::End { job, how: Ended::Finished });
        world.act(&Act::Sync);
    }
    assert_eq!(contents(&world.journal), world.model);
    (world.disk.files(), world.model.clone())
}
