//! Resets what a fork server has inherited, for itself and its workers. They inherit everything else from the process
//! that started it; the README lists it.

#![expect(
    unsafe_code,
    reason = "signals and terminal of a process that belongs to farpool alone; argued at each block"
)]

use std::os::fd::{AsRawFd, IntoRawFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::signal::SigSet;
use nix::sys::stat::Mode;

/// Resets the inherited state. Ignored errors mean that it is in the desired state already.
pub(crate) fn reset() -> nix::Result<()> {
    open_standard()?;
    // A program that handles signals in a thread of its own (sigwait, signalfd) blocks them. Blocked signals would hide
    // exited children and requests to exit, and tasks could not use signals.
    SigSet::empty().thread_set_mask()?;
    restore_defaults();
    leave_terminal();
    Ok(())
}

/// Opens descriptors 0, 1 and 2, so that nothing else gets their numbers. Rust's runtime does this, but main may not be
/// Rust's.
fn open_standard() -> nix::Result<()> {
    loop {
        let null = open("/dev/null", OFlag::O_RDWR, Mode::empty())?;
        if null.as_raw_fd() > 2 {
            return Ok(());
        }
        let _ = null.into_raw_fd();
    }
}

/// Restores the default action of ignored signals: nohup(1) ignores some, and so do shells in background programs.
/// SIGPIPE and SIGXFSZ stay ignored: language runtimes ignore them on purpose.
fn restore_defaults() {
    for signal in (1..=libc::SIGRTMAX()).filter(|signal| ![libc::SIGPIPE, libc::SIGXFSZ].contains(signal)) {
        // SAFETY: a sigaction consists of numbers, for which zero is valid. The first call only writes to it; the
        // second sets the default, which needs no handler. Both reject invalid signals.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0 && action.sa_sigaction == libc::SIG_IGN {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}

/// Detaches from the client's controlling terminal. Workers are in their own process groups: one that reads from it, or
/// writes to it after `stty tostop`, would be stopped forever.
fn leave_terminal() {
    // If the session's leader detached, the whole session would lose its terminal.
    if nix::unistd::getsid(None) == Ok(nix::unistd::Pid::this()) {
        return;
    }
    if let Ok(terminal) = open("/dev/tty", OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC, Mode::empty()) {
        // SAFETY: TIOCNOTTY has no argument.
        let _ = Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCNOTTY) });
    }
}
