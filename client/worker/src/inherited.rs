//! What a fork server changes of what it has inherited, for itself and its workers. All else they have as whoever started
//! it has it; README lists what that is.

#![expect(
    unsafe_code,
    reason = "signals and terminal of a process that belongs to farpool alone; argued at each block"
)]

use std::os::fd::{AsRawFd, IntoRawFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::signal::SigSet;
use nix::sys::stat::Mode;

/// Makes it so. An error that is left aside means that it is so already.
pub(crate) fn settle() -> nix::Result<()> {
    open_standard()?;
    // Of a program that waits for signals in a thread of its own (sigwait, signalfd) all are blocked. Here they would keep
    // ends of children and requests to end from being heard, and tasks from using signals.
    SigSet::empty().thread_set_mask()?;
    restore_defaults();
    leave_terminal();
    Ok(())
}

/// Descriptors 0, 1 and 2 are open, so that nothing else gets their numbers. Rust's runtime has seen to that already; where
/// main is not Rust's it has not.
fn open_standard() -> nix::Result<()> {
    loop {
        let null = open("/dev/null", OFlag::O_RDWR, Mode::empty())?;
        if null.as_raw_fd() > 2 {
            return Ok(());
        }
        let _ = null.into_raw_fd();
    }
}

/// Signals that are ignored have their default again: nohup(1), and shells for what runs in the background, have them
/// ignored by all that a program starts. SIGPIPE and SIGXFSZ are left: runtimes of languages ignore them for themselves.
fn restore_defaults() {
    for signal in (1..=libc::SIGRTMAX()).filter(|signal| ![libc::SIGPIPE, libc::SIGXFSZ].contains(signal)) {
        // SAFETY: a sigaction is numbers, for which zero is a value. It is only written to by the first call, and set to the
        // default, for which no handler is needed, by the second. Both refuse what is no signal.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0 && action.sa_sigaction == libc::SIG_IGN {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}

/// The controlling terminal is the client's. Workers are in process groups of their own, so one that reads from it, or
/// writes to it after `stty tostop`, would be stopped, for ever.
fn leave_terminal() {
    // The end of a session's leader would be the end of its session.
    if nix::unistd::getsid(None) == Ok(nix::unistd::Pid::this()) {
        return;
    }
    if let Ok(terminal) = open("/dev/tty", OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC, Mode::empty()) {
        // SAFETY: TIOCNOTTY has no argument.
        let _ = Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCNOTTY) });
    }
}
