//! Catches panics of tasks, and reports their message, location and backtrace.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::panic::PanicHookInfo;
use std::sync::Arc;

use farpool_link::Memory;
use farpool_link::fork::Owned;
use farpool_proto::v1::{Failure, FailureKind};

thread_local! {
    /// The last panic that the hook saw on this thread.
    static LAST: RefCell<Option<Seen>> = const { RefCell::new(None) };
    /// The memory to leave a note in; only set on threads that run tasks.
    static NOTES: RefCell<Option<Owned<Arc<Memory>>>> = const { RefCell::new(None) };
}

struct Seen {
    message: String,
    backtrace: String,
}

/// Replaces the panic hook: a task's panic goes into its item's error and is not printed. All others are printed as
/// before.
pub(crate) fn install() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let notes = NOTES.try_with(|notes| notes.borrow().clone()).ok().flatten();
        match notes {
            // A process that a task has forked has no item that could fail.
            Some(memory) if memory.owner().is_here() => record(info, &memory),
            _ => before(info),
        }
    }));
}

/// Marks this thread as running tasks.
pub(crate) fn this_thread_runs_tasks(memory: Arc<Memory>) {
    NOTES.with(|notes| *notes.borrow_mut() = Some(Owned::new(memory)));
}

/// Returns the failure for the panic that was just caught on this thread.
pub(crate) fn failure(payload: Box<dyn Any + Send>) -> Failure {
    let seen = LAST.with(|last| last.borrow_mut().take());
    NOTES.with(|notes| {
        if let Some(memory) = notes.borrow().as_ref() {
            memory.status().leave_note("");
        }
    });
    // If the hook saw nothing, the panic was resumed (`resume_unwind`), or the task has set a hook of its own.
    let seen = seen
        .unwrap_or_else(|| Seen { message: format!("panicked: {}", text(payload.as_ref())), backtrace: String::new() });
    // The payload's own Drop may panic as well; it must not take the worker down.
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(payload))).is_err() {
        LAST.with(|last| *last.borrow_mut() = None);
    }
    Failure {
        kind: FailureKind::Panicked.into(),
        message: seen.message,
        backtrace: seen.backtrace,
        ..Failure::default()
    }
}

fn record(info: &PanicHookInfo<'_>, memory: &Memory) {
    let place = info.location().map_or_else(String::new, |place| format!(" at {place}"));
    let message = format!("panicked{place}: {}", text(info.payload()));
    // The process may not survive this panic (`panic = "abort"`, a panic while panicking). Then only the note remains.
    memory.status().leave_note(&message);
    // As usual, RUST_BACKTRACE says whether there is one.
    let backtrace = Backtrace::capture();
    let backtrace = if backtrace.status() == BacktraceStatus::Captured { backtrace.to_string() } else { String::new() };
    LAST.with(|last| *last.borrow_mut() = Some(Seen { message, backtrace }));
}

fn text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a payload that is not text")
}
