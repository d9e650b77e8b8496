//! Where segments are: a directory, or what stands in for one when crashes are simulated.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::uio::pwritev;

use super::error::{JournalError, JournalErrorKind};

/// Segments by number. Writing is one thread's, reading anybody's.
pub(super) trait Storage: fmt::Debug + Send + Sync + 'static {
    /// Which there are, rising.
    fn segments(&self) -> Vec<u32>;

    fn length(&self, segment: u32) -> io::Result<u64>;

    /// Reads as much as there is room for; less, if the segment ends. `NotFound`: it is not there (any more).
    fn read(&self, segment: u32, offset: u64, to: &mut [u8]) -> io::Result<usize>;

    /// Makes an empty segment, also in place of one that is there; that it is there is durable.
    fn create(&self, segment: u32) -> io::Result<()>;

    fn write(&self, segment: u32, offset: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()>;

    /// Makes durable what was written.
    fn sync(&self, segment: u32) -> io::Result<()>;

    fn truncate(&self, segment: u32, length: u64) -> io::Result<()>;

    /// Removes a segment, if it is there.
    fn remove(&self, segment: u32) -> io::Result<()>;

    /// What people know it as.
    fn name(&self, segment: u32) -> String;
}

/// A directory with a file for each segment.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    files: Mutex<BTreeMap<u32, Arc<File>>>,
    /// Locked as long as this process has the journal.
    _lock: File,
}

impl Directory {
    /// Opens a directory, which is made if it is not there, for this process alone.
    pub(super) fn open(path: &Path) -> Result<Self, JournalError> {
        let failed = |error: io::Error| {
            JournalError::new(JournalErrorKind::Io, format_args!("opening the journal in {}: {error}", path.display()))
        };
        let path = std::path::absolute(path).map_err(failed)?;
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed)?;
        let lock = File::options().create(true).append(true).open(path.join("lock")).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => JournalError::new(
                JournalErrorKind::Locked,
                format_args!("the journal in {} is that of another coordinator that runs", path.display()),
            ),
            TryLockError::Error(error) => failed(error),
        })?;
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if let Some(segment) = entry.file_name().to_str().and_then(number) {
                let file = File::options().read(true).write(true).open(entry.path()).map_err(failed)?;
                files.insert(segment, Arc::new(file));
            }
        }
        Ok(Self { path, files: Mutex::new(files), _lock: lock })
    }

    fn path_of(&self, segment: u32) -> PathBuf {
        self.path.join(format!("{segment:010}{SUFFIX}"))
    }

    fn file(&self, segment: u32) -> io::Result<Arc<File>> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.get(&segment).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Makes durable which files there are.
    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

const SUFFIX: &str = ".farpool-journal";

/// The segment's number, if this is the name of one.
fn number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(SUFFIX)?;
    (digits.len() == 10).then(|| digits.parse().ok())?
}

impl Storage for Directory {
    fn segments(&self) -> Vec<u32> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    fn length(&self, segment: u32) -> io::Result<u64> {
        Ok(self.file(segment)?.metadata()?.len())
    }

    fn read(&self, segment: u32, offset: u64, to: &mut [u8]) -> io::Result<usize> {
        let file = self.file(segment)?;
        let mut filled = 0;
        while filled < to.len() {
            match file.read_at(&mut to[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn create(&self, segment: u32) -> io::Result<()> {
        let path = self.path_of(segment);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        self.sync_names()?;
        self.files.lock().unwrap_or_else(PoisonError::into_inner).insert(segment, Arc::new(file));
        Ok(())
    }

    fn write(&self, segment: u32, mut offset: u64, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let file = self.file(segment)?;
        while !parts.is_empty() {
            let some = parts.len().min(MAX_PARTS);
            match pwritev(&*file, &parts[..some], offset as i64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    offset += count as u64;
                    IoSlice::advance_slices(&mut parts, count);
                }
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync(&self, segment: u32) -> io::Result<()> {
        self.file(segment)?.sync_data()
    }

    fn truncate(&self, segment: u32, length: u64) -> io::Result<()> {
        let file = self.file(segment)?;
        file.set_len(length)?;
        file.sync_all()
    }

    fn remove(&self, segment: u32) -> io::Result<()> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).remove(&segment);
        match fs::remove_file(self.path_of(segment)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.sync_names(),
        }
    }

    fn name(&self, segment: u32) -> String {
        self.path_of(segment).display().to_string()
    }
}

/// What one call may be given (IOV_MAX).
const MAX_PARTS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_segments_are_taken_for_segments() {
        assert_eq!(number("0000000012.farpool-journal"), Some(12));
        for name in ["lock", "12.farpool-journal", "0000000012.farpool-journal~", "000000001x.farpool-journal"] {
            assert_eq!(number(name), None, "{name}");
        }
    }
}
