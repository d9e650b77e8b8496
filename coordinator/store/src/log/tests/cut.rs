//! A log that is cut off anywhere, and records that cannot come next.

use bytes::Bytes;
use farpool_proto::v1::journal_record::{self as record, Body};
use proptest::prelude::*;

use super::model::{Act, Model, World, acts, contents, open};
use crate::log::batch::{Batch, Step};
use crate::log::simulated::Files;
use crate::log::{Journal, segment};
use crate::{Ended, JobStoreErrorKind, Phase};

/// With this size no segment is emptied during these tests: cutting would take what was moved.
const SIZE: u64 = 1 << 20;

/// Does all acts, and returns the files and the expected contents after each step.
fn write(acts: &[Act]) -> (Files, Vec<Model>) {
    let mut world = World::new(SIZE);
    let mut models = vec![Model::new()];
    for act in acts {
        world.act(act);
        models.push(world.model.clone());
    }
    world.journal.sync().expect("cannot sync the journal");
    assert_eq!(contents(&world.journal), world.model);
    (world.disk.files(), models)
}

/// Returns the log up to this byte.
fn cut(files: &Files, at: usize) -> Files {
    let mut left = at;
    let kept = files.iter().map_while(|(&segment, file)| {
        let here = file.len().min(left);
        left -= here;
        (here > 0).then(|| (segment, file[..here].to_vec()))
    });
    kept.collect()
}

/// Returns how many acts, at least `least`, have this outcome.
fn prefix(journal: &Journal, models: &[Model], least: usize) -> Option<usize> {
    let found = contents(journal);
    (least..models.len()).find(|&steps| models[steps] == found)
}

/// Cuts the log off and opens it again: the contents are those after some of the steps, and a longer log has more of
/// them.
fn check_cut(files: &Files, models: &[Model], at: usize, least: usize) -> usize {
    let (journal, warnings) = open(cut(files, at), SIZE);
    let journal = journal.unwrap_or_else(|error| panic!("cut at {at}: {error}"));
    let there = prefix(&journal, models, least);
    let there = there.unwrap_or_else(|| panic!("cut at {at}: it is none of the steps from {least} on"));
    let whole: usize = files.values().map(Vec::len).sum();
    assert!(warnings.len() <= 1 && (at < whole || warnings.is_empty()), "{warnings:?}");
    drop(journal);
    there
}

#[test]
fn a_log_cut_at_any_byte_opens_at_the_last_whole_record() {
    let long = 40;
    let mut acts = vec![Act::Open { long }, Act::Items { job: 0, count: 5, long }, Act::Open { long: 0 }];
    acts.extend([Act::Sync, Act::Done { job: 0, at: 1, count: 2, long }, Act::Failed { job: 0, at: 0, count: 1 }]);
    acts.extend([Act::Items { job: 1, count: 3, long: 700 }, Act::EndItems { job: 0 }, Act::Pool]);
    acts.extend([Act::Open { long: 300 }, Act::Items { job: 2, count: 2, long: 4000 }, Act::Sync]);
    acts.extend([Act::Done { job: 0, at: 0, count: 1, long: 2000 }, Act::Fed { job: 0 }]);
    acts.extend([Act::End { job: 0, how: Ended::Cancelled }, Act::Forget { job: 1 }, Act::Open { long: 1 }]);
    let (files, models) = write(&acts);
    assert!(files.len() > 1, "there is more than one segment");
    let whole: usize = files.values().map(Vec::len).sum();
    let mut least = 0;
    for at in 0..=whole {
        least = check_cut(&files, &models, at, least);
    }
    assert_eq!(models[least], models[models.len() - 1]);
}

#[test]
fn records_after_a_cut_are_durable() {
    let (files, models) = write(&[Act::Open { long: 9 }, Act::Items { job: 0, count: 4, long: 9 }]);
    let whole: usize = files.values().map(Vec::len).sum();
    let (journal, warnings) = open(cut(&files, whole - 1), SIZE);
    let mut journal = journal.expect("cannot open the journal");
    assert!(warnings[0].contains("segment-1") && warnings[0].contains("cut off"), "{warnings:?}");
    assert_eq!(prefix(&journal, &models, 0), Some(1));
    let number = journal.jobs().next().expect("no job").number;
    let (data, ends) = super::model::batch(&[vec![1, 2], vec![3]]);
    journal.items(number, 0, data, ends).expect("the journal refused the items");
    journal.sync().expect("cannot sync the journal");
    assert_eq!(contents(&journal).values().next().expect("no job").items[&1], [3]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_log_cut_anywhere_has_a_prefix(acts in acts(60), cuts in prop::collection::vec(any::<prop::sample::Index>(), 24)) {
        let (files, models) = write(&acts);
        let whole: usize = files.values().map(Vec::len).sum();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(whole + 1)).collect();
        cuts.sort_unstable();
        let mut least = 0;
        for at in cuts {
            least = check_cut(&files, &models, at, least);
        }
    }
}

