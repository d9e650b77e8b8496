use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use farpool_common::units::ByteSize;
use farpool_proto::v1::{OpenJob, OpenPool};
use farpool_store::log::{Journal, Settings};
use farpool_store::{Aside, Ended, Entry, JobStore, JobStoreErrorKind, Outcomes, Phase};

use crate::scratch::Scratch;
use crate::{HEADER, outcomes};

const JOBS: u64 = 9;

fn open(directory: &Path) -> (Journal, Vec<String>) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut warnings = Vec::new();
        match Journal::open(Settings::new(directory), |warning| warnings.push(warning)) {
            Ok(journal) => return (journal, warnings),
            // Other tests start processes, which hold all descriptors, and so the lock, until their exec.
            Err(error) if error.kind() == JobStoreErrorKind::Locked && Instant::now() < deadline => thread::yield_now(),
            Err(error) => panic!("the journal does not open: {error}"),
        }
    }
}

/// Writes a journal of one segment, in which each job has one large result; returns the segment's path.
fn write(directory: &Path) -> PathBuf {
    let (mut journal, _) = open(directory);
    for number in 0..JOBS {
        let known = number.to_string().as_str().into();
        let job = journal.open(known, &OpenPool::default(), &OpenJob::default(), 1).expect("the journal has no room");
        let mut append = |entry| journal.append(job, entry).expect("the journal refused the entry");
        let ends = Bytes::copy_from_slice(&500u32.to_le_bytes());
        append(Entry::Items { first: 0, data: vec![1; 500].into(), ends: ends.clone() });
        append(Entry::ItemsEnded { end: 1, now_ms: 2 });
        append(Entry::Done { first: 0, data: vec![number as u8; 500].into(), ends, failed: false, attempts: 0 });
        append(Entry::Ended { cancelled: false, failure: None, now_ms: 3 });
        journal.sync().expect("cannot sync the journal");
    }
    directory.join("0000000001.farpool-journal")
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("cannot read the directory");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry.expect("cannot read the directory").file_name().into_string().expect("the name is not UTF-8")
        })
        .collect();
    names.sort();
    names
}

/// Lets a journal do its background work until there is a file that was set aside.
fn until_set_aside(journal: &mut Journal) -> Vec<String> {
    let mut warnings = Vec::new();
    for _ in 0..1000 {
        warnings.extend(journal.sync().expect("cannot sync the journal").warnings);
        if !warnings.is_empty() {
            return warnings;
        }
    }
    panic!("nothing is set aside");
}

#[test]
fn undamaged_jobs_are_read_and_the_file_is_kept() {
    let scratch = Scratch::new("damaged");
    let segment = write(scratch.path());
    fs::write(scratch.path().join("notes.txt"), "not ours").expect("cannot write the file");
    let mut file = fs::read(&segment).expect("cannot read the segment");
    let middle = file.len() / 2;
    file[middle..middle + 64].fill(0);
    fs::write(&segment, &file).expect("cannot write the segment");

    let (mut journal, warnings) = open(scratch.path());
    assert!(
        warnings[0].contains("left alone: 1 unknown file in the journal's directory")
            && warnings[0].contains("notes.txt"),
        "{warnings:?}"
    );
    assert!(warnings[1].contains("0000000001.farpool-journal is damaged: bytes"), "{warnings:?}");
    assert!(warnings.iter().any(|warning| warning.contains("job \"4\": ")), "{warnings:?}");
    let said = until_set_aside(&mut journal);
    let named = names(scratch.path())
        .into_iter()
        .find(|name| name.contains(".damaged-"))
        .expect("the damaged segment is missing");
    assert!(said[0].contains(&named), "{said:?}");
    assert_eq!(fs::read(scratch.path().join(&named)).expect("cannot read the file"), file);
    let aside = [Aside { name: named, bytes: file.len() as u64 }];
    assert_eq!(journal.describe().aside, aside);
    drop(journal);

    let (journal, warnings) = open(scratch.path());
    assert_eq!(journal.describe().aside, aside);
    assert!(warnings[0].contains("1 damaged file (") && warnings.len() == 2, "{warnings:?}");
    assert_eq!(journal.jobs().count(), JOBS as usize);
    for number in (0..JOBS).filter(|number| *number != 4) {
        let job = journal.find("local", &number.to_string()).expect("no such job");
        assert_eq!(job.phase(), Phase::Ended(Ended::Finished));
        let [Outcomes::Done { data, .. }] = &outcomes(&journal, job.number)[..] else {
            panic!("the job has an outcome")
        };
        assert_eq!(*data, vec![number as u8; 500]);
    }
    assert!(names(scratch.path()).contains(&"notes.txt".to_owned()));
    assert_eq!(fs::read(scratch.path().join("notes.txt")).expect("cannot read the file"), b"not ours");
}

