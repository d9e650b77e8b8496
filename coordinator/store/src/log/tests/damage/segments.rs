//! Segments whose header is damaged, that are cut off or misnamed, and files that are not segments.

use std::sync::Arc;

use farpool_proto::v1::{OpenJob, OpenPool};

use super::super::model::{Model, contents_after_damage, open, open_disk, settings};
use super::finished;
use crate::Phase;
use crate::log::Journal;
use crate::log::simulated::{Files, Simulated};

#[test]
fn a_file_that_is_not_a_segment_is_kept() {
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
            // A copy of segment 1 under the number 2 would be refused.
            damaged.clear();
        }
        damaged.insert(number, content.to_vec());
        let disk = Arc::new(Simulated::new(damaged));
        disk.set_synced(note);
        let (journal, warnings) = open_disk(&disk, 1 << 20);
        assert_eq!(disk.set_aside(), [(number, content.to_vec())]);
        assert!(warnings[0].contains("is kept as segment-"), "{warnings:?}");
        let mut journal = journal.expect("cannot open the journal");
        let found = contents_after_damage(&journal);
        assert_eq!(found, if number == 2 { model.clone() } else { Model::new() });
        let pool = journal.open_pool(&OpenPool::default()).expect("cannot open the pool");
        journal.open_job(pool, "another", &OpenJob::default(), 1).expect("cannot open the job");
        journal.sync().expect("cannot sync the journal");
    }
}

#[test]
fn a_damaged_header_hides_no_records() {
    let (files, model) = finished(3);
    for at in 0..32 {
        let mut damaged = files.clone();
        damaged.get_mut(&1).expect("no such segment")[at] ^= 0x41;
        let (journal, warnings) = open(damaged, 1 << 20);
        assert_eq!(contents_after_damage(&journal.expect("cannot open the journal")), model, "byte {at}");
        assert!(warnings[0].contains("bytes 0 to 31"), "{warnings:?}");
    }
}

#[test]
fn a_segment_under_the_name_of_another_is_refused_and_nothing_is_changed() {
    let (files, _) = finished(2);
    let disk = Arc::new(Simulated::new(Files::from([(4, files[&1].clone()), (5, vec![7])])));
    let error =
        Journal::open_in(Arc::clone(&disk) as _, settings(1 << 20), &mut |_| ()).expect_err("the journal opened");
    for words in ["segment-4 has the header of segment 1", "give the file the name"] {
        assert!(error.to_string().contains(words), "{error}");
    }
    assert!(disk.done().is_empty());
}

#[test]
fn lost_durable_bytes_are_reported() {
    let (files, _) = finished(3);
    let whole = files[&1].len();
    let mut cut = files.clone();
    cut.get_mut(&1).expect("no such segment").truncate(whole - 300);
    let disk = Arc::new(Simulated::new(cut));
    disk.set_synced(Some((1, whole as u64)));
    let (journal, warnings) = open_disk(&disk, 1 << 20);
    assert!(warnings[0].contains("its last 300B are missing"), "{warnings:?}");
    let mut journal = journal.expect("cannot open the journal");
    journal.sync().expect("cannot sync the journal");
    let found = contents_after_damage(&journal);
    assert!(found.values().all(|job| matches!(job.phase, Phase::Ended(_))), "{found:?}");
}
