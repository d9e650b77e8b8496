use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A program of a store. It is not removed as long as this or a clone of it exists.
#[derive(Clone, Debug)]
pub struct InUse {
    entry: Arc<Entry>,
}

#[derive(Debug)]
struct Entry {
    path: PathBuf,
    size: u64,
    /// Locked shared, which keeps every process from removing it.
    _lock: File,
}

impl InUse {
    pub(super) fn new(path: PathBuf, size: u64, lock: File) -> InUse {
        InUse { entry: Arc::new(Entry { path, size, _lock: lock }) }
    }

    /// Returns its file.
    pub fn path(&self) -> &Path {
        &self.entry.path
    }

    /// Returns the size of the executable, whether its file is compressed or not.
    pub fn size(&self) -> u64 {
        self.entry.size
    }

    /// Opens its file for reading.
    ///
    /// # Errors
    /// If there are too many open files, or if the file was removed by another process.
    pub fn open(&self) -> io::Result<File> {
        File::open(&self.entry.path)
    }

    /// Makes it and its name durable. This waits for the disk.
    ///
    /// # Errors
    /// If the disk fails, or if the file was removed by another process.
    pub fn sync(&self) -> io::Result<()> {
        self.open()?.sync_all()?;
        self.entry.path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }
}