#[test]
fn a_file_without_a_header_is_kept_under_another_name() {
    let scratch = Scratch::new("precious");
    write(scratch.path());
    let precious = scratch.path().join("0000000002.farpool-journal");
    fs::write(&precious, "precious").expect("cannot write the file");
    let (journal, warnings) = open(scratch.path());
    assert_eq!(journal.jobs().filter(|job| job.phase() == Phase::Ended(Ended::Finished)).count(), JOBS as usize);
    let named = names(scratch.path())
        .into_iter()
        .find(|name| name.contains(".damaged-"))
        .expect("the damaged segment is missing");
    assert_eq!(fs::read(scratch.path().join(&named)).expect("cannot read the file"), b"precious");
    assert!(warnings[0].contains(&named) && !precious.exists(), "{warnings:?}");
}

#[test]
fn bytes_behind_the_last_record_are_kept_unless_it_was_being_written() {
    let scratch = Scratch::new("behind");
    let segment = write(scratch.path());
    let whole = fs::read(&segment).expect("cannot read the segment");
    // A record that was cut off when the process was killed, and zeros of a file that was longer than what was written.
    let header_and_zeros = [&whole[52..52 + HEADER], &[0; 700][..]].concat();
    let parts = [20, HEADER + 1, HEADER].map(|length| &whole[52..52 + length]);
    for torn in parts.into_iter().chain([&header_and_zeros[..], &[0; 700]]) {
        fs::write(&segment, [&whole[..], torn].concat()).expect("cannot write the segment");
        let (journal, warnings) = open(scratch.path());
        assert!(warnings.len() == 1 && warnings[0].contains("It is cut off there"), "{warnings:?}");
        assert_eq!((journal.jobs().count(), journal.describe().aside), (JOBS as usize, Vec::new()));
        drop(journal);
        assert_eq!(fs::read(&segment).expect("cannot read the segment"), whole);
    }
    fs::write(&segment, [&whole[..], b"somebody's words"].concat()).expect("cannot write the segment");
    let (journal, warnings) = open(scratch.path());
    let named = names(scratch.path())
        .into_iter()
        .find(|name| name.contains(".cut-off-"))
        .expect("the cut-off bytes were not kept");
    assert_eq!(journal.describe().aside, [Aside { name: named.clone(), bytes: 16 }]);
    assert!(warnings.len() == 1 && warnings[0].contains(&named), "{warnings:?}");
    assert_eq!(fs::read(scratch.path().join(&named)).expect("cannot read the file"), b"somebody's words");
    drop(journal);
    assert_eq!(fs::read(&segment).expect("cannot read the segment"), whole);
}

#[test]
fn files_of_a_later_version_are_refused_and_not_changed() {
    let scratch = Scratch::new("newer");
    let segment = write(scratch.path());
    let mut file = fs::read(&segment).expect("cannot read the segment");
    file[8] += 1;
    let checksum = blake3::hash(&file[..24]);
    file[24..32].copy_from_slice(&checksum.as_bytes()[..8]);
    fs::write(&segment, &file).expect("cannot write the segment");
    // Another file that would be changed if it came first.
    let other = scratch.path().join("0000000002.farpool-journal");
    fs::write(&other, "precious").expect("cannot write the file");
    let before = names(scratch.path());
    let error =
        Journal::open(Settings::new(scratch.path()), |warning| panic!("{warning}")).expect_err("the journal opened");
    assert_eq!(error.kind(), JobStoreErrorKind::Newer);
    assert!(error.to_string().contains("run the coordinator that wrote it"), "{error}");
    assert_eq!(names(scratch.path()), before);
    assert_eq!(
        (fs::read(&segment).expect("cannot read the segment"), fs::read(&other).expect("cannot read the file")),
        (file, b"precious".to_vec())
    );
}

#[test]
fn a_missing_segment_is_reported_with_its_durable_size() {
    let scratch = Scratch::new("moved");
    let segment = write(scratch.path());
    let bytes = fs::metadata(&segment).expect("cannot read the segment").len();
    let away = scratch.path().with_extension("away");
    fs::rename(&segment, &away).expect("cannot move the segment");
    let synced = || fs::read(scratch.path().join("synced")).expect("cannot read the file");
    let before = synced();
    let (journal, warnings) = open(scratch.path());
    assert_eq!((journal.jobs().count(), warnings.len()), (0, 2), "{warnings:?}");
    let named = segment.display().to_string();
    assert!(warnings[0].contains(&format!("{named} is missing, and ")), "{warnings:?}");
    assert!(warnings[0].contains(&format!("{} of it were durable", ByteSize(bytes))), "{warnings:?}");
    assert!(warnings[1].contains("jobs may be missing from the journal as a whole"), "{warnings:?}");
    assert_eq!(journal.describe().damage, warnings);
    drop(journal);
    assert_eq!(synced(), before, "the note of what was durable still exists");
    // The user puts the file back.
    fs::rename(&away, &segment).expect("cannot move the segment");
    let (journal, warnings) = open(scratch.path());
    assert_eq!((journal.jobs().count(), warnings, journal.describe().damage.len()), (JOBS as usize, Vec::new(), 0));
}
