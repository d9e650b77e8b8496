//! Programs on disk, named by their digest and bounded in bytes: the least recently used is removed first.
//!
//! Several processes may share the directory, and may die at any moment. They coordinate by locks on files (flock),
//! which end with their process:
//! - the directory is locked while its entries are changed, so that they are counted right;
//! - an entry that is in use is locked shared; only an entry that can be locked exclusively is removed;
//! - a file that is being written is locked exclusively; one that is not was left by a process that died.
//!
//! An entry's modification time is when it was last used.

mod error;
mod form;
mod in_use;
mod room;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use nix::unistd::geteuid;

use super::{Digest, digest_of};

pub use error::{StoreError, StoreErrorKind};
pub use form::Form;
pub use in_use::InUse;
pub use writer::Writer;

/// A directory of programs. All clones share the same store.
#[derive(Clone, Debug)]
pub struct ProgramStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    form: Form,
    /// The most bytes of its files together.
    bound: u64,
    /// Programs that this process has verified, with their file and the size of the executable.
    verified: Mutex<HashMap<Digest, (FileId, u64)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl ProgramStore {
    /// Opens a directory of programs, or creates it. Removes files that dead processes have left half-written, and what
    /// exceeds the bound.
    ///
    /// # Errors
    /// If the directory cannot be created, read or locked, or if it belongs to another user, who could replace
    /// programs.
    pub fn open(directory: &Path, form: Form, bound: u64) -> Result<ProgramStore, StoreError> {
        let failed = |error| StoreError::io(format_args!("opening the programs in {}", directory.display()), &error);
        // Workers start in other directories: the paths of programs must not depend on this one.
        let directory = std::path::absolute(directory).map_err(failed)?;
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(failed)?;
        let found = directory.metadata().map_err(failed)?;
        let owner = found.uid();
        if owner != geteuid().as_raw() && owner != 0 {
            let message = format!(
                "{} belongs to user {owner}, who could replace the programs in it: choose another directory",
                directory.display()
            );
            return Err(StoreError::new(StoreErrorKind::Io, message));
        }
        let mode = found.permissions().mode();
        if mode & OTHERS_WRITE != 0 {
            // Other users who can write there could replace programs.
            fs::set_permissions(&directory, Permissions::from_mode(mode & 0o7777 & !OTHERS_WRITE)).map_err(
                |error| {
                    let doing = format_args!(
                        "other users may write to {} (mode {:o}), and that cannot be changed: choose another directory",
                        directory.display(),
                        mode & 0o7777
                    );
                    StoreError::io(doing, &error)
                },
            )?;
        }
        let store = ProgramStore { shared: Arc::new(Shared { directory, form, bound, verified: Mutex::default() }) };
        let lock_directory = store.lock_directory()?;
        // Other processes may use more than the bound: then there is no room for now.
        store.remove_beyond(bound)?;
        drop(lock_directory);
        Ok(store)
    }

    /// Returns the directory of the programs.
    pub fn directory(&self) -> &Path {
        &self.shared.directory
    }

    /// Returns a program, which stays as long as it is in use. The first time in this process, it is read and verified;
    /// one with a wrong digest is removed.
    pub fn get(&self, digest: &Digest) -> Option<InUse> {
        let path = self.path_of(digest);
        let file = File::open(&path).ok()?;
        file.lock_shared().ok()?;
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() || FileId::at(&path) != Some(FileId::of(&metadata)) {
            // It was removed before it was locked.
            return None;
        }
        let size = if is_safe(&metadata) { self.verified_size(digest, &file, &metadata) } else { None };
        let Some(size) = size else {
            // An error means that another process has removed it.
            let _ = fs::remove_file(&path);
            return None;
        };
        // An error means that it belongs to another user: then it will be removed a little early.
        let _ = file.set_modified(SystemTime::now());
        Some(InUse::new(path, size, file))
    }

    /// Checks that a program of this size may be stored at all.
    ///
    /// # Errors
    /// If it exceeds the bound of the store.
    pub fn check_size(&self, size: u64) -> Result<(), StoreError> {
        self.room_beside(size).map(drop)
    }

    /// Makes room for a program of this size, and begins to write it. Meanwhile it counts with this size, whatever its
    /// form.
    ///
    /// # Errors
    /// If there is no room for it, or if the directory cannot be written to.
    pub fn writer(&self, digest: Digest, size: u64) -> Result<Writer, StoreError> {
        Writer::new(self.clone(), digest, size)
    }

    fn path_of(&self, digest: &Digest) -> PathBuf {
        self.shared.directory.join(self.shared.form.name_of(digest))
    }

    /// Locks the directory against changes by others until the result is dropped.
    fn lock_directory(&self) -> Result<File, StoreError> {
        let directory = &self.shared.directory;
        let failed = |error| StoreError::io(format_args!("locking {}", directory.display()), &error);
        let lock_directory = File::open(directory).map_err(failed)?;
        lock_directory.lock().map_err(failed)?;
        Ok(lock_directory)
    }

    /// Returns the size of the executable; `None`: its digest is wrong.
    fn verified_size(&self, digest: &Digest, file: &File, metadata: &Metadata) -> Option<u64> {
        let id = FileId::of(metadata);
        let known = self.verified().get(digest).copied();
        if let Some((then, size)) = known
            && then == id
        {
            return Some(size);
        }
        // Without the lock: this may take a while.
        let (found, size) = self.shared.form.contents_of(file).ok()?;
        if found != *digest {
            return None;
        }
        self.verified().insert(*digest, (id, size));
        Some(size)
    }

    fn verified(&self) -> MutexGuard<'_, HashMap<Digest, (FileId, u64)>> {
        // It is consistent between any two statements.
        self.shared.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Permissions that let users other than the owner write.
const OTHERS_WRITE: u32 = 0o022;

/// Whether only this user and root can change a program after it was verified.
fn is_safe(metadata: &Metadata) -> bool {
    let is_ours = metadata.uid() == geteuid().as_raw() || metadata.uid() == 0;
    is_ours && metadata.permissions().mode() & OTHERS_WRITE == 0
}

impl FileId {
    fn of(metadata: &Metadata) -> FileId {
        FileId { device: metadata.dev(), inode: metadata.ino() }
    }

    fn at(path: &Path) -> Option<FileId> {
        path.symlink_metadata().ok().map(|metadata| FileId::of(&metadata))
    }
}
