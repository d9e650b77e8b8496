//! Tasks that try to escape being killed. They and everything they have started are killed anyway, and nothing else.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use farpool::{AsyncResult, ErrorKind, Pool};
use farpool_testkit::processes::{self, Process};
use farpool_testkit::waiting;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{Pid, setpgid, setsid};
use serde::{Deserialize, Serialize};

use crate::failures::checks::{millis, pool, seconds, still_works, within};
use crate::failures::tasks::{FOREVER, Fault, nap};
use crate::log::{self, Log};
use crate::report_pipe::{self, ReportPipe};

crate::runner::cases![
    ends_on_a_timeout,
    ends_on_a_cancel,
    ends_with_its_pool,
    ends_at_once_if_it_obeys_sigterm,
    with_another_worker_in_its_process_group,
];

/// How a worker leaves the process group that its fork server has created for it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Escape {
    /// To its own group, which it already leads.
    OwnGroup,
    /// To the group of the process with this pid.
    Group(u32),
    /// To its own session, through the group of this process.
    Session(u32),
    /// It stays, and stops itself.
    Stopped,
    /// It stays, and starts children and grandchildren in their own groups and sessions.
    Family,
}

fn escapes(bystander: u32) -> [Escape; 5] {
    [Escape::OwnGroup, Escape::Group(bystander), Escape::Session(bystander), Escape::Stopped, Escape::Family]
}

/// Escapes, reports its worker's pid, and never ends.
fn escape(path: String, escape: Escape, ignore_sigterm: bool) {
    let pid = |number| Pid::from_raw(i32::try_from(number).unwrap());
    let own = pid(0);
    if ignore_sigterm {
        // SAFETY: a signal is ignored, no handler is installed.
        unsafe { signal(Signal::SIGTERM, SigHandler::SigIgn) }.unwrap();
    }
    match escape {
        Escape::OwnGroup => setpgid(own, own).unwrap(),
        // On a cluster it may be a worker of another agent.
        Escape::Group(other) => setpgid(own, pid(other)).unwrap(),
        Escape::Session(other) => {
            setpgid(own, pid(other)).unwrap();
            setsid().unwrap();
        }
        Escape::Stopped => {}
        Escape::Family => {
            for (script, session) in [
                // A child and an orphan in this worker's group.
                ("exec sleep 3600", false),
                ("sleep 3600 & exit", false),
                // Children in their own sessions, one with a child in its group.
                ("exec sleep 3600", true),
                ("sleep 3600; exit", true),
            ] {
                start(script, session, ignore_sigterm);
            }
            waiting::until(|| sleepers().len() == 4);
        }
    }
    report_pipe::report(&path, std::process::id());
    if matches!(escape, Escape::Stopped) {
        Fault::Stop.trigger();
    }
    nap(FOREVER);
}

fn start(script: &str, session: bool, ignore_sigterm: bool) {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).stdin(Stdio::null());
    // SAFETY: setsid and signal are on the list of what may be called between fork and exec, and touch no memory.
    unsafe {
        shell.pre_exec(move || {
            signal(Signal::SIGTERM, if ignore_sigterm { SigHandler::SigIgn } else { SigHandler::SigDfl })?;
            if session {
                setsid()?;
            }
            Ok(())
        });
    }
    let mut child = shell.spawn().expect("cannot run sh");
    match script.ends_with("& exit") {
        true => drop(child.wait().unwrap()),
        false => std::mem::forget(child),
    }
}

fn sleepers() -> Vec<Process> {
    processes::tagged(&processes::own_tag()).into_iter().filter(|process| process.name == "sleep").collect()
}

/// An item that must run exactly once, whatever happens to others.
struct Bystander {
    log: Log,
    result: AsyncResult<u64>,
    pid: u32,
    release: std::fs::File,
}

fn bystander(log: String, started: String, until: String) -> u64 {
    log::note(&log, "ran");
    report_pipe::report(&started, std::process::id());
    std::fs::read(until).unwrap().len() as u64
}

impl Bystander {
    fn start(pool: &Pool, name: &str) -> Bystander {
        let (log, mut line) = (Log::new(&format!("{name}-runs")), ReportPipe::new(&format!("{name}-pid")));
        let until = ReportPipe::new(&format!("{name}-until"));
        let result = pool.apply_async(bystander, (log.path(), line.path(), until.path()));
        let pid = line.next_number();
        // The task reads until this writer is closed, and the test's own copies of the pipe.
        let release = std::fs::OpenOptions::new().write(true).open(until.path()).unwrap();
        Bystander { log, result, pid, release }
    }

