//! The executable that workers run, in the form that agents receive.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use farpool_agent::fork_server::own_executable_failed;
use farpool_link::message::OWN_EXECUTABLE;
use farpool_programs::{Digest, Pieces, digest_of};

use crate::error::{Error, ErrorKind};
use crate::fork::PerProcess;

/// An executable and its digest.
#[derive(Clone, Debug)]
pub(crate) struct Executable {
    file: Arc<Path>,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

impl Executable {
    pub(crate) fn read(file: &Path) -> Result<Self, Error> {
        let is_own = file == Path::new(OWN_EXECUTABLE);
        let failed = |error: io::Error| {
            let (what, why) = match is_own {
                true => ("this program", own_executable_failed(&error)),
                false => ("the pool's program", error.to_string()),
            };
            Error::new(ErrorKind::Unavailable, format!("cannot read {what}, {}: {why}", file.display()))
        };
        let size = File::open(file).and_then(|file| file.metadata()).map_err(failed)?.len();
        let digest = if is_own { own_digest() } else { File::open(file).and_then(|file| digest_of(&file)) };
        Ok(Self { file: file.into(), digest: digest.map_err(failed)?, size })
    }

    /// Returns the executable to send.
    pub(crate) fn pieces(&self) -> io::Result<Pieces> {
        Pieces::of_executable(File::open(&self.file)?, self.digest, self.size)
    }
}

/// Returns the digest of this program, which is computed only once. A worker gets it from its agent.
fn own_digest() -> io::Result<Digest> {
    static KNOWN: PerProcess<Mutex<Option<Digest>>> = PerProcess::new();
    // A second caller waits instead of reading the whole file too.
    let mut known = KNOWN.get().lock().unwrap_or_else(PoisonError::into_inner);
    match *known {
        Some(digest) => Ok(digest),
        None => {
            let from_agent = farpool_worker::program_digest().and_then(|digits| digits.parse().ok());
            let digest = from_agent.map_or_else(|| digest_of(&File::open(OWN_EXECUTABLE)?), Ok)?;
            Ok(*known.insert(digest))
        }
    }
}
