//! What this daemon does about what it has inherited: see README for what its workers have of the rest.

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::SigSet;

const FIRST: i32 = 3;
/// To mark them, not to close them: what is loaded into this process may have opened some (Linux 5.11).
const CLOSE_RANGE_CLOEXEC: libc::c_uint = 1 << 2;

/// Whoever waits for signals in a thread of his own blocks them, and with them those that ask this daemon to end.
pub(super) fn unblock_signals() {
    // It only fails if it is called wrongly.
    let _ = SigSet::empty().thread_set_mask();
}

/// Has all descriptors that are open now closed in programs that are started from here. Whatever is opened later is opened so.
pub(super) fn close_on_exec() {
    // SAFETY: close_range(2) takes three numbers. With this flag no descriptor is closed in this process.
    let done = unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
    if Errno::result(done).is_ok() {
        return;
    }
    let descriptors = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = descriptors.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for number in numbers.filter(|&number| number >= FIRST) {
        // SAFETY: F_SETFD takes a number and changes a flag, which matters to nobody before this process starts another one.
        // An error means that the descriptor has been closed: it was that of the folder.
        let _ = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}