    fn ends_unharmed(self) {
        assert_eq!(processes::Process::of(self.pid).map(|process| process.pid), Some(self.pid));
        drop(self.release);
        assert_eq!(within(seconds(5), || self.result.get().unwrap()), 0);
        assert_eq!(self.log.count("ran"), 1, "the bystander ran again");
    }
}

fn ended(pid: u32) {
    waiting::until_gone(seconds(1), || Process::of(pid).into_iter().chain(sleepers()).collect());
}

fn ends_on_a_timeout() {
    let (pool, mut line) = (pool(2), ReportPipe::new("pids"));
    let bystander = Bystander::start(&pool, "bystander");
    for escaped in escapes(bystander.pid) {
        let doomed = pool.job(escape).timeout(millis(1500)).apply_async((line.path(), escaped, true));
        let pid = line.next_number();
        let error = within(seconds(3), || doomed.get().unwrap_err());
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{escaped:?}: {error}");
        ended(pid);
    }
    bystander.ends_unharmed();
    still_works(&pool);
}

fn ends_on_a_cancel() {
    let (pool, mut line) = (pool(2), ReportPipe::new("pids"));
    let bystander = Bystander::start(&pool, "bystander");
    for escaped in escapes(bystander.pid) {
        let doomed = pool.apply_async(escape, (line.path(), escaped, true));
        let pid = line.next_number();
        doomed.cancel();
        let error = within(seconds(1), || doomed.get().unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{escaped:?}: {error}");
        ended(pid);
    }
    bystander.ends_unharmed();
    still_works(&pool);
}

fn ends_with_its_pool() {
    for at in 0..5 {
        let (other, pool) = (pool(1), pool(2));
        let mut line = ReportPipe::new(&format!("pids-{at}"));
        let bystander = Bystander::start(&other, &format!("bystander-{at}"));
        let leader = Bystander::start(&pool, &format!("leader-{at}"));
        let _doomed = pool.apply_async(escape, (line.path(), escapes(leader.pid)[at], true));
        let pid = line.next_number();
        pool.terminate();
        within(seconds(1), || pool.join().unwrap());
        ended(pid);
        bystander.ends_unharmed();
        still_works(&other);
    }
}

/// SIGTERM reaches all of its processes, so the grace period of 100 ms need not pass.
fn ends_at_once_if_it_obeys_sigterm() {
    let (pool, mut line) = (pool(2), ReportPipe::new("pids"));
    let bystander = Bystander::start(&pool, "bystander");
    for escaped in escapes(bystander.pid).into_iter().filter(|escaped| !matches!(escaped, Escape::Stopped)) {
        let doomed = pool.apply_async(escape, (line.path(), escaped, false));
        let pid = line.next_number();
        doomed.cancel();
        assert_eq!(doomed.get().unwrap_err().kind(), ErrorKind::Cancelled);
        ended(pid);
    }
    bystander.ends_unharmed();
    still_works(&pool);
}

/// A worker that has joined the group does not die with the group's leader, nor do the processes that it has started.
fn with_another_worker_in_its_process_group() {
    fn joins(path: String, leader: u32, log: String, until: String) -> u64 {
        setpgid(Pid::from_raw(0), Pid::from_raw(i32::try_from(leader).unwrap())).unwrap();
        let mut child = Command::new("sleep").arg("3600").spawn().unwrap();
        bystander(log, path, until);
        let alive = child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        child.wait().unwrap();
        u64::from(alive)
    }
    let (pool, mut line, log, until) = (pool(2), ReportPipe::new("pids"), Log::new("runs"), ReportPipe::new("until"));
    let leader = pool.apply_async(escape, (line.path(), Escape::OwnGroup, true));
    let pid = line.next_number();
    let joined = pool.apply_async(joins, (line.path(), pid, log.path(), until.path()));
    line.next();
    let release = std::fs::OpenOptions::new().write(true).open(until.path()).unwrap();
    drop(until);
    leader.cancel();
    assert_eq!(leader.get().unwrap_err().kind(), ErrorKind::Cancelled);
    waiting::until_gone(seconds(1), || Process::of(pid).into_iter().collect());
    drop(release);
    assert_eq!(joined.get().unwrap(), 1);
    assert_eq!(log.count("ran"), 1);
    still_works(&pool);
}
