use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::room::INCOMING;
use super::{Digest, FileId, InUse, ProgramStore, StoreError, StoreErrorKind};

/// A program that is being written. Dropped before it is finished, it leaves nothing.
#[derive(Debug)]
pub struct Writer {
    store: ProgramStore,
    digest: Digest,
    size: u64,
    written: u64,
    hasher: blake3::Hasher,
    file: File,
    incoming: Incoming,
}

/// A file that is removed unless it is published.
#[derive(Debug)]
struct Incoming {
    path: PathBuf,
    /// Locked exclusively: its writer is alive. Not the file that is written to, since what is open for writing cannot
    /// be run.
    lock: File,
}

impl Writer {
    pub(super) fn new(store: ProgramStore, digest: Digest, size: u64) -> Result<Writer, StoreError> {
        let _turn = store.turn()?;
        store.make_room(size)?;
        let created = Incoming::create(&store, &digest).and_then(|(incoming, file)| {
            // From now on it counts with its size. Blocks of the disk are taken as it is written.
            file.set_len(size).map(|()| (incoming, file))
        });
        let failed = |error| StoreError::io(format_args!("writing to {}", store.directory().display()), &error);
        let (incoming, file) = created.map_err(failed)?;
        Ok(Writer { digest, size, written: 0, hasher: blake3::Hasher::new(), file, incoming, store })
    }

    /// Adds what comes next.
    ///
    /// # Errors
    /// If it becomes longer than announced, or cannot be written: the disk is full.
    pub fn write(&mut self, data: &[u8]) -> Result<(), StoreError> {
        let (digest, size) = (self.digest, self.size);
        if data.len() as u64 > size - self.written {
            let message = format!("program {digest} is longer than the {size} bytes that were announced");
            return Err(StoreError::new(StoreErrorKind::Mismatch, message));
        }
        self.file.write_all(data).map_err(|error| self.failed(&error))?;
        self.hasher.update(data);
        self.written += data.len() as u64;
        Ok(())
    }

    /// Checks that the program is what was announced, and puts it where it is found.
    ///
    /// # Errors
    /// If it is not, or if it cannot be put there.
    pub fn finish(self) -> Result<InUse, StoreError> {
        let (digest, size) = (self.digest, self.size);
        if self.written != size {
            let message = format!("program {digest} ended after {} of {size} bytes", self.written);
            return Err(StoreError::new(StoreErrorKind::Mismatch, message));
        }
        let found = Digest::from(self.hasher.finalize());
        if found != digest {
            let message = format!("expected a program with digest {digest}, found one with digest {found}");
            return Err(StoreError::new(StoreErrorKind::Mismatch, message));
        }
        // Not synced: should the host go down before it is on disk, the next process finds that out by its digest.
        self.file.set_permissions(Permissions::from_mode(0o500)).map_err(|error| self.failed(&error))?;
        self.file.set_modified(SystemTime::now()).map_err(|error| self.failed(&error))?;
        drop(self.file);
        let _turn = self.store.turn()?;
        if let Some(present) = self.store.get(&digest) {
            // Somebody else was faster, and may be using theirs.
            return Ok(present);
        }
        let path = self.store.path_of(&digest);
        let failed = |error: &io::Error| StoreError::io(format_args!("writing {}", path.display()), error);
        let lock = self.incoming.publish(&path).map_err(|error| failed(&error))?;
        let metadata = lock.metadata().map_err(|error| failed(&error))?;
        self.store.verified().insert(digest, FileId::of(&metadata));
        Ok(InUse::new(path, size, lock))
    }

    /// From now on, the disk is full.
    #[cfg(test)]
    pub(super) fn fill_disk(&mut self) {
        self.file = OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    }

    fn failed(&self, error: &io::Error) -> StoreError {
        let (digest, path) = (self.digest, self.incoming.path.display());
        StoreError::io(format_args!("writing program {digest} of {} bytes to {path}", self.size), error)
    }
}

impl Incoming {
    fn create(store: &ProgramStore, digest: &Digest) -> io::Result<(Incoming, File)> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            // The process id alone would not do: containers that share the directory count their own.
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = store.directory().join(format!("{INCOMING}{digest}-{}-{number}", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => {
                    let lock = File::open(&path).and_then(|lock| lock.lock().map(|()| lock));
                    return match lock {
                        Ok(lock) => Ok((Incoming { path, lock }, file)),
                        Err(error) => fs::remove_file(&path).and(Err(error)),
                    };
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives it its name, locked as one that is in use. To be called by whoever has the turn.
    fn publish(self, path: &PathBuf) -> io::Result<File> {
        let lock = self.lock.try_clone()?;
        lock.lock_shared()?;
        fs::rename(&self.path, path)?;
        Ok(lock)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Once published it has another name, and this removes nothing.
        let _ = fs::remove_file(&self.path);
    }
}
