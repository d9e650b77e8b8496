use std::path::PathBuf;
use std::process::Command;

use super::super::scratch::{Scratch, noise};
use super::*;

/// A program of 100 bytes.
fn bytes(number: u8) -> Vec<u8> {
    vec![number; 100]
}

fn digest(number: u8) -> Digest {
    blake3::hash(&bytes(number)).into()
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("the program can be compressed")
}

fn put(store: &ProgramStore, number: u8) -> Result<InUse, StoreError> {
    put_bytes(store, &bytes(number))
}

fn put_bytes(store: &ProgramStore, bytes: &[u8]) -> Result<InUse, StoreError> {
    let mut writer = store.writer(blake3::hash(bytes).into(), bytes.len() as u64)?;
    compressed(bytes).chunks(7).try_for_each(|piece| writer.write(piece))?;
    writer.finish()
}

fn open(scratch: &Scratch, bound: u64) -> ProgramStore {
    open_as(Form::Executable, scratch, bound)
}

fn open_as(form: Form, scratch: &Scratch, bound: u64) -> ProgramStore {
    ProgramStore::open(scratch.path(), form, bound).expect("the store can be opened")
}

fn files(scratch: &Scratch) -> Vec<PathBuf> {
    let mut files: Vec<_> = scratch
        .path()
        .read_dir()
        .expect("the directory exists")
        .map(|file| file.expect("the directory can be read").path())
        .collect();
    files.sort();
    files
}

#[track_caller]
fn check_refused(outcome: Result<impl std::fmt::Debug, StoreError>, kind: StoreErrorKind, words: &[&str]) {
    let error = outcome.expect_err("the program is refused");
    assert_eq!(error.kind(), kind, "{error}");
    words.iter().for_each(|words| assert!(error.to_string().contains(words), "{words:?} is not in: {error}"));
}

#[test]
fn a_stored_program_can_be_run() {
    let scratch = Scratch::new();
    let program = fs::read("/bin/true").expect("every machine has it");
    let digest = blake3::hash(&program).into();
    let store = open(&scratch, 1 << 30);
    assert!(store.get(&digest).is_none());
    let written = put_bytes(&store, &program).expect("the program is what was announced");
    assert_eq!(written.path(), scratch.path().join(digest.to_string()));
    assert_eq!(written.path().metadata().expect("the program exists").permissions().mode() & 0o7777, 0o500);
    assert_eq!(written.size(), program.len() as u64);
    let found = store.get(&digest).expect("the program exists");
    assert!(Command::new(found.path()).status().expect("the program can be run").success());
    assert_eq!(digest_of(&found.open().expect("the program can be read")).expect("read"), digest);
    assert_eq!(files(&scratch).len(), 1);
}

#[test]
fn the_least_recently_used_is_removed_first_even_after_a_restart() {
    let scratch = Scratch::new();
    let store = open(&scratch, 300);
    (1..=3).for_each(|number| drop(put(&store, number).expect("there is room")));
    assert!(store.get(&digest(1)).is_some());
    let store = open(&scratch, 300);
    put(&store, 4).expect("there is room");
    let there = [1, 2, 3, 4].map(|number| store.get(&digest(number)).is_some());
    assert_eq!(there, [true, false, true, true]);
    // A smaller bound applies at once.
    let store = open(&scratch, 100);
    assert_eq!([1, 3, 4].map(|number| store.get(&digest(number)).is_some()), [false, false, true]);
}

#[test]
fn programs_in_use_stay() {
    let scratch = Scratch::new();
    let store = open(&scratch, 250);
    let first = put(&store, 1).expect("there is room");
    let second = put(&store, 2).expect("there is room");
    check_refused(put(&store, 3), StoreErrorKind::Full, &["no room", "100 bytes", "200 of 250 bytes", "in use"]);
    let clone = second.clone();
    drop(second);
    check_refused(put(&store, 3), StoreErrorKind::Full, &["in use"]);
    drop(clone);
    put(&store, 3).expect("there is room");
    assert!(first.path().exists());
    assert!(store.get(&digest(2)).is_none());
}

#[test]
fn programs_that_another_store_uses_stay() {
    let scratch = Scratch::new();
    let (one, other) = (open(&scratch, 100), open(&scratch, 100));
    let used = put(&one, 1).expect("there is room");
    check_refused(put(&other, 2), StoreErrorKind::Full, &["in use"]);
    assert!(other.get(&digest(1)).is_some());
    drop(used);
    put(&other, 2).expect("there is room");
    assert!(one.get(&digest(1)).is_none());
    assert!(one.get(&digest(2)).is_some());
}

