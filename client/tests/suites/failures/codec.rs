//! Items and results that cannot be encoded or decoded.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use farpool::{Error, ErrorKind};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::failures::checks::{check_words, pool, still_works};
use crate::failures::tasks::{identity, pid_after};
use crate::pools;

crate::runner::cases![
    items_that_cannot_be_encoded,
    items_that_the_worker_cannot_decode,
    results_that_cannot_be_encoded,
    results_that_the_client_cannot_decode,
    values_with_a_part_that_cannot_be_encoded,
    types_whose_serialize_and_deserialize_disagree,
    an_initializers_arguments_that_cannot_be_encoded,
];

/// Fails at the stage that its number names.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stubborn(u8);

const NEVER: Stubborn = Stubborn(0);
const CLIENT_ENCODES: Stubborn = Stubborn(1);
const WORKER_DECODES: Stubborn = Stubborn(2);
const WORKER_ENCODES: Stubborn = Stubborn(3);
const CLIENT_DECODES: Stubborn = Stubborn(4);

impl Serialize for Stubborn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.0, is_worker()) {
            (1, false) | (3, true) => Err(S::Error::custom("no")),
            _ => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Stubborn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match (u8::deserialize(deserializer)?, is_worker()) {
            (2, true) | (4, false) => Err(D::Error::custom("no")),
            (number, _) => Ok(Stubborn(number)),
        }
    }
}

fn is_worker() -> bool {
    std::fs::read_to_string("/proc/self/comm").unwrap().starts_with("farpool-")
}

/// Checks that the second of three items fails with every verb.
fn check(stubborn: Stubborn, words: &[&str]) {
    let pool = pool(1);
    let pid = pool.apply(pid_after, (0,)).unwrap();
    let items = [NEVER, stubborn, NEVER];
    let f = identity::<Stubborn>;
    let check_one = |error: Error, item: u64| {
        assert_eq!((error.kind(), error.item()), (ErrorKind::Codec, Some(item)), "{error}");
        check_words(&error, &["Stubborn"]);
        check_words(&error, words);
    };
    check_one(pool.apply(f, (stubborn,)).unwrap_err(), 0);
    check_one(pool.apply_async(f, (stubborn,)).get().unwrap_err(), 0);
    check_one(pool.map(f, items).unwrap_err(), 1);
    check_one(pool.map_async(f, items).get().unwrap_err(), 1);
    check_one(pool.starmap(f, items.map(|item| (item,))).unwrap_err(), 1);
    check_one(pool.job(f).chunksize(3).map(items).unwrap_err(), 1);
    for mut outcomes in [pool.imap(f, items).collect::<Vec<_>>(), pool.imap_unordered(f, items).collect()] {
        assert_eq!(outcomes.len(), 3);
        let at = outcomes.iter().position(Result::is_err).unwrap();
        check_one(outcomes.remove(at).unwrap_err(), 1);
        assert!(outcomes.iter().all(|outcome| *outcome.as_ref().unwrap() == NEVER));
    }
    assert_eq!(pool.apply(pid_after, (0,)).unwrap(), pid, "the worker was replaced");
    still_works(&pool);
}

fn items_that_cannot_be_encoded() {
    check(CLIENT_ENCODES, &["cannot encode"]);
}

fn items_that_the_worker_cannot_decode() {
    check(WORKER_DECODES, &["decoding the item's arguments in the worker", "cannot decode", "pid "]);
}

fn results_that_cannot_be_encoded() {
    check(WORKER_ENCODES, &["result", "cannot encode", "pid "]);
}

fn results_that_the_client_cannot_decode() {
    check(CLIENT_DECODES, &["cannot decode"]);
}

/// The error names the field, for items and for results.
fn values_with_a_part_that_cannot_be_encoded() {
    #[derive(Clone, Debug, Serialize, Deserialize)]
    struct Upload {
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<String>,
        file: PathBuf,
    }
    let pool = pool(1);
    let upload = |note: Option<String>| Upload { note, file: OsStr::from_bytes(b"/tmp/\xff").into() };
    for note in [None, Some("n".to_owned())] {
        let refused = [
            pool.apply(|upload: Upload| upload.note.is_some(), (upload(note.clone()),)).unwrap_err(),
            pool.apply(|note: Option<String>| Upload { note, file: OsStr::from_bytes(b"\xff").into() }, (note,))
                .unwrap_err(),
        ];
        for error in refused {
            assert_eq!(error.kind(), ErrorKind::Codec, "{error}");
            check_words(&error, &["cannot encode", "Upload", "field `file`", "path contains invalid UTF-8 characters"]);
        }
    }
    let error = pool.apply(identity::<PathBuf>, (OsStr::from_bytes(b"\xff").into(),)).unwrap_err();
    check_words(&error, &["PathBuf", "path contains invalid UTF-8 characters"]);
    still_works(&pool);
}

/// Serialize writes what Deserialize cannot read in any format: the result is an error, never a different value.
fn types_whose_serialize_and_deserialize_disagree() {
    #[derive(Clone, Debug, Serialize, Deserialize)]
    struct Renamed {
        #[serde(rename(serialize = "written", deserialize = "asked"))]
        number: u64,
        other: u64,
    }
    let pool = pool(1);
    let error = pool.apply(identity::<Renamed>, (Renamed { number: 1, other: 2 },)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Codec, "{error}");
    check_words(&error, &["decoding the item's arguments in the worker", "Renamed", "missing field `asked`"]);
    still_works(&pool);
}

fn an_initializers_arguments_that_cannot_be_encoded() {
    let options = pools::builder().processes(1);
    let error = options.initializer(|_: Stubborn| (), (CLIENT_ENCODES,)).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Codec);
    check_words(&error, &["the initializer's arguments", "cannot encode"]);
}
