//! Fork servers and workers: the interpreter, running functions that `farpool._worker` loads.

#![expect(unsafe_code, reason = "tells the interpreter about forks that it did not make; argued at each block")]

use std::cell::Cell;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use farpool_proto::v1::{Failure, FailureKind};
use farpool_worker::{Done, Encoded, Items, Language};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::OnceLockExt;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::codec::{self, Decoded, Encoder};
use crate::common::{self, Packed};

/// Serves a pool, if this process was started for one, and does not return. Otherwise returns.
#[pyfunction]
pub(crate) fn serve(py: Python<'_>) {
    py.detach(|| farpool_worker::init(&PythonFunctions));
}

/// Returns the number of this worker, from 0, by which a task can choose a device, a port or a folder. No other worker of the same
/// agent has the same number at the same time. Numbers are as small as possible, but may be larger than the number of slots while
/// workers wait for other pools or exit. None in the client. Workers of pools on this machine have numbers within their pool.
#[pyfunction]
pub(crate) fn slot() -> Option<u32> {
    farpool_worker::slot()
}

/// Finds Python functions: the arguments that the items have in common, if there are any, a letter for how the function is called, and
/// its bytes from `farpool._functions.dump`.
struct PythonFunctions;

/// How a function is called with a decoded item.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// The item is the only argument.
    One,
    /// The item is an iterable of the arguments.
    Several,
    /// The item is a tuple of the positional and the keyword arguments.
    Named,
    /// As `Several`, but for an initializer, which has no result.
    Initializer,
}

thread_local! {
    /// The state to which [`release`] returns this thread after a fork.
    static BEFORE_FORK: Cell<Option<ffi::PyGILState_STATE>> = const { Cell::new(None) };
}

impl Language for PythonFunctions {
    fn find(&self, function: Bytes) -> Result<farpool_worker::Task, String> {
        let (common, function) = common::take_from(function)?;
        let letter = function.first().ok_or("it has no bytes")?;
        let how = match letter {
            b'1' => How::One,
            b'*' => How::Several,
            b'k' => How::Named,
            b'i' => How::Initializer,
            _ => return Err(format!("its first byte is {letter}")),
        };
        let function = Function { common, packed: Mutex::new(function.slice(1..)), loaded: OnceLock::new() };
        Ok(Arc::new(move |items| Python::attach(|py| run(py, items, how, &function))))
    }

    fn advice_on_large_results(&self) -> Option<&'static str> {
        // The limit cannot be raised, and `errors.rs` gives the other advice.
        None
    }

    fn before_fork(&self) {
        // SAFETY: this thread is not attached: `serve` has detached it. The interpreter is initialised.
        let state = unsafe { ffi::PyGILState_Ensure() };
        BEFORE_FORK.set(Some(state));
        call_worker(|py| py.import("farpool._worker")?.call_method0("before_fork"));
        // SAFETY: this thread is attached, and forks next.
        unsafe { ffi::PyOS_BeforeFork() };
    }

    fn after_fork(&self) {
        // SAFETY: this thread was attached before the fork and still is.
        unsafe { ffi::PyOS_AfterFork_Parent() };
        release();
    }

    fn after_fork_in_worker(&self, worker: u32) {
        // SAFETY: this thread was attached before the fork, and is the only one of the child.
        unsafe { ffi::PyOS_AfterFork_Child() };
        begin(worker);
        release();
    }

    fn started_again(&self, worker: u32) {
        call_worker(|py| py.import("farpool._worker")?.call_method0("before_fork"));
        begin(worker);
    }
}

/// Prepares the worker with this number.
fn begin(worker: u32) {
    call_worker(|py| py.import("farpool._worker")?.call_method1("begin", (worker,)));
    // SAFETY: the function has the signature that atexit(3) asks for, and lives as long as the process.
    unsafe { libc::atexit(at_exit) };
}

/// Detaches this thread as it was before the fork.
fn release() {
    if let Some(state) = BEFORE_FORK.take() {
        // SAFETY: it is what PyGILState_Ensure has returned to this thread.
        unsafe { ffi::PyGILState_Release(state) };
    }
}

/// Runs Python's exit handlers when a worker exits at its agent's request.
extern "C" fn at_exit() {
    call_worker(|py| py.import("farpool._worker")?.call_method0("end"));
}