#[test]
fn two_writers_of_one_program_do_not_disturb_each_other() {
    let scratch = Scratch::new();
    let (one, other) = (open(&scratch, 300), open(&scratch, 300));
    let mut writers = [&one, &other].map(|store| store.writer(digest(1), 100).expect("there is room"));
    writers.iter_mut().for_each(|writer| writer.write(&compressed(&bytes(1))).expect("there is room"));
    assert!(one.get(&digest(1)).is_none(), "none is finished");
    let finished = writers.map(|writer| writer.finish().expect("the program is what was announced"));
    assert_eq!(finished[0].path(), finished[1].path());
    drop(finished);
    assert_eq!(files(&scratch), [scratch.path().join(digest(1).to_string())]);
    // Neither of them prevents its removal.
    (2..=4).for_each(|number| drop(put(&one, number).expect("there is room")));
    assert!(one.get(&digest(1)).is_none());
}

#[test]
fn a_corrupt_program_is_not_found() {
    let scratch = Scratch::new();
    let path = put(&open(&scratch, 300), 1).expect("there is room").path().to_owned();
    fs::set_permissions(&path, Permissions::from_mode(0o700)).expect("changed");
    fs::write(&path, b"something else").expect("written");
    let store = open(&scratch, 300);
    assert!(store.get(&digest(1)).is_none());
    assert!(!path.exists());
    put(&store, 1).expect("there is room");
    assert!(store.get(&digest(1)).is_some());
}

#[test]
fn contents_other_than_announced_are_refused_and_leave_nothing() {
    let scratch = Scratch::new();
    let store = open(&scratch, 300);
    let writer = |bytes: &[u8], left_out: usize| {
        let mut writer = store.writer(digest(1), 100).expect("there is room");
        let data = compressed(bytes);
        writer.write(&data[..data.len() - left_out]).map(|()| writer)
    };
    let (wanted, found) = (digest(1).to_string(), digest(2).to_string());
    let other = writer(&bytes(2), 0).and_then(Writer::finish);
    check_refused(other, StoreErrorKind::Mismatch, &["expected", &wanted, "found", &found]);
    let short = writer(&bytes(1)[1..], 0).and_then(Writer::finish);
    check_refused(short, StoreErrorKind::Mismatch, &[&wanted, "has 99 bytes, not the 100"]);
    let cut = writer(&bytes(1), 1).and_then(Writer::finish);
    check_refused(cut, StoreErrorKind::Incomplete, &[&wanted, "ended after", "of 100 bytes"]);
    check_refused(writer(&[1; 101], 0), StoreErrorKind::Mismatch, &[&wanted, "longer than the 100 bytes"]);
    check_refused(store.writer(digest(1), 301), StoreErrorKind::TooLarge, &["301 bytes", "300 bytes"]);
    check_refused(store.writer(digest(1), u64::MAX), StoreErrorKind::TooLarge, &["300 bytes"]);
    drop(writer(&bytes(1), 0));
    assert_eq!(files(&scratch), [] as [PathBuf; 0]);
}

#[test]
fn a_program_larger_than_announced_is_not_written() {
    let bomb = compressed(&vec![0; 100 << 20]);
    assert!(bomb.len() < 16 << 10);
    for form in [Form::Executable, Form::Compressed] {
        let scratch = Scratch::new();
        let store = open_as(form, &scratch, 1 << 20);
        let mut writer = store.writer(digest(1), 1 << 20).expect("there is room");
        check_refused(writer.write(&bomb), StoreErrorKind::Mismatch, &["longer than the 1048576 bytes"]);
        assert_eq!(files(&scratch)[0].metadata().expect("the file exists").len(), 1 << 20);
    }
}

#[test]
fn an_endless_frame_of_empty_blocks_is_refused() {
    let scratch = Scratch::new();
    let store = open_as(Form::Compressed, &scratch, 1 << 20);
    let mut writer = store.writer(digest(1), 100).expect("there is room");
    // A header, and blocks without a byte.
    writer.write(&[0x28, 0xb5, 0x2f, 0xfd, 0, 0x50]).expect("the data is a frame");
    let refused = (0..1000).find_map(|_| writer.write(&[0, 0, 0]).err());
    let words = [&*digest(1).to_string(), "is sent in more than 163 bytes, although 100 were announced"];
    check_refused(refused.map_or(Ok(()), Err), StoreErrorKind::Mismatch, &words);
}

