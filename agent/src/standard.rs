//! Keeps descriptors 0, 1 and 2 occupied in a process that farpool does not control.
//!
//! What is opened while one of them is closed would get its number, and `eprintln!` would write to it.

use std::io::{stderr, stdin, stdout};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::sys::stat::Mode;

use farpool_link::fork::{self, PerProcess};

/// The placeholders, and the number of holders. A fork starts with none: the holders are threads of its parent.
static HELD: PerProcess<Mutex<Holding>> = PerProcess::new();

/// Flags that mark a descriptor as a placeholder. They have no effect on /dev/null.
const MARKS: OFlag = OFlag::O_NONBLOCK.union(OFlag::O_APPEND);

#[derive(Debug, Default)]
struct Holding {
    holders: usize,
    placeholders: Vec<OwnedFd>,
}

/// While it lives, new descriptors get numbers above 2: those of 0, 1 and 2 that are closed point to /dev/null.
///
/// The placeholders are closed on drop, since the program may expect these numbers to be free. A fork does not close
/// those of its parent.
#[derive(Debug)]
#[must_use = "the placeholders are closed on drop"]
pub struct HoldStandard {
    generation: u32,
}

impl HoldStandard {
    /// Opens placeholders for the closed descriptors among 0, 1 and 2.
    pub fn new() -> nix::Result<HoldStandard> {
        let mut held = HELD.get().lock().unwrap_or_else(PoisonError::into_inner);
        let (stdin, stdout, stderr) = (stdin(), stdout(), stderr());
        for descriptor in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
            if fcntl(descriptor, FcntlArg::F_GETFD).is_err() {
                // This returns the lowest free number, unless another thread takes it first.
                let placeholder = placeholder()?;
                if placeholder.as_raw_fd() == descriptor.as_raw_fd() {
                    held.placeholders.push(placeholder);
                }
            }
        }
        held.holders += 1;
        Ok(HoldStandard { generation: fork::generation() })
    }
}

impl Drop for HoldStandard {
    fn drop(&mut self) {
        if self.generation != fork::generation() {
            return;
        }
        let mut held = HELD.get().lock().unwrap_or_else(PoisonError::into_inner);
        held.holders -= 1;
        if held.holders == 0 {
            for placeholder in held.placeholders.drain(..) {
                // The program may have put a descriptor of its own there meanwhile.
                if !is_placeholder(placeholder.as_fd()) {
                    std::mem::forget(placeholder);
                }
            }
        }
    }
}

fn placeholder() -> nix::Result<OwnedFd> {
    open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC | MARKS, Mode::empty())
}

fn is_placeholder(descriptor: BorrowedFd<'_>) -> bool {
    let flags = fcntl(descriptor, FcntlArg::F_GETFD).map(FdFlag::from_bits_truncate);
    let status = fcntl(descriptor, FcntlArg::F_GETFL).map(OFlag::from_bits_truncate);
    flags.is_ok_and(|flags| flags.contains(FdFlag::FD_CLOEXEC)) && status.is_ok_and(|status| status.contains(MARKS))
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, alarm, fork};

    use super::*;

    /// Another thread may hold the lock during a fork.
    #[test]
    #[expect(unsafe_code, reason = "forks; argued at the blocks")]
    fn a_fork_can_hold_them_while_a_thread_of_its_parent_has_the_lock() {
        let held_before = HoldStandard::new().unwrap();
        let locked = HELD.get().lock().unwrap();
        // SAFETY: the child takes a lock that is its own, makes system calls, and leaves.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                // The alarm ends the child if it hangs.
                alarm::set(10);
                drop(held_before);
                let held = HoldStandard::new().is_ok_and(|_held| HELD.get().lock().is_ok_and(|held| held.holders == 1));
                let released = HELD.get().lock().is_ok_and(|held| held.holders == 0);
                // SAFETY: _exit(2) may be called at any time.
                unsafe { nix::libc::_exit(i32::from(!(held && released))) }
            }
            ForkResult::Parent { child } => assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0))),
        }
        drop(locked);
    }
}
