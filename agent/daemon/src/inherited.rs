//! Handles what this process has inherited. The README says what workers inherit.

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::SigSet;

const FIRST: i32 = 3;
/// Marks descriptors instead of closing them: loaded libraries may have opened some (Linux 5.11).
const CLOSE_RANGE_CLOEXEC: libc::c_uint = 1 << 2;

/// Unblocks all signals: a blocked signal stays blocked in a child process, and this daemon could not be stopped.
pub(super) fn unblock_signals() {
    // It fails only for invalid arguments.
    let _ = SigSet::empty().thread_set_mask();
}

/// Marks all open descriptors close-on-exec. Those opened later already are.
pub(super) fn close_on_exec() {
    // SAFETY: close_range(2) takes three numbers. With this flag no descriptor is closed in this process.
    let done = unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
    if Errno::result(done).is_ok() {
        return;
    }
    let descriptors = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = descriptors.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for number in numbers.filter(|&number| number >= FIRST) {
        // SAFETY: F_SETFD takes a number and changes a flag, which only matters when this process starts another one.
        // An error means that the descriptor is closed: it belonged to the directory.
        let _ = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}
