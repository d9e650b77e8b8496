//! stdout as it was given to this process.

#![expect(unsafe_code, reason = "looks at the descriptors before the standard library does; argued at each block")]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;

/// Whether stdout was closed when this process began: before `main` the standard library opens `/dev/null` in its place, and
/// what is written there is lost without an error.
static CLOSED: AtomicBool = AtomicBool::new(false);

// SAFETY: the linker puts it among the functions that run before `main`, on the only thread; that they are called with arguments
// which this one does not take harms nothing in C's calling convention.
#[unsafe(link_section = ".init_array")]
#[used]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    // SAFETY: fcntl with F_GETFD only looks at a number, which need not be an open descriptor.
    let flags = unsafe { libc::fcntl(1, libc::F_GETFD) };
    CLOSED.store(flags == -1, Ordering::Relaxed);
}

/// stdout, without a buffer.
///
/// # Errors
/// If it was closed.
pub(crate) fn stdout() -> io::Result<File> {
    if CLOSED.load(Ordering::Relaxed) {
        return Err(Errno::EBADF.into());
    }
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}
