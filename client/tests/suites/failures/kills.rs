//! Tasks that get out of the way of their own end, and what ends all the same: they and what they have started, and nobody
//! else.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use farpool::{AsyncResult, ErrorKind, Pool};
use farpool_testkit::processes::{self, Process};
use farpool_testkit::waiting;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{Pid, setpgid, setsid};
use serde::{Deserialize, Serialize};

use crate::failures::checks::{millis, pool, seconds, serves_on, within};
use crate::failures::tasks::{FOR_EVER, Way, nap};
use crate::line::{self, Line};
use crate::log::{self, Log};

crate::runner::cases![
    ends_on_a_timeout,
    ends_on_a_cancel,
    ends_with_its_pool,
    ends_at_once_if_it_lets_itself_be_asked,
    in_whose_process_group_another_worker_is,
];

/// Out of the process group that its fork server has made for it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Escape {
    /// Which it leads already.
    OwnGroup,
    /// That of the process with this number.
    Group(u32),
    /// A session of its own, on the way through the group of this process.
    Session(u32),
    /// It stays, and is stopped.
    Stopped,
    /// It stays, and has children and grandchildren in groups and sessions of their own.
    Family,
}

fn escapes(innocent: u32) -> [Escape; 5] {
    [Escape::OwnGroup, Escape::Group(innocent), Escape::Session(innocent), Escape::Stopped, Escape::Family]
}

/// Reports its worker's pid, as soon as it is where it wants to be, and never ends.
fn escape(path: String, escape: Escape, deaf: bool) {
    let pid = |number| Pid::from_raw(i32::try_from(number).unwrap());
    let own = pid(0);
    if deaf {
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
                // In this worker's group; and an orphan in it.
                ("exec sleep 3600", false),
                ("sleep 3600 & exit", false),
                // Children, in sessions of their own, whose own children are in their groups.
                ("exec sleep 3600", true),
                ("sleep 3600; exit", true),
            ] {
                start(script, session, deaf);
            }
            waiting::until(|| sleepers().len() == 4);
        }
    }
    line::report(&path, std::process::id());
    if matches!(escape, Escape::Stopped) {
        Way::Stop.take();
    }
    nap(FOR_EVER);
}

fn start(script: &str, session: bool, deaf: bool) {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).stdin(Stdio::null());
    // SAFETY: setsid and signal are on the list of what may be called between fork and exec, and touch no memory.
    unsafe {
        shell.pre_exec(move || {
            signal(Signal::SIGTERM, if deaf { SigHandler::SigIgn } else { SigHandler::SigDfl })?;
            if session {
                setsid()?;
            }
            Ok(())
        });
    }
    let mut child = shell.spawn().expect("sh is everywhere");
    match script.ends_with("& exit") {
        true => drop(child.wait().unwrap()),
        false => std::mem::forget(child),
    }
}

fn sleepers() -> Vec<Process> {
    processes::tagged(&processes::own_tag()).into_iter().filter(|process| process.name == "sleep").collect()
}

/// An item that is to run once, whatever happens to others.
struct Innocent {
    log: Log,
    result: AsyncResult<u64>,
    pid: u32,
    let_go: std::fs::File,
}

fn innocent(log: String, started: String, until: String) -> u64 {
    log::note(&log, "ran");
    line::report(&started, std::process::id());
    std::fs::read(until).unwrap().len() as u64
}

impl Innocent {
    fn start(pool: &Pool, name: &str) -> Innocent {
        let (log, mut line) = (Log::new(&format!("{name}-runs")), Line::new(&format!("{name}-pid")));
        let until = Line::new(&format!("{name}-until"));
        let result = pool.apply_async(innocent, (log.path(), line.path(), until.path()));
        let pid = line.next_number();
        // The task reads to the end, which comes when this is closed, and the line's own ends are.
        let let_go = std::fs::OpenOptions::new().write(true).open(until.path()).unwrap();
        Innocent { log, result, pid, let_go }
    }

