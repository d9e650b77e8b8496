//! Converts errors to Python exceptions, with advice that names this package's arguments.

use farpool_session::{Error, ErrorKind, Remedy};
use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::callbacks;

/// Converts an error of the session, with all its details.
pub(crate) fn to_python(py: Python<'_>, error: &Error) -> PyErr {
    convert(py, error).map_or_else(|failed| failed, PyErr::from_value)
}

/// As `to_python`, but fails with the exception that interrupts this thread meanwhile, if any.
pub(crate) fn of_item(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    uninterrupted(py, convert(py, error))
}

/// Returns whether an exception interrupts the caller, as `KeyboardInterrupt` does: it comes from a signal. The call raises it,
/// instead of keeping it as the exception of an item.
pub(crate) fn interrupts(py: Python<'_>, error: &PyErr) -> bool {
    // Nothing interrupts the thread of callbacks.
    !error.is_instance_of::<PyException>(py) && !callbacks::on_their_thread()
}

/// Returns the exception that was made, or the one that making it raised. Fails if the latter interrupted this thread.
fn uninterrupted(py: Python<'_>, made: PyResult<Bound<'_, PyAny>>) -> PyResult<PyErr> {
    match made {
        Ok(made) => Ok(PyErr::from_value(made)),
        Err(failed) if interrupts(py, &failed) => Err(failed),
        Err(failed) => Ok(failed),
    }
}

fn convert<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
    // Where this package has no words for a remedy, the session's own are used.
    let advice = error.remedy().map_or_else(|| advice(error.kind()), argument);
    let facts = PyDict::new(py);
    facts.set_item("item", error.item())?;
    facts.set_item("host", error.host())?;
    facts.set_item("pid", error.pid())?;
    facts.set_item("attempts", error.attempts())?;
    facts.set_item("stderr", error.stderr())?;
    let story = error.story(advice).to_string();
    package(py)?.call_method1(intern!(py, "make"), (name(error.kind()), error.message(), story, facts))
}

/// Restores the exception of a task from its description by `farpool._worker.describe`.
pub(crate) fn raised(py: Python<'_>, description: &[u8]) -> PyResult<PyErr> {
    Ok(PyErr::from_value(package(py)?.call_method1(intern!(py, "restore"), (description,))?))
}

fn package(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import(intern!(py, "farpool._errors"))
}

fn name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::WorkerDied => "worker_died",
        ErrorKind::TimedOut => "timed_out",
        ErrorKind::AgentLost => "agent_lost",
        ErrorKind::Cancelled => "cancelled",
        ErrorKind::PayloadTooLarge => "payload_too_large",
        ErrorKind::Closed => "closed",
        ErrorKind::Unavailable => "unavailable",
        ErrorKind::InvalidArgument => "invalid_argument",
        ErrorKind::InitializerFailed => "initializer_failed",
        _ => "other",
    }
}

/// Returns advice that names the argument to pass.
fn argument(remedy: Remedy) -> Option<&'static str> {
    match remedy {
        Remedy::CheckAddress => Some(
            "is farpool-coordinator running there? the address comes from FARPOOL_ADDRESS, or from Pool(address=...)",
        ),
        Remedy::ReconnectLonger => Some("to allow more time, set FARPOOL_RECONNECT_TIMEOUT"),
        // Use the session's own advice.
        _ => None,
    }
}

/// Returns what to do next, for kinds whose messages do not say so.
fn advice(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::WorkerDied => Some("its last output may say why; retries= sets how often such an item is retried"),
        ErrorKind::TimedOut => Some("raise timeout= if items may take longer"),
        ErrorKind::AgentLost => Some("raise retries= if the item may run more often"),
        ErrorKind::PayloadTooLarge => Some("split it into smaller items or results"),
        ErrorKind::Closed => Some("open another pool"),
        ErrorKind::InitializerFailed => Some("fix the initializer and open another pool"),
        // The message says so.
        _ => None,
    }
}

/// Returns the exception for a result that cannot be unpickled. Fails with the exception that interrupts this thread
/// meanwhile, if any.
pub(crate) fn undecodable(py: Python<'_>, error: &PyErr) -> PyResult<PyErr> {
    let made = package(py).and_then(|package| package.call_method1(intern!(py, "undecodable"), (error.value(py),)));
    uninterrupted(py, made)
}

/// Returns a new `multiprocessing.TimeoutError`.
pub(crate) fn timeout(py: Python<'_>) -> PyErr {
    let made = || package(py)?.getattr(intern!(py, "TimeoutError"))?.call0();
    made().map_or_else(|failed| failed, PyErr::from_value)
}
