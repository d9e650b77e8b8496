//! The stdout that this process inherited.

#![expect(unsafe_code, reason = "checks the descriptors before the standard library does; each block says why")]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;

/// Whether stdout was closed when this process started. In that case the standard library opens `/dev/null` in its place before
/// `main`, and writes are lost without an error.
static CLOSED: AtomicBool = AtomicBool::new(false);

// SAFETY: the linker puts it among the functions that run before `main`, on the only thread. They are called with arguments that
// this one does not take, which is harmless in C's calling convention.
#[unsafe(link_section = ".init_array")]
#[used]
static CHECK: extern "C" fn() = check;

extern "C" fn check() {
    // SAFETY: fcntl with F_GETFD only checks a number, which need not be an open descriptor.
    let flags = unsafe { libc::fcntl(1, libc::F_GETFD) };
    CLOSED.store(flags == -1, Ordering::Relaxed);
}

/// Returns stdout, unbuffered.
///
/// # Errors
/// If it was closed when this process started.
pub(crate) fn stdout() -> io::Result<File> {
    if CLOSED.load(Ordering::Relaxed) {
        return Err(Errno::EBADF.into());
    }
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}