/// Calls into the package. Exceptions are printed.
fn call_worker(call: impl for<'py> Fn(Python<'py>) -> PyResult<Bound<'py, PyAny>>) {
    Python::try_attach(|py| {
        if let Err(error) = call(py) {
            error.print(py);
        }
    });
}

/// A function, which is loaded when its first item runs. Loading may import modules for many seconds. The agent must see the worker
/// run an item in that time, or the worker counts as stuck.
struct Function {
    common: Option<Packed>,
    /// Empty once it is loaded.
    packed: Mutex<Bytes>,
    loaded: OnceLock<Result<Loaded, Described>>,
}

struct Loaded {
    function: Py<PyAny>,
    /// Sets the globals that travel with it, if there are any.
    globals: Option<Py<PyAny>>,
}

impl Drop for Function {
    /// Frees what it refers to at once. Otherwise this process would keep it until it attaches next, for the next item.
    fn drop(&mut self) {
        Python::try_attach(|_| drop((self.common.take(), self.loaded.take())));
    }
}

impl Function {
    fn get(&self, py: Python<'_>) -> &Result<Loaded, Described> {
        self.loaded.get_or_init_py_attached(py, || self.load(py).map_err(|error| describe(py, error)))
    }

    fn load(&self, py: Python<'_>) -> PyResult<Loaded> {
        let worker = py.import(intern!(py, "farpool._worker"))?;
        let packed = std::mem::take(&mut *self.packed.lock().unwrap_or_else(PoisonError::into_inner));
        let loaded = worker.call_method1(intern!(py, "load"), (PyBytes::new(py, &packed),))?;
        let (function, globals) = loaded.extract()?;
        let loaded = Loaded { function, globals };
        loaded.set_globals(py)?;
        Ok(loaded)
    }

    /// Sets its globals, if it is loaded: functions of other calls may have run since.
    fn resume(&self, py: Python<'_>) {
        if let Some(Ok(loaded)) = self.loaded.get()
            && let Err(error) = loaded.set_globals(py)
        {
            error.print(py);
        }
    }
}

impl Loaded {
    fn set_globals(&self, py: Python<'_>) -> PyResult<()> {
        match &self.globals {
            Some(globals) => globals.call_method0(py, intern!(py, "set")).map(drop),
            None => Ok(()),
        }
    }
}

/// A described exception. Its text and traceback are for initializers.
#[derive(Clone)]
struct Described {
    description: Vec<u8>,
    text: String,
    traceback: String,
}

fn describe(py: Python<'_>, error: PyErr) -> Described {
    // This puts the traceback into the exception.
    let error = error.into_value(py);
    described(py, |worker| worker.call_method1(intern!(py, "describe"), (error,)))
}

/// Describes that a result cannot be pickled.
fn describe_unsendable(py: Python<'_>, error: &PyErr, result: &Bound<'_, PyAny>) -> Described {
    described(py, |worker| worker.call_method1(intern!(py, "describe_unsendable"), (error.value(py), result)))
}

fn described<'py>(
    py: Python<'py>,
    make: impl FnOnce(Bound<'py, PyModule>) -> PyResult<Bound<'py, PyAny>>,
) -> Described {
    let made = py.import(intern!(py, "farpool._worker")).and_then(make).and_then(|made| made.extract());
    let (description, text, traceback) = made.unwrap_or_else(|error: PyErr| {
        // The client shows a description that is no pickle as text.
        let text = format!("an exception could not be described: {error}");
        (text.clone().into_bytes(), text, String::new())
    });
    Described { description, text, traceback }
}

fn run(py: Python<'_>, items: &mut dyn Items, how: How, function: &Function) {
    let mut runner = match Runner::new(py, how, function) {
        Ok(runner) => runner,
        Err(error) => return error.print(py),
    };
    function.resume(py);
    farpool_worker::run(items, |items| runner.next(items));
    call_worker(|py| py.import(intern!(py, "farpool._worker"))?.call_method0(intern!(py, "flush")));
}

/// Runs items of a function.
struct Runner<'a, 'py> {
    py: Python<'py>,
    how: How,
    function: &'a Function,
    encoder: Encoder,
    /// Takes what an item has logged, if that goes to the client.
    take_records: Option<Bound<'py, PyAny>>,
}

