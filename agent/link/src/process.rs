//! Other processes, identified by pidfd: a pid may be reused, a pidfd is not.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// pidfd_send_signal(2): signals the process group that the process leads or led (Linux 6.9).
const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;

/// Most ancestors to follow. Real programs have fewer; a longer chain would only cost time.
const MAX_ANCESTORS: usize = 64;

/// Most times to list the threads of a process until none has come or gone meanwhile.
const MAX_LISTINGS: usize = 64;

/// A process, running or exited.
#[derive(Debug)]
pub struct Process {
    pidfd: OwnedFd,
    pid: Pid,
}

impl Process {
    /// Opens the process that has this pid now.
    pub fn open(pid: Pid) -> nix::Result<Process> {
        // SAFETY: pidfd_open(2) takes two numbers and touches no memory of ours.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
        let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
        // SAFETY: the kernel has just made this descriptor (close-on-exec, as pidfds always are).
        Ok(Process { pidfd: unsafe { OwnedFd::from_raw_fd(fd) }, pid })
    }

    /// Opens the process if it is a child of `parent`: a reported pid may be wrong.
    pub fn open_child(pid: Pid, parent: Pid) -> Option<Process> {
        if pid.as_raw() <= 0 {
            return None;
        }
        let process = Process::open(pid).ok()?;
        // If the pid was reused meanwhile, this checks another child of `parent`. That is harmless: the pidfd refers to
        // a process that has exited.
        (Stat::of(pid)?.parent == parent).then_some(process)
    }

    /// Returns its pid.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends it a signal; ESRCH: it has exited and was reaped.
    pub fn signal(&self, signal: Signal) -> nix::Result<()> {
        self.send(signal, 0)
    }

    /// Sends a signal to the process group that it leads or led.
    pub fn signal_group(&self, signal: Signal) -> nix::Result<()> {
        match self.send(signal, PIDFD_SIGNAL_PROCESS_GROUP) {
            // An older kernel. A group's number is not reused while the group has a member.
            Err(Errno::EINVAL) => killpg(self.pid, signal),
            sent => sent,
        }
    }

    fn send(&self, signal: Signal, flags: libc::c_uint) -> nix::Result<()> {
        let (pidfd, signal) = (self.pidfd.as_raw_fd(), signal as libc::c_int);
        let no_info = std::ptr::null_mut::<libc::siginfo_t>();
        // SAFETY: pidfd_send_signal(2) takes numbers here; without an info it touches no memory of ours.
        Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, signal, no_info, flags) }).map(|_| ())
    }

    /// Returns whether it has exited, even if it was not reaped yet.
    pub fn has_ended(&self) -> bool {
        self.ends_within(0)
    }

    /// Waits up to this many milliseconds for it to exit. Returns whether it has.
    pub fn ends_within(&self, milliseconds: u16) -> bool {
        let mut ready = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut ready, PollTimeout::from(milliseconds)) {
                Err(Errno::EINTR) if milliseconds > 0 => {}
                // Another error would mean that memory has run out.
                ended => return matches!(ended, Ok(1..)),
            }
        }
    }
}

impl AsFd for Process {
    /// Readable once the process has exited.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// The state of a process from /proc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its parent.
    pub parent: Pid,
    /// Its process group.
    pub group: Pid,
    /// Its start time in clock ticks. Together with the pid, it identifies the process.
    pub started: u64,
}

impl Stat {
    /// Reads the state; `None` if the process has been reaped, or there is no /proc.
    pub fn of(pid: Pid) -> Option<Stat> {
        // The first thread has the same values as the process, but is cheaper: the kernel does not add up the times of
        // all threads.
        let stat = fs::read(format!("/proc/{pid}/task/{pid}/stat")).ok()?;
        Self::parse(&String::from_utf8_lossy(&stat))
    }

    /// Parses the fields after the name, which is in parentheses and may contain anything.
    fn parse(stat: &str) -> Option<Stat> {
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(1);
        let parent = fields.next()?.parse().ok().map(Pid::from_raw)?;
        let group = fields.next()?.parse().ok().map(Pid::from_raw)?;
        let started = fields.nth(16)?.parse().ok()?;
        Some(Stat { parent, group, started })
    }
}

/// Returns the process and its ancestors as far as this process can see them, at most 64.
pub fn ancestors_of(pid: Pid) -> impl Iterator<Item = Pid> {
    let parent = |pid: &Pid| Stat::of(*pid).map(|stat| stat.parent).filter(|parent| parent.as_raw() > 0);
    std::iter::successors(Some(pid), parent).take(MAX_ANCESTORS)
}

