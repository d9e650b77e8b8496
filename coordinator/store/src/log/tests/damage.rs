//! Journals that were damaged after they had been written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use farpool_proto::v1::journal_record::{self as record, Body};
use farpool_proto::v1::{OpenJob, OpenPool};
use proptest::prelude::*;
use prost::Message;

use super::cut::written;
use super::model::{
    Act, Model, ModelJob, World, acts, batch, contents, contents_after_damage, open, open_disk, settings,
};
use crate::log::Journal;
use crate::log::record::run;
use crate::log::simulated::{Files, Simulated};
use crate::log::source::Source;
use crate::log::storage::Storage;
use crate::{Ended, Phase};

/// What can become of a file. Everything is in parts of its length.
#[derive(Clone, Debug)]
enum Harm {
    Flip(u8),
    Zero(usize),
    Cut(usize),
    Insert(Vec<u8>),
    /// A block is there a second time.
    Duplicate(usize),
    /// Two blocks have changed places.
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
        let file = damaged.values_mut().nth(which).expect("there are so many");
        harm.inflict(file, at.index(file.len() + 1));
    }
    damaged
}

/// A world in which all of this was done, and something before.
fn done(acts: &[Act], size: u64) -> World {
    let mut world = World::new(size);
    [Act::Open { long: 9 }].iter().chain(acts).for_each(|act| _ = world.act(act));
    world.journal.sync().expect("the disk works");
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

/// All records of a log that is whole: where each is, and of which job or pool.
fn records(files: &Files) -> Vec<(u32, u64, u64, Body)> {
    let disk = Simulated::new(files.clone());
    let mut all = Vec::new();
    for segment in disk.segments() {
        let mut source = Source::new(&disk, segment).expect("it can be read");
        let mut at = 32;
        while at < source.length() {
            let (body, place) = source.record(at).expect("it can be read").expect("it is whole");
            all.push((segment, at, place.end(), body));
            at = place.end();
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

/// The names of jobs of which every record is where it was and as it was, and of whose pool too.
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

/// What is there of a job whose records are all whole is as it was. Whether all its items had come may not be known.
fn check_untouched(name: &str, before: &ModelJob, after: &Model) {
    let after = after.get(name).unwrap_or_else(|| panic!("{name} is gone"));
    let mut expected = before.clone();
    if before.phase == Phase::Feeding {
        (expected.phase, expected.times_ms) = (after.phase, after.times_ms);
        assert!(matches!(after.phase, Phase::Feeding | Phase::Ended(Ended::Failed)), "{:?}", after.phase);
    }
    if before.phase == Phase::Ended(Ended::Finished) && before.times_ms.0 == 0 {
        // Nor may it be known how many items such a one had.
        (expected.phase, expected.times_ms) = (after.phase, after.times_ms);
        assert!(matches!(after.phase, Phase::Ended(Ended::Finished | Ended::Failed)), "{:?}", after.phase);
    } else if before.phase == Phase::Ended(Ended::Finished) {
        // The model ends jobs as it likes: those that have no outcome are told as failures, as nobody can know that.
        expected.items.clear();
        let lacks: Vec<u64> = (0..before.counts.0).filter(|item| !before.outcomes.contains_key(item)).collect();
        let told = lacks.iter().filter_map(|item| Some((*item, after.outcomes.get(item)?.clone()))).collect::<Vec<_>>();
        if told.is_empty() {
            expected.items.clone_from(&before.items);
        } else {
            assert_eq!(told.len(), lacks.len());
            assert!(told.iter().all(|(_, outcome)| outcome.as_ref().is_err_and(|why| why.contains("damaged"))));
            expected.counts = (before.counts.0, before.counts.0, before.counts.2 + lacks.len() as u64);
            expected.outcomes.extend(told);
        }
    }
    assert_eq!(*after, expected, "{name}");
}

/// Lets a journal empty what is damaged.
fn settle(journal: &mut Journal) {
    for _ in 0..200 {
        journal.sync().expect("the disk works");
        if !journal.index.segments.all.values().any(|segment| segment.damaged) {
            journal.sync().expect("the disk works");
            return;
        }
    }
    panic!("damaged segments stay");
}

/// Every byte of a damaged file is somewhere, if it is not all whole records and, behind them, what is left of one.
fn check_kept(damaged: &Files, disk: &Simulated) {
    let (now, aside) = (disk.files(), disk.set_aside());
    for (&segment, file) in damaged {
        let kept: Vec<&[u8]> = aside.iter().filter(|(of, _)| *of == segment).map(|(_, kept)| &kept[..]).collect();
        let is_kept = |rest: &[u8]| is_torn(rest) || kept.contains(&rest);
        let front = kept.iter().copied().chain(now.get(&segment).map(|now| &now[..]));
        let mut front = front.filter_map(|front| {
            let same = front.iter().zip(file).take_while(|(now, was)| now == was).count();
            // What is behind it may have been written since.
            (same == front.len() || kept.contains(&&file[same..]) || same == file.len()).then_some(same)
        });
        if front.any(|same| is_kept(&file[same..])) {
            continue;
        }
        let one = Simulated::new(Files::from([(segment, file.clone())]));
        let mut source = Source::new(&one, segment).expect("it can be read");
        let mut whole = 0;
        if file.starts_with(&crate::log::segment::header(segment)) {
            whole = 32;
            while let Ok(Ok((_, place))) = source.record(whole) {
                whole = place.end();
            }
        }
        let rest = &file[whole as usize..];
        let was_being_made = whole == 0 && crate::log::segment::is_unfinished(segment, file);
        assert!(is_kept(rest) || was_being_made, "{segment}: {} bytes from {whole} on are gone", rest.len());
    }
}

/// Whether these are zeros, or the first bytes of a record that has more, with or without a block of zeros.
fn is_torn(rest: &[u8]) -> bool {
    let word = |at: usize| rest.get(at..at + 4).map(|word| u32::from_le_bytes(word.try_into().expect("four bytes")));
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
    let mut journal = journal.unwrap_or_else(|error| panic!("it opens: {error}"));
    assert!(!warnings.is_empty() || damaged == files || !note, "something is said");
    journal.sync().expect("the disk works");
    let found = contents_after_damage(&journal);
    // Without a note the last records may not have been durable, and what is behind them goes.
    for (name, before) in world.model.iter().filter(|(name, _)| note && whole.contains(*name)) {
        check_untouched(name, before, &found);
    }
    settle(&mut journal);
    assert_eq!(contents_after_damage(&journal), found);
    drop(journal);
    check_kept(&damaged, &disk);
    let (again, warnings) = open_disk(&disk, size);
    assert_eq!(contents_after_damage(&again.expect("it opens")), found);
    assert!(warnings.iter().all(|warning| warning.contains("kept beside the journal")), "{warnings:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_damaged_what_is_whole_is_there(acts in acts(120), harms in harms(), note in any::<bool>()) {
        check_damage(&acts, 1 << 20, &harms, note);
    }

    #[test]
    fn nor_does_damage_in_one_of_many_segments_take_what_is_whole(acts in acts(300), harms in harms(), note in any::<bool>()) {
        check_damage(&acts, 64 << 10, &harms, note);
    }

    /// A second start before anything was copied finds the same.
    #[test]
    fn a_crash_amid_the_repair_changes_nothing(acts in acts(120), harms in harms(), after in 0..40usize) {
        let world = done(&acts, 64 << 10);
        let (damaged, synced) = (harmed(&world.disk.files(), &harms), world.disk.synced());
        let disk = Arc::new(Simulated::new(damaged));
        disk.set_synced(synced);
        let (journal, _) = open_disk(&disk, 64 << 10);
        let mut journal = journal.map_err(TestCaseError::fail)?;
        journal.sync().expect("the disk works");
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
        again.sync().expect("the disk works");
        prop_assert_eq!(contents_after_damage(&again), found);
    }
}

/// A journal with one segment: jobs of three items each, all finished.
fn finished(jobs: u64) -> (Files, Model) {
    let mut world = World::new(1 << 20);
    let long = 40;
    for _ in 0..jobs {
        let before: BTreeSet<String> = world.model.keys().cloned().collect();
        world.act(&Act::Open { long });
        let job = world.model.keys().position(|name| !before.contains(name)).expect("there is another");
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

#[test]
fn damage_in_the_midst_of_the_only_segment_takes_what_it_hit_and_no_more() {
    let (files, model) = finished(9);
    assert_eq!(files.len(), 1);
    for (from, length) in [(files[&1].len() / 2, 64), (files[&1].len() / 3, 40), (40, 1)] {
        let mut damaged = files.clone();
        for byte in damaged.get_mut(&1).expect("it is there").iter_mut().skip(from).take(length) {
            *byte = if length == 64 { 0 } else { !*byte };
        }
        let whole = untouched(&files, &damaged);
        assert!(whole.len() >= 7 || from == 40, "{whole:?}");
        let disk = Arc::new(Simulated::new(damaged.clone()));
        let (journal, warnings) = open_disk(&disk, 1 << 20);
        let mut journal = journal.expect("it opens");
        journal.sync().expect("the disk works");
        assert!(warnings[0].contains("segment-1 is damaged: bytes"), "{warnings:?}");
        let found = contents_after_damage(&journal);
        model.iter().filter(|(name, _)| whole.contains(*name)).for_each(|(name, job)| assert_eq!(&found[name], job));
        assert_eq!(found.len(), model.len(), "nothing of a job is lost but what was hit");
        settle(&mut journal);
        assert_eq!(disk.set_aside(), [(1, damaged[&1].clone())]);
    }
}

#[test]
fn what_is_missing_is_said_job_by_job_and_fails() {
    let pool = |pool| (Body::PoolOpened(record::PoolOpened { pool }), OpenPool::default().encode_to_vec().into());
    let job = |job, pool, retries| {
        let opened = record::JobOpened { job, pool, name: format!("job {job}"), at_ms: 1, ..Default::default() };
        let open = OpenJob { retries, ..OpenJob::default() };
        (Body::JobOpened(Box::new(opened)), open.encode_to_vec().into())
    };
    let four = || -> Bytes {
        [vec![7; 4], [1u32, 2, 3, 4].iter().flat_map(|end| end.to_le_bytes()).collect()].concat().into()
    };
    let items = |job, first| (Body::Items(record::Items { job, first, count: 4 }), four());
    let done =
        |job, first| (Body::ItemsDone(record::ItemsDone { job, first, count: 4, failed: false, attempts: 0 }), four());
    let all = |job| (Body::ItemsEnded(record::ItemsEnded { job, end: 8, at_ms: 2 }), Bytes::new());
    let ended = |job| {
        let ended = record::JobEnded { job, at_ms: 3, ..Default::default() };
        (Body::JobEnded(Box::new(ended)), Bytes::new())
    };
    let log = [
        vec![pool(1), pool(2), job(1, 1, 2), items(1, 0), items(1, 4), all(1), job(2, 1, 2), items(2, 0), items(2, 4)],
        vec![all(2), done(2, 0), done(2, 4), ended(2), job(3, 1, 0), items(3, 0), items(3, 4), all(3), done(3, 0)],
        vec![job(4, 1, 2), items(4, 0), job(5, 2, 2), items(5, 0), items(5, 4), all(5), done(5, 4), job(6, 1, 2)],
        vec![pool(3)],
    ]
    .concat();
    let files = written(&log);
    let hit = |lost: &[&(Body, Bytes)]| {
        let mut files = files.clone();
        for (_, from, _, _) in
            records(&files).into_iter().filter(|(.., body)| lost.iter().any(|(lost, _)| lost == body))
        {
            files.get_mut(&1).expect("it is there")[from as usize] ^= 1;
        }
        let disk = Arc::new(Simulated::new(files));
        disk.set_synced(Some((1, disk.length(1).expect("it is there"))));
        let (journal, warnings) = open_disk(&disk, 1 << 20);
        let mut journal = journal.expect("it opens");
        journal.sync().expect("the disk works");
        (journal, warnings.join("\n"))
    };
    let failed = |journal: &Journal, name: &str| -> Vec<(u64, String)> {
        let contents = contents_after_damage(journal);
        contents[name].outcomes.iter().filter_map(|(item, outcome)| Some((*item, outcome.clone().err()?))).collect()
    };
    // An item: it fails.
    let (journal, said) = hit(&[&items(1, 4)]);
    assert!(said.contains("job \"job 1\": 4 items (4 to 7) are lost, and fail"), "{said}");
    assert_eq!(journal.find("local", "job 1").map(|job| (job.phase(), job.counts().failed)), Some((Phase::Running, 4)));
    assert!(failed(&journal, "job 1")[0].1.contains("the item is lost"));
    // Outcomes of a job that had finished: they are told as failures, and it stays finished.
    let (journal, said) = hit(&[&done(2, 0)]);
    assert!(said.contains("job \"job 2\": 4 outcomes (0 to 3) are lost and reported as failures"), "{said}");
    let two = journal.find("local", "job 2").expect("it is there");
    assert_eq!((two.phase(), two.counts().done, two.counts().failed), (Phase::Ended(Ended::Finished), 8, 4));
    // It may have been said that items are given out, which must not run twice.
    let (journal, said) = hit(&[&pool(3)]);
    assert!(said.contains("job \"job 3\": 4 items (4 to 7) fail, because they may have run"), "{said}");
    assert!(failed(&journal, "job 3")[0].1.contains("must not run twice"));
    // Nobody knows whether more was to come.
    assert_eq!(journal.find("local", "job 4").map(|job| job.phase()), Some(Phase::Ended(Ended::Failed)));
    assert!(said.contains("job \"job 4\": it ends with 0 of 4 outcomes"), "{said}");
    // What its pool was opened with.
    let (journal, said) = hit(&[&pool(2)]);
    assert_eq!(journal.find("local", "job 5").map(|job| job.phase()), Some(Phase::Ended(Ended::Failed)));
    assert!(
        said.contains("job \"job 5\": it ends with 4 of 8 outcomes") && said.contains("settings of the job's pool"),
        "{said}"
    );
    let (journal, _) = hit(&[&pool(1)]);
    assert_eq!(journal.find("local", "job 2").map(|job| job.phase()), Some(Phase::Ended(Ended::Finished)));
    assert_eq!(failed(&journal, "job 2"), []);
    // Its name.
    let (journal, said) = hit(&[&job(2, 1, 2)]);
    let two = journal.find("local", "recovered-2").expect("it has a name");
    assert_eq!((two.phase(), two.counts().done), (Phase::Ended(Ended::Finished), 8));
    assert!(said.contains("job \"recovered-2\": it now has this name"), "{said}");
}

#[test]
fn bytes_in_items_that_look_like_records_are_none() {
    let pool = (Body::PoolOpened(record::PoolOpened { pool: 1 }), Bytes::new());
    let job = |job| {
        let opened = record::JobOpened { job, pool: 1, name: format!("job {job}"), ..Default::default() };
        (Body::JobOpened(Box::new(opened)), OpenJob::default().encode_to_vec().into())
    };
    let forgotten = (Body::JobForgotten(record::JobForgotten { job: 1 }), Bytes::new());
    // Somebody's item is a journal, in which the job is forgotten.
    let inner = written(&[pool.clone(), job(1), forgotten])[&1].clone();
    let (data, ends) = batch(&[inner.clone(), vec![7; 200]]);
    let items =
        (Body::Items(record::Items { job: 2, first: 0, count: 2 }), Bytes::from([&data[..], &ends[..]].concat()));
    let files = written(&[pool, job(1), job(2), items, job(3)]);
    let (_, from, to, _) = records(&files)[3].clone();
    for at in [from, from + 8, from + 9, from + 12, from + 16, from + 40, to - 1] {
        let mut damaged = files.clone();
        damaged.get_mut(&1).expect("it is there")[at as usize] ^= 0x55;
        let (journal, warnings) = open(damaged, 1 << 20);
        let names: Vec<String> = journal.expect("it opens").jobs().map(|job| job.name().to_owned()).collect();
        assert_eq!(names, ["job 1", "job 2", "job 3"], "byte {at}: {warnings:?}");
    }
    // Even where it would lie right, it is none as long as the header around it is whole.
    let start = from as usize + 16 + 8;
    let mut damaged = files.clone();
    let file = damaged.get_mut(&1).expect("it is there");
    let mut forged = crate::log::batch::Batch::default();
    forged.record(1, start as u32, &Body::JobForgotten(record::JobForgotten { job: 1 }), &[]);
    forged.seal();
    let Some(crate::log::batch::Step::Write(chunk)) = forged.steps.first() else { panic!("there is a record") };
    let forged: Vec<u8> = chunk.slices().iter().flat_map(|slice| slice.to_vec()).collect();
    file[start..start + forged.len()].copy_from_slice(&forged);
    let (journal, _) = open(damaged, 1 << 20);
    assert!(journal.expect("it opens").find("local", "job 1").is_some());
}

#[test]
fn a_file_that_is_no_segment_is_kept() {
    let (files, model) = finished(3);
    for (number, note, content) in [
        (2, Some((1, files[&1].len() as u64)), &b"precious"[..]),
        (2, None, b"precious"),
        (2, None, &[0x5a; 5000]),
        (1, None, b"precious"),
    ] {
        let mut damaged = Files::from([(2, files[&1].clone())]);
        if number == 2 {
            damaged.clone_from(&files);
        }
        if number == 1 {
            // The other file has the header of another segment then, so there is none.
            damaged.clear();
        }
        damaged.insert(number, content.to_vec());
        let disk = Arc::new(Simulated::new(damaged));
        disk.set_synced(note);
        let (journal, warnings) = open_disk(&disk, 1 << 20);
        assert_eq!(disk.set_aside(), [(number, content.to_vec())]);
        assert!(warnings[0].contains("is kept as segment-"), "{warnings:?}");
        let mut journal = journal.expect("it opens");
        let found = contents_after_damage(&journal);
        assert_eq!(found, if number == 2 { model.clone() } else { Model::new() });
        let pool = journal.open_pool(&OpenPool::default()).expect("it can be opened");
        journal.open_job(pool, "another", &OpenJob::default(), 1).expect("it can be opened");
        journal.sync().expect("the disk works");
    }
}

#[test]
fn a_header_that_is_damaged_hides_nothing_behind_it() {
    let (files, model) = finished(3);
    for at in 0..32 {
        let mut damaged = files.clone();
        damaged.get_mut(&1).expect("it is there")[at] ^= 0x41;
        let (journal, warnings) = open(damaged, 1 << 20);
        assert_eq!(contents_after_damage(&journal.expect("it opens")), model, "byte {at}");
        assert!(warnings[0].contains("bytes 0 to 31"), "{warnings:?}");
    }
}

#[test]
fn a_segment_under_the_name_of_another_is_refused_and_nothing_is_changed() {
    let (files, _) = finished(2);
    let disk = Arc::new(Simulated::new(Files::from([(4, files[&1].clone()), (5, vec![7])])));
    let error = Journal::open_in(Arc::clone(&disk) as _, settings(1 << 20), &mut |_| ()).expect_err("it is refused");
    for words in ["segment-4 has the header of segment 1", "give the file the name"] {
        assert!(error.to_string().contains(words), "{error}");
    }
    assert!(disk.done().is_empty());
}

#[test]
fn what_was_durable_and_is_cut_off_is_said() {
    let (files, _) = finished(3);
    let whole = files[&1].len();
    let mut cut = files.clone();
    cut.get_mut(&1).expect("it is there").truncate(whole - 300);
    let disk = Arc::new(Simulated::new(cut));
    disk.set_synced(Some((1, whole as u64)));
    let (journal, warnings) = open_disk(&disk, 1 << 20);
    assert!(warnings[0].contains("its last 300B are missing"), "{warnings:?}");
    let mut journal = journal.expect("it opens");
    journal.sync().expect("the disk works");
    let found = contents_after_damage(&journal);
    assert!(found.values().all(|job| matches!(job.phase, Phase::Ended(_))), "{found:?}");
}

#[test]
fn a_discarded_job_does_not_return_if_anything_knows_of_it() {
    // Its segment's seal does, though the record is lost.
    let mut world = World::new(64 << 10);
    let long = 30;
    world.act(&Act::Open { long });
    world.act(&Act::Items { job: 0, count: 2, long });
    world.act(&Act::Open { long });
    world.act(&Act::Forget { job: 0 });
    while world.disk.files().len() < 2 {
        world.act(&Act::Items { job: 0, count: 2, long });
        world.journal.flush();
        world.journal.sync().expect("the disk works");
    }
    let mut files = world.disk.files();
    let at =
        records(&files).into_iter().find(|(.., body)| matches!(body, Body::JobForgotten(_))).expect("it is there").1;
    files.get_mut(&1).expect("it is there")[at as usize] ^= 1;
    let (journal, _) = open(files, 64 << 10);
    let names: Vec<String> = journal.expect("it opens").jobs().map(|job| job.name().to_owned()).collect();
    assert_eq!(names, ["job 3"]);
}
