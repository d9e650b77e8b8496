//! Prints the output of workers on other hosts as it arrives (`--line-buffer`), and records errors.

use std::io::{self, Write};
use std::sync::atomic::{AtomicI32, Ordering};

use farpool::Printed;
use nix::errno::Errno;

use super::MapError;
use crate::streams;

/// The error number of a failed write; 0: none.
static WRITE_ERROR: AtomicI32 = AtomicI32::new(0);

pub(super) fn print(printed: Printed<'_>) {
    let done = match printed {
        Printed::Stdout(lines) => streams::stdout().and_then(|mut stdout| stdout.write_all(lines)),
        Printed::Stderr(lines) => io::stderr().write_all(lines),
        // The reader of the output is too slow.
        Printed::Dropped(_) => Err(Errno::ENOBUFS.into()),
    };
    if let Err(error) = done {
        WRITE_ERROR.store(error.raw_os_error().unwrap_or(Errno::EIO as i32), Ordering::Relaxed);
    }
}

/// Returns an error if a write has failed.
pub(super) fn check() -> Result<(), MapError> {
    match WRITE_ERROR.load(Ordering::Relaxed) {
        0 => Ok(()),
        number => Err(MapError::of_stdout(&io::Error::from_raw_os_error(number))),
    }
}