#[test]
fn a_program_can_be_kept_compressed() {
    let scratch = Scratch::new();
    let program = [vec![7; 100_000], noise(1000)].concat();
    let digest = blake3::hash(&program).into();
    let store = open_as(Form::Compressed, &scratch, 1 << 20);
    let written = put_bytes(&store, &program).expect("there is room");
    assert_eq!(files(&scratch), [scratch.path().join(format!("{digest}.zst"))]);
    assert!(fs::read(written.path()).expect("the program exists") == compressed(&program));
    assert_eq!(written.path().metadata().expect("the program exists").permissions().mode() & 0o7777, 0o400);
    // Another process verifies it by itself.
    for store in [store, open_as(Form::Compressed, &scratch, 1 << 20)] {
        assert_eq!(store.get(&digest).expect("the program exists").size(), program.len() as u64);
    }
    drop(written);
    let file = &files(&scratch)[0];
    fs::set_permissions(file, Permissions::from_mode(0o600)).expect("changed");
    for wrong in [&compressed(&program)[1..], &compressed(b"another"), &[compressed(&program), vec![0]].concat()] {
        fs::write(file, wrong).expect("written");
        assert!(open_as(Form::Compressed, &scratch, 1 << 20).get(&digest).is_none());
        assert!(!file.exists());
    }
}

/// A program counts with its size while it is received, and with the size of its file afterwards.
#[test]
fn the_bound_applies_to_bytes_on_disk_in_either_form() {
    let scratch = Scratch::new();
    let store = open_as(Form::Compressed, &scratch, 250);
    let used: Vec<_> = (1..=9).map(|number| put(&store, number).expect("there is room")).collect();
    let held: u64 = files(&scratch).iter().map(|file| file.metadata().expect("the file exists").len()).sum();
    assert!(held < 200, "{held}");
    drop(used);
    let executables = open(&scratch, 250);
    let used = [10, 11].map(|number| put(&executables, number).expect("there is room"));
    let held: u64 = files(&scratch).iter().map(|file| file.metadata().expect("the file exists").len()).sum();
    assert!((201..=250).contains(&held), "{held}");
    drop(used);
}

#[test]
fn unfinished_programs_count() {
    let scratch = Scratch::new();
    let store = open(&scratch, 250);
    let writers = [1, 2].map(|number| store.writer(digest(number), 100).expect("there is room"));
    check_refused(store.writer(digest(3), 100), StoreErrorKind::Full, &["200 of 250 bytes"]);
    drop(writers);
    put(&store, 3).expect("there is room");
}

#[test]
fn leftovers_are_removed_and_foreign_files_stay() {
    let scratch = Scratch::new();
    let left = scratch.path().join(format!("{}{}-1-0", room::INCOMING, digest(1)));
    let others = scratch.path().join("README");
    [&left, &others].iter().for_each(|path| fs::write(path, b"half of it").expect("written"));
    let writing = open(&scratch, 300).writer(digest(2), 100).expect("there is room");
    fs::write(&left, b"half of it").expect("written");
    let store = open(&scratch, 300);
    assert!(!left.exists() && others.exists());
    assert_eq!(files(&scratch).len(), 2, "a program that is being written stays");
    drop(writing);
    drop(store);
    assert_eq!(files(&scratch), [others]);
}

#[test]
fn a_full_disk_is_named_and_nothing_remains() {
    let scratch = Scratch::new();
    let store = open(&scratch, 300);
    let mut writer = store.writer(digest(1), 100).expect("there is room");
    writer.fill_disk();
    check_refused(
        writer.write(&compressed(&bytes(1))),
        StoreErrorKind::Full,
        &["No space left on device", &digest(1).to_string()],
    );
    drop(writer);
    assert_eq!(files(&scratch), [] as [PathBuf; 0]);
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let scratch = Scratch::new();
    let path = scratch.path().join("file");
    fs::write(&path, b"").expect("written");
    check_refused(
        ProgramStore::open(&path.join("below"), Form::Executable, 1),
        StoreErrorKind::Io,
        &["file/below", "Not a directory"],
    );
}

#[test]
fn others_cannot_write_among_the_programs() {
    let scratch = Scratch::new();
    fs::set_permissions(scratch.path(), Permissions::from_mode(0o777)).expect("changed");
    let store = open(&scratch, 1 << 20);
    let mode = scratch.path().metadata().expect("the directory exists").permissions().mode() & 0o7777;
    assert_eq!(mode, 0o755);
    // A program that others could have changed is not run.
    let written = put(&store, 1).expect("there is room").path().to_owned();
    assert!(store.get(&digest(1)).is_some());
    fs::set_permissions(&written, Permissions::from_mode(0o777)).expect("changed");
    assert!(store.get(&digest(1)).is_none() && !written.exists());
}