impl<'a, 'py> Runner<'a, 'py> {
    fn new(py: Python<'py>, how: How, function: &'a Function) -> PyResult<Self> {
        let encoder = Encoder::new(py, None, None)?;
        let take = py.import(intern!(py, "farpool._worker"))?.getattr(intern!(py, "take_records"))?;
        let take_records = Some(take).filter(|take| !take.is_none() && how != How::Initializer);
        Ok(Self { py, how, function, encoder, take_records })
    }

    /// Runs the next item; `None` if there is none.
    fn next(&mut self, items: &mut dyn Items) -> Option<Result<Done, Failure>> {
        let result = self.call(items.next()?);
        if self.how == How::Initializer {
            return Some(initialized(result));
        }
        let out = items.scratch();
        if let Some(records) = self.records() {
            codec::put_records(records.as_bytes(), out);
        }
        let result = result.and_then(|result| {
            let encoded = self.encoder.encode(&result, out);
            encoded.map_err(|error| describe_unsendable(self.py, &error, &result))
        });
        if let Err(described) = &result {
            codec::encode_raised(&described.description, out);
        }
        Some(Ok(Done { result: Encoded::InScratch, failed: result.is_err() }))
    }

    /// Calls the function with an item.
    fn call(&mut self, item: &[u8]) -> Result<Bound<'py, PyAny>, Described> {
        let py = self.py;
        let function = self.function.get(py).as_ref().map_err(Described::clone)?.function.bind(py);
        let argument = match (&self.function.common, codec::refers_to_common(item)) {
            (Some(packed), Some(item)) => packed
                .for_next_item(py, |bytes| decode_common(py, bytes))
                .and_then(|common| codec::decode_with_common(&common, item))
                .map(Decoded::Value),
            _ => codec::decode(py, item),
        };
        let result = argument.and_then(|argument| match argument {
            Decoded::Value(argument) => call(function, self.how, argument),
            Decoded::Raised(error) => Err(error),
        });
        result.map_err(|error| describe(py, error))
    }

    /// Returns what was logged since the previous item.
    fn records(&self) -> Option<Bound<'py, PyBytes>> {
        match self.take_records.as_ref()?.call0() {
            Ok(records) => records.cast_into().ok(),
            Err(error) => {
                error.print(self.py);
                None
            }
        }
    }
}

fn decode_common<'py>(py: Python<'py>, arguments: &[u8]) -> PyResult<Bound<'py, PyTuple>> {
    match codec::decode(py, arguments)? {
        Decoded::Value(arguments) => Ok(arguments.cast_into()?),
        Decoded::Raised(error) => Err(error),
    }
}

fn call<'py>(function: &Bound<'py, PyAny>, how: How, argument: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    match how {
        How::One => function.call1((argument,)),
        How::Several => function.call1(as_tuple(argument)?),
        How::Initializer => {
            let worker = function.py().import("farpool._worker")?;
            worker.call_method1("initialize", (function, as_tuple(argument)?))
        }
        How::Named => {
            let (arguments, named): (Bound<'py, PyAny>, Bound<'py, PyDict>) = argument.extract()?;
            function.call(as_tuple(arguments)?, Some(&named))
        }
    }
}

/// Makes a tuple of arguments, which may be any iterable.
fn as_tuple(arguments: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyTuple>> {
    match arguments.cast_into::<PyTuple>() {
        Ok(tuple) => Ok(tuple),
        Err(other) => {
            let arguments = other.into_inner();
            let values = arguments.try_iter()?.collect::<PyResult<Vec<_>>>()?;
            PyTuple::new(arguments.py(), values)
        }
    }
}

/// Returns the outcome of an initializer.
fn initialized(result: Result<Bound<'_, PyAny>, Described>) -> Result<Done, Failure> {
    match result {
        Ok(_) => Ok(Done { result: Encoded::InScratch, failed: false }),
        Err(described) => Err(Failure {
            kind: FailureKind::InitializerFailed.into(),
            message: format!("the initializer raised {}", described.text),
            backtrace: described.traceback,
            ..Failure::default()
        }),
    }
}
