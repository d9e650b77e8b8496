//! Keeps the programs of a directory within their bound.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::SystemTime;

use super::form::program_of;
use super::{Digest, ProgramStore, StoreError, StoreErrorKind};

/// The prefix of a file that is being written.
pub(super) const INCOMING: &str = ".incoming-";

struct StoredFile {
    digest: Digest,
    path: PathBuf,
    size: u64,
    used: SystemTime,
}

impl ProgramStore {
    /// Removes the least recently used programs until there is room for this many bytes. The caller must have the
    /// directory's lock.
    pub(super) fn make_room(&self, size: u64) -> Result<(), StoreError> {
        let (bound, directory) = (self.shared.bound, self.shared.directory.display());
        let left = self.room_beside(size)?;
        match self.remove_beyond(left)? {
            held if held <= left => Ok(()),
            held => {
                let message = format!(
                    "no room for a program of {size} bytes in {directory}: {held} of {bound} bytes are in use by programs that run; \
                     raise --program-cache"
                );
                Err(StoreError::new(StoreErrorKind::Full, message))
            }
        }
    }

    /// Returns how much of the bound remains beside a program of this size.
    pub(super) fn room_beside(&self, size: u64) -> Result<u64, StoreError> {
        let (bound, directory) = (self.shared.bound, self.shared.directory.display());
        bound.checked_sub(size).ok_or_else(|| {
            let message =
                format!("a program of {size} bytes does not fit into {directory}, which is limited to {bound} bytes; raise --program-cache");
            StoreError::new(StoreErrorKind::TooLarge, message)
        })
    }

    /// Removes programs that are not in use until at most this many bytes are held. Returns what is held.
    pub(super) fn remove_beyond(&self, most: u64) -> Result<u64, StoreError> {
        let (mut entries, incoming) = self.entries()?;
        let mut held = incoming + entries.iter().map(|entry| entry.size).sum::<u64>();
        entries.sort_by_key(|entry| entry.used);
        for entry in entries {
            if held > most && self.remove(&entry) {
                held -= entry.size;
            }
        }
        Ok(held)
    }

    /// Returns the entries, and the bytes of files being written. Removes what dead processes have left.
    fn entries(&self) -> Result<(Vec<StoredFile>, u64), StoreError> {
        let directory = &self.shared.directory;
        let failed = |error| StoreError::io(format_args!("reading {}", directory.display()), &error);
        let (mut entries, mut incoming) = (Vec::new(), 0);
        for file in directory.read_dir().map_err(failed)? {
            let file = file.map_err(failed)?;
            let (path, name) = (file.path(), file.file_name());
            // Files that vanish meanwhile, and foreign files, are skipped.
            let (Some(name), Ok(metadata)) = (name.to_str(), file.metadata()) else { continue };
            if name.starts_with(INCOMING) {
                if File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
                    // An error leaves it for the next time.
                    let _ = fs::remove_file(&path);
                } else {
                    incoming += metadata.len();
                }
            } else if let Some(digest) = program_of(name)
                && metadata.is_file()
            {
                let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                entries.push(StoredFile { digest, path, size: metadata.len(), used });
            }
        }
        Ok((entries, incoming))
    }

    fn remove(&self, entry: &StoredFile) -> bool {
        let removed = File::open(&entry.path).is_ok_and(|file| {
            // The lock is held until the file is removed, so no process can start to use it meanwhile.
            file.try_lock().is_ok() && fs::remove_file(&entry.path).is_ok()
        });
        if removed {
            self.verified().remove(&entry.digest);
        }
        removed
    }
}
