//! Lost records: the data that is lost with them, the reports about it, and the data that is still found.

use std::sync::Arc;

use bytes::Bytes;
use farpool_proto::v1::journal_record::{self as record, Body};
use farpool_proto::v1::{OpenJob, OpenPool};
use prost::Message;

use super::super::cut::written;
use super::super::model::{Act, World, batch, contents_after_damage, open, open_disk};
use super::{finished, records, settle, untouched};
use crate::log::Journal;
use crate::log::simulated::{Done, Simulated};
use crate::log::storage::Storage;
use crate::{Ended, Phase};

#[test]
fn damage_inside_the_only_segment_takes_only_what_it_hit() {
    let (files, model) = finished(9);
    assert_eq!(files.len(), 1);
    for (from, length) in [(files[&1].len() / 2, 64), (files[&1].len() / 3, 40), (40, 1)] {
        let mut damaged = files.clone();
        for byte in damaged.get_mut(&1).expect("no such segment").iter_mut().skip(from).take(length) {
            *byte = if length == 64 { 0 } else { !*byte };
        }
        let whole = untouched(&files, &damaged);
        assert!(whole.len() >= 7 || from == 40, "{whole:?}");
        let disk = Arc::new(Simulated::new(damaged.clone()));
        let (journal, warnings) = open_disk(&disk, 1 << 20);
        let mut journal = journal.expect("cannot open the journal");
        journal.sync().expect("cannot sync the journal");
        assert!(warnings[0].contains("segment-1 is damaged: bytes"), "{warnings:?}");
        let found = contents_after_damage(&journal);
        model.iter().filter(|(name, _)| whole.contains(*name)).for_each(|(name, job)| assert_eq!(&found[name], job));
        assert_eq!(found.len(), model.len(), "only damaged records of a job are lost");
        settle(&mut journal);
        assert_eq!(disk.set_aside(), [(1, damaged[&1].clone())]);
    }
}

#[test]
fn missing_parts_are_reported_by_job_and_fail() {
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
            files.get_mut(&1).expect("no such segment")[from as usize] ^= 1;
        }
        let disk = Arc::new(Simulated::new(files));
        disk.set_synced(Some((1, disk.length(1).expect("cannot read the segment"))));
        let (journal, warnings) = open_disk(&disk, 1 << 20);
        let mut journal = journal.expect("cannot open the journal");
        journal.sync().expect("cannot sync the journal");
        (journal, warnings.join("\n"))
    };
    let failed = |journal: &Journal, name: &str| -> Vec<(u64, String)> {
        let contents = contents_after_damage(journal);
        contents[name].outcomes.iter().filter_map(|(item, outcome)| Some((*item, outcome.clone().err()?))).collect()
    };
    // An item: it fails.
    let (journal, warnings) = hit(&[&items(1, 4)]);
    assert!(warnings.contains("job \"job 1\": 4 items (4 to 7) are lost, and fail"), "{warnings}");
    assert_eq!(journal.find("local", "job 1").map(|job| (job.phase(), job.counts().failed)), Some((Phase::Running, 4)));
    assert!(failed(&journal, "job 1")[0].1.contains("the item is lost"));
    // Outcomes of a job that had finished: they are reported as failures, and it stays finished.
    let (journal, warnings) = hit(&[&done(2, 0)]);
    assert!(warnings.contains("job \"job 2\": 4 outcomes (0 to 3) are lost and reported as failures"), "{warnings}");
    let two = journal.find("local", "job 2").expect("no such job");
    assert_eq!((two.phase(), two.counts().done, two.counts().failed), (Phase::Ended(Ended::Finished), 8, 4));
    // A lost record may have stated that items, which must not run twice, were handed out.
    let (journal, warnings) = hit(&[&pool(3)]);
    assert!(warnings.contains("job \"job 3\": 4 items (4 to 7) fail, because they may have run"), "{warnings}");
    assert!(failed(&journal, "job 3")[0].1.contains("must not run twice"));
    // It is unknown whether more items would have arrived.
    assert_eq!(journal.find("local", "job 4").map(|job| job.phase()), Some(Phase::Ended(Ended::Failed)));
    assert!(warnings.contains("job \"job 4\": it ends with 0 of 4 outcomes"), "{warnings}");
    // The record that opened its pool.
    let (journal, warnings) = hit(&[&pool(2)]);
    assert_eq!(journal.find("local", "job 5").map(|job| job.phase()), Some(Phase::Ended(Ended::Failed)));
    assert!(
        warnings.contains("job \"job 5\": it ends with 4 of 8 outcomes")
            && warnings.contains("settings of the job's pool"),
        "{warnings}"
    );
    let (journal, _) = hit(&[&pool(1)]);
    assert_eq!(journal.find("local", "job 2").map(|job| job.phase()), Some(Phase::Ended(Ended::Finished)));
    assert_eq!(failed(&journal, "job 2"), []);
    // Its name.
    let (journal, warnings) = hit(&[&job(2, 1, 2)]);
    let two = journal.find("local", "recovered-2").expect("the job has no new name");
    assert_eq!((two.phase(), two.counts().done), (Phase::Ended(Ended::Finished), 8));
    assert!(warnings.contains("job \"recovered-2\": it now has this name"), "{warnings}");
}

