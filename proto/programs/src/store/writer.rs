use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::super::compression::{Decompressor, most_compressed};
use super::room::INCOMING;
use super::{Digest, FileId, Form, InUse, ProgramStore, StoreError, StoreErrorKind};

/// A program that is being written. If it is dropped before it is finished, nothing remains.
#[derive(Debug)]
pub struct Writer {
    store: ProgramStore,
    digest: Digest,
    size: u64,
    decompressor: Decompressor,
    /// Compressed bytes that have arrived.
    received: u64,
    /// Bytes of the executable in them.
    decompressed: u64,
    hasher: blake3::Hasher,
    file: File,
    incoming: Incoming,
}

/// A file that is removed unless it is published.
#[derive(Debug)]
struct Incoming {
    path: PathBuf,
    /// Locked exclusively while its writer is alive. It is not the file that is written to, since a file that is open
    /// for writing cannot be run.
    lock: File,
}

impl Writer {
    pub(super) fn new(store: ProgramStore, digest: Digest, size: u64) -> Result<Writer, StoreError> {
        let _lock = store.lock_directory()?;
        store.make_room(size)?;
        let failed = |error| StoreError::io(format_args!("writing to {}", store.directory().display()), &error);
        let (incoming, file) = Incoming::create(&store, &digest).map_err(failed)?;
        // From now on it counts with its size. Blocks of the disk are allocated as it is written.
        file.set_len(size).map_err(failed)?;
        let decompressor = Decompressor::new().map_err(failed)?;
        let hasher = blake3::Hasher::new();
        Ok(Writer { digest, size, decompressor, received: 0, decompressed: 0, hasher, file, incoming, store })
    }

    /// Appends compressed bytes.
    ///
    /// # Errors
    /// If they cannot be decompressed, exceed what was announced, or cannot be written because the disk is full.
    pub fn write(&mut self, data: &[u8]) -> Result<(), StoreError> {
        self.received += data.len() as u64;
        let (size, most) = (self.size, most_compressed(self.size));
        if self.received > most {
            return Err(
                self.mismatch(format_args!("is sent in more than {most} bytes, although {size} were announced"))
            );
        }
        self.decompress(data)?;
        if self.form() == Form::Compressed {
            self.file.write_all(data).map_err(|error| self.failed(&error))?;
        }
        Ok(())
    }

    fn decompress(&mut self, mut data: &[u8]) -> Result<(), StoreError> {
        let (form, size) = (self.form(), self.size);
        loop {
            let part = match self.decompressor.next(&mut data) {
                Ok(Some(part)) => part,
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.mismatch(format_args!("cannot be decompressed: {error}"))),
            };
            self.decompressed += part.len() as u64;
            if self.decompressed > size {
                return Err(self.mismatch(format_args!("is longer than the {size} bytes that were announced")));
            }
            self.hasher.update(part);
            if form == Form::Executable {
                let written = self.file.write_all(part);
                written.map_err(|error| self.failed(&error))?;
            }
        }
    }

    /// Checks that the program matches what was announced, and publishes it.
    ///
    /// # Errors
    /// If it does not match, or if it cannot be published.
    pub fn finish(self) -> Result<InUse, StoreError> {
        let Writer { digest, size, decompressed, .. } = self;
        if !self.decompressor.has_ended() {
            let message = format!("program {digest} ended after {decompressed} of {size} bytes");
            return Err(StoreError::new(StoreErrorKind::Incomplete, message));
        }
        if decompressed < size {
            return Err(self.mismatch(format_args!("has {decompressed} bytes, not the {size} that were announced")));
        }
        let found = Digest::from(self.hasher.finalize());
        if found != digest {
            let message = format!("expected a program with digest {digest}, found one with digest {found}");
            return Err(StoreError::new(StoreErrorKind::Mismatch, message));
        }
        // Not synced: if the host crashes before it is on disk, the next process notices that by its digest.
        if self.form() == Form::Compressed {
            self.file.set_len(self.received).map_err(|error| self.failed(&error))?;
        }
        self.file.set_permissions(Permissions::from_mode(self.form().mode())).map_err(|error| self.failed(&error))?;
        self.file.set_modified(SystemTime::now()).map_err(|error| self.failed(&error))?;
        drop(self.file);
        let _lock = self.store.lock_directory()?;
        if let Some(present) = self.store.get(&digest) {
            // Another process was faster, and may be using its file.
            return Ok(present);
        }
        let path = self.store.path_of(&digest);
        let failed = |error: &io::Error| StoreError::io(format_args!("writing {}", path.display()), error);
        let lock = self.incoming.publish(&path).map_err(|error| failed(&error))?;
        let metadata = lock.metadata().map_err(|error| failed(&error))?;
        self.store.verified().insert(digest, (FileId::of(&metadata), size));
        Ok(InUse::new(path, size, lock))
    }

    /// The disk is full from now on.
    #[cfg(test)]
    pub(super) fn fill_disk(&mut self) {
        self.file = OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    }

    fn form(&self) -> Form {
        self.store.shared.form
    }

    fn mismatch(&self, how: impl fmt::Display) -> StoreError {
        StoreError::new(StoreErrorKind::Mismatch, format!("program {} {how}", self.digest))
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
            // The process id alone is not enough: containers that share the directory have ids of their own.
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

    /// Gives it its name, locked like one in use. The caller must have the directory's lock.
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
