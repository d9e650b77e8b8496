//! Where the workers of a pool run.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access, mkdtemp};

/// A pool's working directory: its client's, if there is such a one on this host, or an empty one, which goes with the
/// pool.
#[derive(Debug)]
pub(super) struct Workplace {
    path: PathBuf,
    is_scratch: bool,
}

impl Workplace {
    /// Looks for the client's directory. Blocks.
    pub(super) fn find(wanted: Vec<u8>) -> io::Result<Workplace> {
        let wanted = PathBuf::from(OsString::from_vec(wanted));
        if wanted.is_absolute() && wanted.is_dir() && access(&wanted, AccessFlags::X_OK).is_ok() {
            return Ok(Workplace { path: wanted, is_scratch: false });
        }
        let path = mkdtemp(&std::env::temp_dir().join("farpool-XXXXXX"))?;
        Ok(Workplace { path, is_scratch: true })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if self.is_scratch {
            // What a worker has made unremovable stays.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