#[test]
fn bytes_in_items_that_look_like_records_are_ignored() {
    let pool = (Body::PoolOpened(record::PoolOpened { pool: 1 }), Bytes::new());
    let job = |job| {
        let opened = record::JobOpened { job, pool: 1, name: format!("job {job}"), ..Default::default() };
        (Body::JobOpened(Box::new(opened)), OpenJob::default().encode_to_vec().into())
    };
    let forgotten = (Body::JobForgotten(record::JobForgotten { job: 1 }), Bytes::new());
    // An item is itself a journal, in which the job is forgotten.
    let inner = written(&[pool.clone(), job(1), forgotten])[&1].clone();
    let (data, ends) = batch(&[inner.clone(), vec![7; 200]]);
    let items =
        (Body::Items(record::Items { job: 2, first: 0, count: 2 }), Bytes::from([&data[..], &ends[..]].concat()));
    let files = written(&[pool, job(1), job(2), items, job(3)]);
    let (_, from, to, _) = records(&files)[3].clone();
    for at in [from, from + 8, from + 9, from + 12, from + 16, from + 40, to - 1] {
        let mut damaged = files.clone();
        damaged.get_mut(&1).expect("no such segment")[at as usize] ^= 0x55;
        let (journal, warnings) = open(damaged, 1 << 20);
        let names: Vec<String> =
            journal.expect("cannot open the journal").jobs().map(|job| job.name().to_owned()).collect();
        assert_eq!(names, ["job 1", "job 2", "job 3"], "byte {at}: {warnings:?}");
    }
    // Even at its right location it is not a record, as long as the header of the record around it is whole.
    let start = from as usize + 16 + 8;
    let mut damaged = files.clone();
    let file = damaged.get_mut(&1).expect("no such segment");
    let mut forged = crate::log::batch::Batch::default();
    forged.record(1, start as u32, &Body::JobForgotten(record::JobForgotten { job: 1 }), &[]);
    forged.seal();
    let Some(crate::log::batch::Step::Write(chunk)) = forged.steps.first() else { panic!("there is a record") };
    let forged: Vec<u8> = chunk.slices().iter().flat_map(|slice| slice.to_vec()).collect();
    file[start..start + forged.len()].copy_from_slice(&forged);
    let (journal, _) = open(damaged, 1 << 20);
    assert!(journal.expect("cannot open the journal").find("local", "job 1").is_some());
}

#[test]
fn a_discarded_job_does_not_return_if_a_record_or_seal_knows() {
    // The seal of its segment shows it, although the record is lost.
    let mut world = World::new(64 << 10);
    let long = 30;
    world.act(&Act::Open { long });
    world.act(&Act::Items { job: 0, count: 2, long });
    world.act(&Act::Open { long });
    world.act(&Act::Forget { job: 0 });
    while world.disk.files().len() < 2 {
        world.act(&Act::Items { job: 0, count: 2, long });
        world.journal.flush();
        world.journal.sync().expect("cannot sync the journal");
    }
    let mut files = world.disk.files();
    let at =
        records(&files).into_iter().find(|(.., body)| matches!(body, Body::JobForgotten(_))).expect("no such record").1;
    files.get_mut(&1).expect("no such segment")[at as usize] ^= 1;
    let (journal, _) = open(files, 64 << 10);
    let names: Vec<String> =
        journal.expect("cannot open the journal").jobs().map(|job| job.name().to_owned()).collect();
    assert_eq!(names, ["job 3"]);
}

#[test]
fn a_discarded_job_does_not_return_if_its_damaged_segment_cannot_be_set_aside() {
    let mut world = World::new(64 << 10);
    world.act(&Act::Open { long: 9 });
    world.act(&Act::Items { job: 0, count: 2, long: 40 });
    world.act(&Act::Forget { job: 0 });
    world.journal.sync().expect("cannot sync the journal");
    let (mut files, synced) = (world.disk.files(), world.disk.synced());
    let items =
        records(&files).into_iter().find(|(.., body)| matches!(body, Body::Items(_))).expect("no such record").1;
    files.get_mut(&1).expect("no such segment")[items as usize] ^= 1;
    let disk = Arc::new(Simulated::new(files));
    disk.set_synced(synced);
    disk.fail(Some(Box::new(|done| {
        matches!(done, Done::SetAside(_)).then(|| (std::io::Error::from_raw_os_error(5), 0))
    })));
    let (journal, _) = open_disk(&disk, 64 << 10);
    let mut journal = journal.expect("cannot open the journal");
    while disk.synced() == synced {
        journal.progress();
        std::thread::yield_now();
    }
    drop(journal);
    disk.fail(None);
    let (journal, _) = open_disk(&disk, 64 << 10);
    assert_eq!(journal.expect("cannot open the journal").jobs().count(), 0);
}
