//! What workers need before they can run items: a job's function, and the pool's shared values.

use bytes::{Buf, Bytes};
use farpool_link::sealed::{Sealed, Unsealed};
use nix::errno::Errno;

/// A larger function is in a file that all workers of the pool map. So is every shared value.
pub(super) const MAX_COPIED: usize = 256 << 10;

/// The function of a job.
#[derive(Debug)]
pub(super) enum Function {
    /// One that each worker gets a copy of.
    Copied(Bytes),
    Sealed(Sealed),
}

/// A large function or shared value that is being written to a file.
#[derive(Debug)]
pub(super) struct Writing {
    /// The job's number in this pool.
    pub(super) job: u32,
    pub(super) is_shared: bool,
    rest: Bytes,
    file: Unsealed,
}

/// The shared values of a pool that its workers can get.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// With the number of the job that each of them is. An error: why it could not be written.
    values: Vec<(u32, Result<Sealed, String>)>,
    /// Changes when there is a new one.
    version: u64,
}

impl Writing {
    /// Begins to write these bytes.
    pub(super) fn begin(job: u32, is_shared: bool, bytes: Bytes) -> nix::Result<Writing> {
        Ok(Writing { job, is_shared, file: Unsealed::create(bytes.len())?, rest: bytes })
    }

    /// Writes up to `most` bytes, and returns how many.
    pub(super) fn write(&mut self, most: usize) -> nix::Result<usize> {
        let length = self.rest.len().min(most);
        self.file.append(&self.rest[..length])?;
        self.rest.advance(length);
        Ok(length)
    }

    pub(super) fn is_complete(&self) -> bool {
        !self.rest.has_remaining()
    }

    /// Seals the file.
    pub(super) fn seal(self) -> nix::Result<Sealed> {
        self.file.seal()
    }
}

impl Shared {
    pub(super) fn add(&mut self, job: u32, value: Result<Sealed, String>) {
        self.values.push((job, value));
        self.version += 1;
    }

    pub(super) fn remove(&mut self, job: u32) {
        self.values.retain(|(number, _)| *number != job);
    }

    /// Returns a number that changes when there is a new value.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(u32, Result<Sealed, String>)> {
        self.values.iter()
    }
}

/// Describes why something could not be shared with the workers of this host.
pub(super) fn why_not_shared(error: Errno) -> String {
    let advice = match error {
        Errno::ENOSPC | Errno::ENOMEM => ": this host has too little memory for it",
        Errno::EFBIG => ": raise the limit on file sizes (ulimit -f)",
        Errno::EMFILE | Errno::ENFILE => ": raise the limit on open files (ulimit -n)",
        _ => "",
    };
    format!("cannot create a file in memory for the workers: {}{advice}", error.desc())
}