    fn ends_unharmed(self) {
        assert_eq!(processes::Process::of(self.pid).map(|process| process.pid), Some(self.pid));
        drop(self.let_go);
        assert_eq!(within(seconds(5), || self.result.get().unwrap()), 0);
        assert_eq!(self.log.count("ran"), 1, "an innocent item ran again");
    }
}

fn ended(pid: u32) {
    waiting::until_gone(seconds(1), || Process::of(pid).into_iter().chain(sleepers()).collect());
}

fn ends_on_a_timeout() {
    let (pool, mut line) = (pool(2), Line::new("pids"));
    let innocent = Innocent::start(&pool, "innocent");
    for escaped in escapes(innocent.pid) {
        let doomed = pool.job(escape).timeout(millis(1500)).apply_async((line.path(), escaped, true));
        let pid = line.next_number();
        let error = within(seconds(3), || doomed.get().unwrap_err());
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{escaped:?}: {error}");
        ended(pid);
    }
    innocent.ends_unharmed();
    serves_on(&pool);
}

fn ends_on_a_cancel() {
    let (pool, mut line) = (pool(2), Line::new("pids"));
    let innocent = Innocent::start(&pool, "innocent");
    for escaped in escapes(innocent.pid) {
        let doomed = pool.apply_async(escape, (line.path(), escaped, true));
        let pid = line.next_number();
        doomed.cancel();
        let error = within(seconds(1), || doomed.get().unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{escaped:?}: {error}");
        ended(pid);
    }
    innocent.ends_unharmed();
    serves_on(&pool);
}

fn ends_with_its_pool() {
    for at in 0..5 {
        let (other, pool) = (pool(1), pool(2));
        let mut line = Line::new(&format!("pids-{at}"));
        let innocent = Innocent::start(&other, &format!("innocent-{at}"));
        let leader = Innocent::start(&pool, &format!("leader-{at}"));
        let _doomed = pool.apply_async(escape, (line.path(), escapes(leader.pid)[at], true));
        let pid = line.next_number();
        pool.terminate();
        within(seconds(1), || pool.join().unwrap());
        ended(pid);
        innocent.ends_unharmed();
        serves_on(&other);
    }
}

/// SIGTERM reaches all of it, so that 100 ms need not pass.
fn ends_at_once_if_it_lets_itself_be_asked() {
    let (pool, mut line) = (pool(2), Line::new("pids"));
    let innocent = Innocent::start(&pool, "innocent");
    for escaped in escapes(innocent.pid).into_iter().filter(|escaped| !matches!(escaped, Escape::Stopped)) {
        let doomed = pool.apply_async(escape, (line.path(), escaped, false));
        let pid = line.next_number();
        doomed.cancel();
        assert_eq!(doomed.get().unwrap_err().kind(), ErrorKind::Cancelled);
        ended(pid);
    }
    innocent.ends_unharmed();
    serves_on(&pool);
}

/// The one that has joined the group does not die with the group's leader, nor does what it has started.
fn in_whose_process_group_another_worker_is() {
    fn joins(path: String, leader: u32, log: String, until: String) -> u64 {
        setpgid(Pid::from_raw(0), Pid::from_raw(i32::try_from(leader).unwrap())).unwrap();
        let mut child = Command::new("sleep").arg("3600").spawn().unwrap();
        innocent(log, path, until);
        let alive = child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        child.wait().unwrap();
        u64::from(alive)
    }
    let (pool, mut line, log, until) = (pool(2), Line::new("pids"), Log::new("runs"), Line::new("until"));
    let leader = pool.apply_async(escape, (line.path(), Escape::OwnGroup, true));
    let pid = line.next_number();
    let joined = pool.apply_async(joins, (line.path(), pid, log.path(), until.path()));
    line.next();
    let let_go = std::fs::OpenOptions::new().write(true).open(until.path()).unwrap();
    drop(until);
    leader.cancel();
    assert_eq!(leader.get().unwrap_err().kind(), ErrorKind::Cancelled);
    waiting::until_gone(seconds(1), || Process::of(pid).into_iter().collect());
    drop(let_go);
    assert_eq!(joined.get().unwrap(), 1);
    assert_eq!(log.count("ran"), 1);
    serves_on(&pool);
}
