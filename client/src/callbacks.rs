//! The thread that runs users' callbacks, so that a slow or panicking one delays only other callbacks.

use std::collections::VecDeque;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};

use farpool_session::fork::PerProcess;

/// A callback with its argument.
pub(crate) type Task = Box<dyn FnOnce() + Send>;

static CALLBACKS: PerProcess<Callbacks> = PerProcess::new();

#[derive(Default)]
struct Callbacks {
    tasks: Mutex<VecDeque<Task>>,
    arrived: Condvar,
    thread: OnceLock<ThreadId>,
}

/// Starts the thread if it is not running.
pub(crate) fn start() -> io::Result<()> {
    let callbacks = CALLBACKS.get();
    // Under the lock, so that two callers do not start it twice.
    let _tasks = callbacks.tasks();
    if callbacks.thread.get().is_none() {
        let builder = thread::Builder::new().name("farpool-callbacks".to_owned()).stack_size(crate::codec::STACK);
        let thread = builder.spawn(|| callbacks.serve())?;
        let _ = callbacks.thread.set(thread.thread().id());
    }
    Ok(())
}

/// Queues a task for the callback thread. Never blocks.
pub(crate) fn schedule(task: Task) {
    let callbacks = CALLBACKS.get();
    callbacks.tasks().push_back(task);
    callbacks.arrived.notify_one();
}

/// Runs one queued task if this is the callback thread, so that a callback can wait for another. Returns whether one
/// ran.
pub(crate) fn help() -> bool {
    let callbacks = CALLBACKS.get();
    if callbacks.thread.get() != Some(&thread::current().id()) {
        return false;
    }
    let task = callbacks.tasks().pop_front();
    task.map(run).is_some()
}

impl Callbacks {
    fn serve(&self) {
        loop {
            let mut tasks = self.tasks();
            let task = loop {
                match tasks.pop_front() {
                    Some(task) => break task,
                    None => tasks = self.arrived.wait(tasks).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(tasks);
            run(task);
        }
    }

    fn tasks(&self) -> MutexGuard<'_, VecDeque<Task>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(task: Task) {
    // The callback's captures may be left inconsistent, but nothing else can access them.
    if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(task)) {
        eprintln!("farpool: a callback panicked: {}", crate::panics::message(&*panic));
    }
}
