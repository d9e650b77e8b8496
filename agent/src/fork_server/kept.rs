//! The fork server that is kept for the next pool. A program may take long to start, as an interpreter does, while the fork server of a
//! pool that has stopped could serve the next one at once.
//!
//! A process keeps at most one, for [`KEEP`]. It has no workers, and nothing of its pool is in it: it only forks. It serves the next pool
//! only if it would be the same if it were started then ([`Origin`]).

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use farpool_link::fork::PerProcess;

use super::{ForkServer, Program};

/// How long a fork server is kept without a pool.
const KEEP: Duration = Duration::from_secs(10);

/// The lines of /proc/self/status about what a process inherits.
const INHERITED: [&str; 8] =
    ["Umask:", "Uid:", "Gid:", "Groups:", "SigIgn:", "NoNewPrivs:", "Cpus_allowed_list:", "Mems_allowed_list:"];

/// What a fork server gets from this process when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    path: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    /// The device, inode and time of change of the executable.
    file: Option<(u64, u64, i64, i64)>,
    /// Limits, identity and the like, as the kernel prints them.
    inherited: String,
}

#[derive(Debug, Default)]
struct Kept {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    idle: Option<Idle>,
    /// Fork servers that the thread will end.
    discarded: Vec<ForkServer>,
    /// Whether the thread that ends fork servers is running.
    has_thread: bool,
}

#[derive(Debug)]
struct Idle {
    server: ForkServer,
    origin: Origin,
    until: Instant,
}

static KEPT: PerProcess<Kept> = PerProcess::new();

impl Origin {
    /// Returns what a fork server of this program would get if it were started now.
    pub(crate) fn of(program: &Program) -> Origin {
        let Program { path, arguments, environment, directory, keep: _ } = program;
        let file = fs::metadata(path).ok();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mut inherited: String = status
            .lines()
            .filter(|line| INHERITED.iter().any(|start| line.starts_with(start)))
            .flat_map(|line| [line, "\n"])
            .collect();
        for file in ["limits", "cgroup", "oom_score_adj"] {
            inherited += &fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
        }
        Origin {
            path: path.clone(),
            arguments: arguments.clone(),
            environment: environment.clone().unwrap_or_else(|| std::env::vars_os().collect()),
            directory: directory.clone().or_else(|| std::env::current_dir().ok()),
            file: file.map(|file| (file.dev(), file.ino(), file.mtime(), file.mtime_nsec())),
            inherited,
        }
    }
}

/// Returns the fork server that is kept, if it has this origin. Another one is ended.
pub(crate) fn take(origin: &Origin) -> Option<ForkServer> {
    let kept = KEPT.get();
    let mut state = kept.state();
    let idle = state.idle.take()?;
    if idle.origin == *origin && !idle.server.has_ended() {
        return Some(idle.server);
    }
    state.discarded.push(idle.server);
    kept.wake_thread(&mut state);
    None
}

/// Keeps a fork server that has no workers.
pub(crate) fn keep(server: ForkServer, origin: Origin) {
    let kept = KEPT.get();
    let mut state = kept.state();
    let former = state.idle.replace(Idle { server, origin, until: Instant::now() + KEEP });
    if let Some(former) = former {
        state.discarded.push(former.server);
    }
    kept.wake_thread(&mut state);
}

impl Kept {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the thread end those that were discarded, which may take a moment, and the idle one when its time is over.
    fn wake_thread(&'static self, state: &mut State) {
        if !state.has_thread {
            let thread = thread::Builder::new().name("farpool-keeper".to_owned());
            state.has_thread = thread.spawn(move || self.end_late()).is_ok();
        }
        if state.has_thread {
            self.changed.notify_one();
        } else {
            // Without the thread nothing would end it.
            state.discarded.extend(state.idle.take().map(|idle| idle.server));
            state.discarded.clear();
        }
    }

    /// Ends fork servers until none is left.
    fn end_late(&self) {
        let mut state = self.state();
        loop {
            let now = Instant::now();
            if let Some(idle) = state.idle.take_if(|idle| idle.until <= now) {
                state.discarded.push(idle.server);
            }
            let discarded = std::mem::take(&mut state.discarded);
            if !discarded.is_empty() {
                drop(state);
                drop(discarded);
                state = self.state();
                continue;
            }
            let Some(idle) = &state.idle else { break };
            let rest = idle.until - now;
            state = self.changed.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.has_thread = false;
    }
}