#[test]
fn a_later_format_is_refused() {
    let (mut files, _) = write(&[Act::Open { long: 9 }]);
    let header = &mut files.get_mut(&1).expect("no segment")[..32];
    header[8] += 1;
    let checksum = blake3::hash(&header[..24]);
    header[24..].copy_from_slice(&checksum.as_bytes()[..8]);
    let disk = std::sync::Arc::new(crate::log::simulated::Simulated::new(files.clone()));
    let error =
        Journal::open_in(disk.clone(), super::model::settings(SIZE), &mut |_| ()).expect_err("the journal opened");
    assert_eq!(error.kind(), JobStoreErrorKind::Newer);
    assert!(error.to_string().contains("format 2"), "{error}");
    assert_eq!(disk.files(), files, "nothing was changed");
}

/// Returns a log with these records, which the journal itself would not write.
pub(super) fn written(records: &[(Body, Bytes)]) -> Files {
    let mut batch = Batch::default();
    let mut file = segment::header(1).to_vec();
    let mut offset = file.len() as u32;
    for (body, payload) in records {
        offset = batch.record(1, offset, body, std::slice::from_ref(payload)).end() as u32;
    }
    batch.seal();
    let Some(Step::Write(chunk)) = batch.steps.first() else { panic!("there is something to be written") };
    chunk.slices().iter().for_each(|slice| file.extend_from_slice(slice));
    Files::from([(1, file)])
}

#[test]
fn contradictory_records_are_invalid() {
    let pool = (Body::PoolOpened(record::PoolOpened { pool: 1 }), Bytes::new());
    let job = |job, name: &str| {
        let (name, at_ms) = (name.to_owned(), 1);
        let opened = record::JobOpened { job, pool: 1, name, at_ms, ..record::JobOpened::default() };
        (Body::JobOpened(Box::new(opened)), Bytes::new())
    };
    let items =
        |first, count| (Body::Items(record::Items { job: 1, first, count }), vec![0; 4 * count as usize].into());
    let sound = [pool, job(1, "one"), items(0, 4), items(4, 2)];
    let check = |bad: (Body, Bytes), words: &str| {
        let (journal, warnings) = open(written(&[&sound[..], &[bad, job(2, "two")]].concat()), SIZE);
        let journal = journal.expect("cannot open the journal");
        assert_eq!(journal.find("local", "one").map(|job| job.counts().items), Some(6));
        assert!(journal.find("local", "two").is_some(), "the record behind it is lost");
        assert!(warnings[0].contains(words), "{warnings:?}");
    };
    check(items(2, 4), "a part of what is there");
    check(items(5, 4), "a part of what is there");
    check((Body::Items(record::Items { job: 1, first: 6, count: 2 }), Bytes::from_static(&[0; 7])), "cannot be in 7");
    check((Body::Items(record::Items { job: 1, first: u64::MAX, count: 1 }), Bytes::from_static(&[0; 8])), "cannot be");
    // A name is given to another job only when the previous one was discarded.
    let (journal, _) = open(written(&[&sound[..], &[job(3, "one")]].concat()), SIZE);
    let journal = journal.expect("cannot open the journal");
    assert_eq!((journal.find("local", "one").map(|job| job.number), journal.jobs().count()), (Some(3), 1));
    let (journal, warnings) = open(written(&sound[1..]), SIZE);
    let journal = journal.expect("cannot open the journal");
    assert_eq!(journal.find("local", "one").map(|job| job.phase()), Some(Phase::Ended(Ended::Failed)));
    assert!(warnings.len() == 1 && warnings[0].contains("settings of the job's pool are lost"), "{warnings:?}");
    let (journal, warnings) = open(written(&sound), SIZE);
    assert_eq!((journal.expect("cannot open the journal").jobs().count(), warnings.len()), (1, 0));
}
