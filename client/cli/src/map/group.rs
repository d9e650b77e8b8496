//! A command's process group: waits until it is empty, and lists its members.

use std::fs;
use std::io::{self, PipeReader, PipeWriter, Write};
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// The longest interval between two checks of a group's background processes.
const MAX_INTERVAL: Duration = Duration::from_millis(50);

/// The process group of a running command.
pub(super) struct Group {
    id: Pid,
    /// Whether the group is empty. While this is locked, no member is reaped, so the group's number stays its own.
    empty: Arc<Mutex<bool>>,
    /// Waits for all members. Returns how the command ended.
    waits: JoinHandle<io::Result<ExitStatus>>,
}

/// Makes this process adopt orphans, and reaps those that left their groups and ended since the last call.
pub(super) fn adopt_orphans() {
    static ONCE: Once = Once::new();
    // If that is not permitted, background processes are not waited for.
    ONCE.call_once(|| _ = set_child_subreaper(true));
    while !matches!(
        waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG),
        Err(Errno::ECHILD) | Ok(nix::sys::wait::WaitStatus::StillAlive)
    ) {}
}

impl Group {
    /// Returns the group that this child leads, and a pipe. The pipe yields a byte when the child has exited, and ends
    /// when the group is empty.
    pub(super) fn of(child: Child) -> io::Result<(Group, PipeReader)> {
        let (exit_pipe, sender) = io::pipe()?;
        let id = Pid::from_raw(child.id().cast_signed());
        let empty = Arc::new(Mutex::new(false));
        let shared = Arc::clone(&empty);
        let waits =
            thread::Builder::new().name("farpool-group".to_owned()).spawn(move || wait(child, sender, &shared))?;
        Ok((Group { id, empty, waits }, exit_pipe))
    }

    pub(super) fn signal(&self, signal: Signal) {
        let empty = lock(&self.empty);
        if !*empty {
            // An error means that the group is empty.
            let _ = killpg(self.id, signal);
        }
    }

    /// Returns the names and pids of its members.
    pub(super) fn members(&self) -> Vec<String> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name is in parentheses and may contain some itself.
            let (name, rest) = (&stat[stat.find('(')? + 1..stat.rfind(')')?], &stat[stat.rfind(')')? + 1..]);
            let mut fields = rest.split_ascii_whitespace();
            let (state, _, group) = (fields.next()?, fields.next()?, fields.next()?.parse::<i32>().ok()?);
            (group == self.id.as_raw() && state != "Z").then(|| format!("{name} (pid {pid})"))
        })
        .collect()
    }

    /// Waits until the group is empty. Returns how the command ended.
    pub(super) fn join(self) -> io::Result<ExitStatus> {
        self.waits.join().unwrap_or_else(|_| Err(io::Error::other("the thread that waits for it panicked")))
    }
}

fn wait(mut child: Child, mut sender: PipeWriter, empty: &Mutex<bool>) -> io::Result<ExitStatus> {
    let id = Pid::from_raw(child.id().cast_signed());
    while waitid(Id::Pid(id), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
    let mut is_empty = lock(empty);
    let status = child.wait();
    let _ = sender.write_all(&[0]);
    let mut pause = Duration::from_millis(1);
    loop {
        // Their parents have exited, so they are children of this process. Their exit status is irrelevant, and may be
        // an unnamed signal.
        let others = waitid(Id::PGid(id), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
        if others == Err(Errno::ECHILD) {
            *is_empty = true;
            return status;
        }
        if matches!(others, Ok(nix::sys::wait::WaitStatus::StillAlive)) {
            drop(is_empty);
            // The kernel does not report when a process leaves the group (setsid, setpgid): waitid(2) would keep
            // sleeping, even after the process has exited. So the group is polled.
            thread::sleep(pause);
            pause = MAX_INTERVAL.min(2 * pause);
            is_empty = lock(empty);
        }
    }
}

fn lock(empty: &Mutex<bool>) -> MutexGuard<'_, bool> {
    empty.lock().unwrap_or_else(PoisonError::into_inner)
}
