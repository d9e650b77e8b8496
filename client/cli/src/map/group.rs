//! A command's process group: when it is empty, and who is in it.

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

/// The longest time between two looks at what a command has left in the background.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// The group of a command that was started.
pub(super) struct Group {
    id: Pid,
    /// Nobody is left in it. As long as this is locked, nobody is reaped who was in it, so its number stays its own.
    gone: Arc<Mutex<bool>>,
    /// Waits for them all. Returns how the command has ended.
    waits: JoinHandle<io::Result<ExitStatus>>,
}

/// Makes processes whose parents have ended children of this one, and reaps those that have left their groups and ended since the
/// last call.
pub(super) fn adopt_orphans() {
    static ONCE: Once = Once::new();
    // Where that is not permitted, what is left in the background is not waited for.
    ONCE.call_once(|| _ = set_child_subreaper(true));
    while !matches!(
        waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG),
        Err(Errno::ECHILD) | Ok(nix::sys::wait::WaitStatus::StillAlive)
    ) {}
}

impl Group {
    /// The group that this child leads. What this returns beside has a byte when the child has ended, and its end when the
    /// group is empty.
    pub(super) fn of(child: Child) -> io::Result<(Group, PipeReader)> {
        let (news, tell) = io::pipe()?;
        let id = Pid::from_raw(child.id().cast_signed());
        let gone = Arc::new(Mutex::new(false));
        let shared = Arc::clone(&gone);
        let waits =
            thread::Builder::new().name("farpool-group".to_owned()).spawn(move || wait(child, tell, &shared))?;
        Ok((Group { id, gone, waits }, news))
    }

    pub(super) fn signal(&self, signal: Signal) {
        let gone = lock(&self.gone);
        if !*gone {
            // An error means that nobody is left in it.
            let _ = killpg(self.id, signal);
        }
    }

    /// Who is in it, by name and number.
    pub(super) fn members(&self) -> Vec<String> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name is in parentheses and may hold some itself.
            let (name, rest) = (&stat[stat.find('(')? + 1..stat.rfind(')')?], &stat[stat.rfind(')')? + 1..]);
            let mut fields = rest.split_ascii_whitespace();
            let (state, _, group) = (fields.next()?, fields.next()?, fields.next()?.parse::<i32>().ok()?);
            (group == self.id.as_raw() && state != "Z").then(|| format!("{name} (pid {pid})"))
        })
        .collect()
    }

    /// Waits until the group is empty; returns how the command has ended.
    pub(super) fn join(self) -> io::Result<ExitStatus> {
        self.waits.join().unwrap_or_else(|_| Err(io::Error::other("the thread that waits for it panicked")))
    }
}

fn wait(mut child: Child, mut tell: PipeWriter, gone: &Mutex<bool>) -> io::Result<ExitStatus> {
    let id = Pid::from_raw(child.id().cast_signed());
    while waitid(Id::Pid(id), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
    let mut is_gone = lock(gone);
    let status = child.wait();
    let _ = tell.write_all(&[0]);
    let mut pause = Duration::from_millis(1);
    loop {
        // Their parents have ended, so they are children of this process. How they end is nobody's business, and may be by a
        // signal that has no name.
        let others = waitid(Id::PGid(id), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
        if others == Err(Errno::ECHILD) {
            *is_gone = true;
            return status;
        }
        if matches!(others, Ok(nix::sys::wait::WaitStatus::StillAlive)) {
            drop(is_gone);
            // The system does not tell when a process leaves the group (setsid, setpgid): waitid(2) would sleep on, even after the
            // process has ended. So the group is looked at again and again.
            thread::sleep(pause);
            pause = LONGEST_PAUSE.min(2 * pause);
            is_gone = lock(gone);
        }
    }
}

fn lock(gone: &Mutex<bool>) -> MutexGuard<'_, bool> {
    gone.lock().unwrap_or_else(PoisonError::into_inner)
}
