//! Threads of this module that run Python code: those that read inputs, and the one that runs callbacks.
//!
//! Before 3.14, CPython ends a thread that asks for the interpreter (the GIL) while it shuts down, with `pthread_exit`. That unwinds
//! the stack through Rust's frames, which aborts the process. So before the interpreter shuts down, [`end`] waits for these threads
//! to detach. One that a user's code keeps for longer would be unwound: [`next`] and [`call`] stop it for good instead.

#![expect(unsafe_code, reason = "calls the interpreter's functions as ones that may unwind; argued at each block")]

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use farpool_session::fork::PerProcess;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator};

static THREADS: PerProcess<Threads> = PerProcess::new();

#[derive(Default)]
struct Threads {
    state: Mutex<State>,
    detached: Condvar,
}

#[derive(Default)]
struct State {
    attached: usize,
    /// The interpreter is about to shut down.
    ending: bool,
}

impl Threads {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Attaches a thread of this module, and runs something. `None`: the interpreter is shutting down, so the thread must end.
pub(crate) fn attach<R>(run: impl FnOnce(Python<'_>) -> R) -> Option<R> {
    let threads = THREADS.get();
    {
        let mut state = threads.state();
        if state.ending {
            return None;
        }
        state.attached += 1;
    }
    let _detach = Detach(threads);
    Python::try_attach(|py| {
        // If the thread is unwound outside of `next` and `call`, stop it before this attachment ends.
        let stop = Stop;
        let result = run(py);
        std::mem::forget(stop);
        result
    })
}

/// Notes that a thread has detached.
struct Detach(&'static Threads);

impl Drop for Detach {
    fn drop(&mut self) {
        self.0.state().attached -= 1;
        self.0.detached.notify_all();
    }
}

/// Returns whether the threads of this module must end.
pub(crate) fn is_ending() -> bool {
    THREADS.get().state().ending
}

/// Prevents threads of this module from attaching again, and waits until they have detached, but not longer than `patience`.
pub(crate) fn end(py: Python<'_>, patience: Duration) {
    py.detach(|| {
        let threads = THREADS.get();
        let mut state = threads.state();
        state.ending = true;
        let until = Instant::now() + patience;
        while state.attached > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = threads.detached.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    });
}

/// Stops a thread for good when it is unwound.
struct Stop;

impl Drop for Stop {
    fn drop(&mut self) {
        loop {
            thread::park();
        }
    }
}

mod raw {
    use pyo3::ffi::PyObject;

    // As in `pyo3::ffi`, but they may unwind. Otherwise the compiler could leave out the `Stop` of their callers.
    unsafe extern "C-unwind" {
        pub(super) fn PyIter_Next(iterator: *mut PyObject) -> *mut PyObject;
        pub(super) fn PyObject_VectorcallDict(
            callable: *mut PyObject,
            arguments: *const *mut PyObject,
            count: usize,
            named: *mut PyObject,
        ) -> *mut PyObject;
    }
}

/// Returns the next element of an input.
pub(crate) fn next<'py>(input: &Bound<'py, PyIterator>) -> Option<PyResult<Bound<'py, PyAny>>> {
    let py = input.py();
    let stop = Stop;
    // SAFETY: it is an iterator, and this thread is attached.
    let next = unsafe { raw::PyIter_Next(input.as_ptr()) };
    std::mem::forget(stop);
    if next.is_null() {
        return PyErr::take(py).map(Err);
    }
    // SAFETY: it is a new reference.
    Some(Ok(unsafe { Bound::from_owned_ptr(py, next) }))
}

/// Calls a callable that may run a user's code.
pub(crate) fn call<'py>(
    callable: &Bound<'py, PyAny>,
    arguments: &[&Bound<'py, PyAny>],
    named: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = callable.py();
    let pointers: [*mut ffi::PyObject; 2] =
        std::array::from_fn(|at| arguments.get(at).map_or(std::ptr::null_mut(), |argument| argument.as_ptr()));
    assert!(arguments.len() <= pointers.len(), "more arguments than any caller has");
    let named = named.map_or(std::ptr::null_mut(), Bound::as_ptr);
    let stop = Stop;
    // SAFETY: `pointers` begins with that many references, which live as long as the call; `named` is a dict or null. This thread is
    // attached.
    let result = unsafe { raw::PyObject_VectorcallDict(callable.as_ptr(), pointers.as_ptr(), arguments.len(), named) };
    std::mem::forget(stop);
    // SAFETY: it is a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, result) }
}
