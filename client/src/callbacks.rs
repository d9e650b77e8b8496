//! The thread that runs users' callbacks, so that a slow or panicking one holds up nobody but other callbacks.

use std::collections::VecDeque;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};

/// One callback with its argument.
pub(crate) type Task = Box<dyn FnOnce() + Send>;

static TASKS: Mutex<VecDeque<Task>> = Mutex::new(VecDeque::new());
static ARRIVED: Condvar = Condvar::new();
static THREAD: OnceLock<ThreadId> = OnceLock::new();

/// Sees to it that the thread is there.
pub(crate) fn start() -> io::Result<()> {
    // Under the lock, so that two callers do not start it twice.
    let _tasks = tasks();
    if THREAD.get().is_none() {
        let thread = thread::Builder::new().name("farpool-callbacks".to_owned()).spawn(serve)?;
        let _ = THREAD.set(thread.thread().id());
    }
    Ok(())
}

/// Has the thread run a task, after those that wait already. Never blocks.
pub(crate) fn schedule(task: Task) {
    tasks().push_back(task);
    ARRIVED.notify_one();
}

/// Runs one waiting task if this is the callbacks' own thread: a callback that waits for another one would wait for
/// ever. Returns whether there was one.
pub(crate) fn help() -> bool {
    if THREAD.get() != Some(&thread::current().id()) {
        return false;
    }
    let task = tasks().pop_front();
    task.map(run).is_some()
}

fn serve() {
    loop {
        let mut tasks = tasks();
        let task = loop {
            match tasks.pop_front() {
                Some(task) => break task,
                None => tasks = ARRIVED.wait(tasks).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(tasks);
        run(task);
    }
}

fn run(task: Task) {
    // What the callback captured may be left half-changed, but nobody else can see it any more, or expects it.
    if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(task)) {
        eprintln!("farpool: a callback panicked: {}", crate::panics::message(&*panic));
    }
}

fn tasks() -> MutexGuard<'static, VecDeque<Task>> {
    TASKS.lock().unwrap_or_else(PoisonError::into_inner)
}
