//! The program of detached jobs: a coordinator that keeps jobs keeps their programs as well, in a directory.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::OnceLock;

use bytes::Bytes;
use farpool_programs::digest_of;

/// A directory with one program in it, for all histories: nobody changes anything there.
pub(crate) struct Programs {
    pub(crate) directory: PathBuf,
    pub(crate) digest: Bytes,
}

static PROGRAMS: OnceLock<Programs> = OnceLock::new();

pub(crate) fn programs() -> &'static Programs {
    PROGRAMS.get_or_init(|| {
        let directory = std::env::temp_dir().join(format!("farpool-simulation-{}", std::process::id()));
        let file = directory.join("program");
        fs::create_dir_all(&directory).and_then(|()| fs::write(&file, b"a program")).expect("a file can be written");
        let digest = File::open(&file).and_then(|file| digest_of(&file)).expect("it can be read");
        fs::rename(&file, directory.join(digest.to_string())).expect("it can be renamed");
        Programs { directory, digest: digest.to_bytes() }
    })
}

/// It is not wanted any more.
pub(crate) fn remove() {
    if let Some(programs) = PROGRAMS.get() {
        let _ = fs::remove_dir_all(&programs.directory);
    }
}
