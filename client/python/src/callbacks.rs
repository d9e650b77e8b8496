//! The thread that runs users' callbacks and prints the output of workers on clusters. A slow callback delays only these.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use farpool_proto::text;
use farpool_proto::v1::{Output, OutputStream};
use farpool_session::Front;
use farpool_session::fork::PerProcess;
use pyo3::prelude::*;

use crate::background;

/// Work for the thread, which is attached to the interpreter.
pub(crate) type Chore = Box<dyn FnOnce(Python<'_>) + Send>;

/// How many bytes of output may wait to be printed.
const MOST_BYTES: usize = 1 << 20;

/// The jobs of a pool that have callbacks which have not run.
#[derive(Default)]
pub(crate) struct Pending {
    jobs: Mutex<usize>,
    changed: Condvar,
    /// The pool was terminated: callbacks are not told of jobs that were cancelled.
    terminated: AtomicBool,
}

static CHORES: PerProcess<Chores> = PerProcess::new();

#[derive(Default)]
struct Chores {
    queue: Mutex<Queue>,
    arrived: Condvar,
    finished: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Chore>,
    busy: bool,
    thread: Option<ThreadId>,
    /// How many bytes of output are waiting, and how many were dropped since the last note about it.
    output: usize,
    dropped: usize,
}

/// Starts the thread if it is not running.
pub(crate) fn start() -> io::Result<()> {
    let chores = CHORES.get();
    // Under the lock, so that two callers do not start it twice.
    let mut queue = chores.queue();
    if queue.thread.is_none() {
        let builder = thread::Builder::new().name("farpool-callbacks".to_owned()).stack_size(farpool_session::STACK);
        queue.thread = Some(builder.spawn(|| chores.serve())?.thread().id());
    }
    Ok(())
}

/// Queues a chore. Never blocks.
pub(crate) fn schedule(chore: Chore) {
    let chores = CHORES.get();
    chores.queue().waiting.push_back(chore);
    chores.arrived.notify_one();
}

/// Returns whether the calling thread is the one that runs callbacks.
pub(crate) fn on_their_thread() -> bool {
    CHORES.get().queue().thread == Some(thread::current().id())
}

/// Runs one queued chore if this is the callback thread, so that a callback can wait for another. Returns whether
/// it is that thread.
pub(crate) fn help(py: Python<'_>) -> bool {
    let chores = CHORES.get();
    let mut queue = chores.queue();
    if queue.thread != Some(thread::current().id()) {
        return false;
    }
    let chore = queue.waiting.pop_front();
    drop(queue);
    if let Some(chore) = chore {
        chore(py);
    }
    true
}

impl Pending {
    pub(crate) fn add(&self) {
        *self.jobs() += 1;
    }

    pub(crate) fn remove(&self) {
        *self.jobs() -= 1;
        self.changed.notify_all();
    }

    pub(crate) fn terminate(&self) {
        self.terminated.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_terminated(&self) -> bool {
        self.terminated.load(Ordering::SeqCst)
    }

    /// Waits until there are none. Returns false if the deadline passes first.
    pub(crate) fn wait(&self, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(self.jobs(), left, |jobs| *jobs > 0);
        *waited.unwrap_or_else(PoisonError::into_inner).0 == 0
    }

    fn jobs(&self) -> MutexGuard<'_, usize> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chores {
    fn serve(&self) {
        loop {
            let nothing = |queue: &mut Queue| queue.waiting.is_empty();
            let mut queue = self.arrived.wait_while(self.queue(), nothing).unwrap_or_else(PoisonError::into_inner);
            queue.busy = true;
            drop(queue);
            let ran = background::attach(|py| {
                while let Some(chore) = self.next() {
                    chore(py);
                    if background::is_ending() {
                        return;
                    }
                }
            });
            self.queue().busy = false;
            self.finished.notify_all();
            if ran.is_none() {
                // The interpreter is shutting down.
                return;
            }
        }
    }

    fn next(&self) -> Option<Chore> {
        self.queue().waiting.pop_front()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Prints the output and notices of a pool on a cluster to this process's `sys.stdout` and `sys.stderr`.
pub(crate) struct Shown;

impl Front for Shown {
    fn output(&self, output: &Output) {
        let label = format!("[{} {}] ", text::Printable(&output.host), output.pid);
        show(output.stream(), text::labelled(&label, &output.data));
    }

    fn notice(&self, line: &str) {
        show(OutputStream::Stderr, format!("farpool: {}\n", text::Printable(line)).into_bytes());
    }

    fn flush(&self, patience: Duration) {
        let chores = CHORES.get();
        let shows = |queue: &mut Queue| queue.output > 0;
        drop(chores.finished.wait_timeout_while(chores.queue(), patience, shows));
    }
}

fn show(stream: OutputStream, lines: Vec<u8>) {
    let chores = CHORES.get();
    let started = start().is_ok();
    let mut queue = chores.queue();
    if !started || queue.output + lines.len() > MOST_BYTES {
        queue.dropped += lines.len();
        return;
    }
    queue.output += lines.len();
    drop(queue);
    schedule(Box::new(move |py| {
        let dropped = std::mem::take(&mut chores.queue().dropped);
        if dropped > 0 {
            let note =
                format!("farpool: {dropped} bytes of output were dropped, because earlier output was not read\n");
            write(py, OutputStream::Stderr, &note);
        }
        write(py, stream, &String::from_utf8_lossy(&lines));
        chores.queue().output -= lines.len();
        chores.finished.notify_all();
    }));
}

fn write(py: Python<'_>, stream: OutputStream, lines: &str) {
    let name = if stream == OutputStream::Stderr { "stderr" } else { "stdout" };
    let written = (|| {
        let stream = py.import("sys")?.getattr(name)?;
        // It is None in a program without a terminal.
        if !stream.is_none() {
            stream.call_method1("write", (lines,))?;
            stream.call_method0("flush")?;
        }
        Ok::<(), PyErr>(())
    })();
    if let Err(error) = written {
        error.write_unraisable(py, None);
    }
}
