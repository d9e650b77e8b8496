//! What workers on other hosts print as it comes (`--line-buffer`): as it is, and whether that went well.

use std::io::{self, Write};
use std::sync::atomic::{AtomicI32, Ordering};

use farpool::Printed;
use nix::errno::Errno;

use super::MapError;
use crate::streams;

/// Why something could not be printed, as the system numbers it; 0: all could.
static TROUBLE: AtomicI32 = AtomicI32::new(0);

pub(super) fn print(printed: Printed<'_>) {
    let done = match printed {
        Printed::Stdout(lines) => streams::stdout().and_then(|mut stdout| stdout.write_all(lines)),
        Printed::Stderr(lines) => io::stderr().write_all(lines),
        // Nobody reads as fast as it comes.
        Printed::Dropped(_) => Err(Errno::ENOBUFS.into()),
    };
    if let Err(error) = done {
        TROUBLE.store(error.raw_os_error().unwrap_or(Errno::EIO as i32), Ordering::Relaxed);
    }
}

/// Fails if something could not be printed.
pub(super) fn check() -> Result<(), MapError> {
    match TROUBLE.load(Ordering::Relaxed) {
        0 => Ok(()),
        number => Err(MapError::of_stdout(&io::Error::from_raw_os_error(number))),
    }
}
