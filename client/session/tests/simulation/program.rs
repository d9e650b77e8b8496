//! The program of detached jobs: a coordinator that keeps jobs keeps their programs as well, in a directory.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use bytes::Bytes;
use farpool_programs::{Digest, Form, ProgramStore};

/// A directory with one program in it, which all histories share and none changes.
pub(crate) struct Programs {
    pub(crate) directory: PathBuf,
    pub(crate) digest: Bytes,
}

const PROGRAM: &[u8] = b"a program";

static PROGRAMS: OnceLock<Programs> = OnceLock::new();

pub(crate) fn programs() -> &'static Programs {
    PROGRAMS.get_or_init(|| {
        let directory = std::env::temp_dir().join(format!("farpool-simulation-{}", std::process::id()));
        let store = ProgramStore::open(&directory, Form::Compressed, 1 << 20).expect("cannot create a directory");
        let digest = Digest::from(blake3::hash(PROGRAM));
        let mut writer = store.writer(digest, PROGRAM.len() as u64).expect("cannot create a writer");
        writer
            .write(&zstd::encode_all(PROGRAM, 1).expect("cannot compress the program"))
            .expect("cannot write the program");
        writer.finish().expect("the program differs from what was announced");
        Programs { directory, digest: digest.to_bytes() }
    })
}

/// Removes the directory.
pub(crate) fn remove() {
    if let Some(programs) = PROGRAMS.get() {
        let _ = fs::remove_dir_all(&programs.directory);
    }
}