/// Returns the children of all threads of a process, including those that were not reaped.
pub fn children_of(pid: Pid) -> Vec<Pid> {
    let mut children = BTreeSet::new();
    let mut threads = threads_of(pid);
    for _ in 0..MAX_LISTINGS {
        for thread in &threads {
            let list = fs::read_to_string(thread.join("children")).unwrap_or_default();
            children.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok().map(Pid::from_raw)));
        }
        // If a thread exits while the kernel lists them, the list ends there, and another thread inherits its children.
        let listed = std::mem::replace(&mut threads, threads_of(pid));
        if threads == listed {
            break;
        }
    }
    children.into_iter().collect()
}

/// Returns the folders of a process's threads in /proc.
fn threads_of(pid: Pid) -> Vec<PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    tasks.into_iter().flatten().flatten().map(|task| task.path()).collect()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::process::{Child, Command};
    use std::sync::{Arc, Barrier};

    use super::*;

    fn sleeper() -> (Child, Pid) {
        let child = Command::new("sleep").arg("3600").spawn().expect("there is a sleep");
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        (child, pid)
    }

    /// Starts a sleeping process with this name.
    fn sleeper_called(name: &[u8]) -> (Child, Pid) {
        let folder = std::env::temp_dir().join(format!("farpool-link-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder can be made");
        let path = folder.join(OsStr::from_bytes(name));
        std::os::unix::fs::symlink("/bin/sleep", &path).expect("the name is new");
        let child = Command::new(&path).arg("3600").spawn().expect("there is a sleep");
        fs::remove_dir_all(&folder).expect("the folder exists");
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        (child, pid)
    }

    #[test]
    fn only_children_of_the_given_parent_are_opened() {
        let (mut child, pid) = sleeper();
        let process = Process::open_child(pid, Pid::this()).expect("the process is a child of this one");
        assert!(children_of(Pid::this()).contains(&pid));
        assert!(!process.has_ended());
        let others = [Pid::from_raw(1), Pid::from_raw(0), Pid::from_raw(-1), Pid::this(), Pid::parent()];
        for pid in others.into_iter().chain([Pid::from_raw(i32::MAX)]) {
            assert!(Process::open_child(pid, Pid::this()).is_none(), "{pid}");
        }
        process.signal(Signal::SIGKILL).expect("the process runs");
        child.wait().expect("the process is a child of this one");
        assert!(process.has_ended());
        assert_eq!(process.signal(Signal::SIGKILL), Err(Errno::ESRCH));
        assert!(Process::open_child(pid, Pid::this()).is_none());
    }

    #[test]
    fn children_are_found_while_threads_exit() {
        const EXITING: usize = 16;
        for round in 0..200 {
            // Threads are listed by age, so these come before the one that starts the child.
            let exits = Arc::new(Barrier::new(EXITING + 1));
            let exiting: [_; EXITING] = std::array::from_fn(|_| {
                let exits = Arc::clone(&exits);
                std::thread::spawn(move || exits.wait())
            });
            let parent = std::thread::spawn(move || {
                let (mut child, pid) = sleeper();
                exits.wait();
                let is_found = children_of(Pid::this()).contains(&pid);
                child.kill().expect("the process runs");
                child.wait().expect("the process is a child of this one");
                is_found
            });
            assert!(parent.join().expect("the child can be started"), "round {round}");
            for thread in exiting {
                thread.join().expect("the thread only waits");
            }
        }
    }

    #[test]
    fn this_process_descends_from_its_parent() {
        let line: Vec<Pid> = ancestors_of(Pid::this()).collect();
        assert_eq!(line[..2], [Pid::this(), Pid::parent()]);
        assert!(line.len() < MAX_ANCESTORS && line.iter().all(|pid| pid.as_raw() > 0), "{line:?}");
        let nobody = Pid::from_raw(i32::MAX);
        assert_eq!(ancestors_of(nobody).collect::<Vec<_>>(), [nobody]);
    }

    #[test]
    fn processes_with_non_utf8_names_are_found() {
        let (mut child, pid) = sleeper_called(b"a) \xff");
        let stat = Stat::of(pid).expect("the process runs");
        assert_eq!((stat.parent, stat.group), (Pid::this(), nix::unistd::getpgrp()));
        child.kill().expect("the process runs");
        child.wait().expect("the process is a child of this one");
    }

    #[test]
    fn process_names_do_not_confuse_the_parser() {
        let stat = "42 (a) S 1 (b)) R 7 8 9 0 -1 4194560 127 0 0 0 0 0 0 0 20 0 1 0 66257 2703360 378\n";
        let stat = Stat::parse(stat).expect("the line is a stat");
        assert_eq!(stat, Stat { parent: Pid::from_raw(7), group: Pid::from_raw(8), started: 66257 });
        assert_eq!(Stat::parse("42 (cut off) S 7"), None);
        assert_eq!(Stat::parse(""), None);
    }
}
