//! Handles of jobs that run in the background.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use farpool_session::fork::Owned;
use farpool_session::{Call, Delivery, ErrorKind, Inbox, Session};
use pyo3::exceptions::{PyBaseException, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyList, PyType};

use crate::background;
use crate::callbacks::{self, Pending};
use crate::collector::{Collector, ended_early};
use crate::errors;
use crate::feeder::{Faults, Feeder};
use crate::map::flush;
use crate::waiting::{deadline, wait_until};

/// How long a non-blocking call feeds its input before it leaves the rest to a thread.
const INLINE: Duration = Duration::from_millis(20);

/// The outcome of `apply_async`, `map_async` or `starmap_async`.
#[pyclass(frozen, module = "farpool")]
pub(crate) struct AsyncResult(Arc<Job>);

struct Job {
    session: Session,
    inbox: Owned<Arc<Inbox>>,
    faults: Faults,
    /// Whether the outcome is the result of the only item, not a list.
    single: bool,
    outcome: Mutex<Option<Outcome>>,
    undecoded: Mutex<Undecoded>,
    callbacks: Option<Callbacks>,
    /// Kept until the job has ended, so that its pool stays open.
    pool: Mutex<Option<Py<PyAny>>>,
}

/// Outcomes that have arrived, and what was decoded of them before this thread was interrupted.
#[derive(Default)]
struct Undecoded {
    deliveries: VecDeque<Delivery>,
    collector: Collector,
}

/// The value, or the exception.
type Outcome = Result<Py<PyAny>, Py<PyBaseException>>;

type Callback = Option<Py<PyAny>>;

struct Callbacks {
    /// Those for success and failure, until they are called.
    calls: Mutex<(Callback, Callback)>,
    progress: Mutex<Progress>,
    changed: Condvar,
    pending: Arc<Pending>,
}

/// How far the callbacks of a job are.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Progress {
    #[default]
    Pending,
    Running,
    Done,
}

/// What a job keeps until its end, and calls then.
pub(crate) struct Ending {
    /// The pool, which stays open until then.
    pub(crate) pool: Py<PyAny>,
    /// Called with the result.
    pub(crate) success: Option<Py<PyAny>>,
    /// Called with the exception.
    pub(crate) failure: Option<Py<PyAny>>,
    /// Whether items log to this process. Then their outcomes are decoded even if the program never asks for the result.
    pub(crate) logging: bool,
    /// Of the pool.
    pub(crate) pending: Arc<Pending>,
}

/// Starts a job. Returns when its input is encoded, or when a thread encodes the rest.
pub(crate) fn start(
    py: Python<'_>,
    mut call: Call,
    mut feeder: Feeder,
    single: bool,
    ending: Ending,
) -> PyResult<AsyncResult> {
    let Ending { pool, success, failure, logging, pending } = ending;
    let callbacks = (success.is_some() || failure.is_some() || logging).then(|| Callbacks {
        calls: Mutex::new((success, failure)),
        progress: Mutex::default(),
        changed: Condvar::new(),
        pending,
    });
    let job = Arc::new(Job {
        session: call.session.clone(),
        inbox: Owned::of(call.session.owner(), Arc::clone(&*call.inbox)),
        faults: Faults::default(),
        single,
        outcome: Mutex::default(),
        undecoded: Mutex::default(),
        callbacks,
        pool: Mutex::new(Some(pool)),
    });
    if job.callbacks.is_some() {
        callbacks::start()?;
    }
    let until = Instant::now() + INLINE;
    while !feeder.exhausted() && call.inbox.has_room(feeder.room(0)) && Instant::now() < until {
        feeder.feed(py, u64::MAX, &call.inbox, &job.faults, &mut call.messages)?;
        match single {
            true => py.detach(|| call.flush_soon()).map_err(|error| errors::to_python(py, &error))?,
            false => flush(py, &mut call)?,
        }
    }
    if let Some(callbacks) = &job.callbacks {
        callbacks.pending.add();
        let told = Arc::clone(&job);
        job.inbox.at_end(Box::new(move || callbacks::schedule(Box::new(move |py| told.call_back(py)))));
    }
    if feeder.exhausted() {
        call.settle();
    } else {
        let feeding = Arc::clone(&job);
        let builder = thread::Builder::new().name("farpool-feeder".to_owned()).stack_size(farpool_session::STACK);
        builder.spawn(move || feed(&feeding, call, feeder.on_its_own()))?;
    }
    Ok(AsyncResult(job))
}

/// Feeds the rest of a job's input.
fn feed(job: &Job, mut call: Call, mut feeder: Feeder) {
    while !feeder.exhausted() {
        call.inbox.park_until_room(feeder.room(0));
        if call.inbox.ended() {
            break;
        }
        let fed = background::attach(|py| feeder.feed(py, u64::MAX, &call.inbox, &job.faults, &mut call.messages));
        // The feeder records the exceptions of its input. `None`: the interpreter is shutting down.
        if !matches!(fed, Some(Ok(()))) {
            return;
        }
        if let Err(error) = call.flush() {
            call.cancel();
            call.inbox.break_with(error);
            return;
        }
    }
    call.settle();
    // Release the input now, not when this process attaches next.
    background::attach(|_| drop(feeder));
}

impl Job {
    /// Returns the outcome of a job that has ended.
    ///
    /// # Errors
    /// The exception that interrupts this thread meanwhile, if any. The outcome is not lost.
    fn settle(&self, py: Python<'_>) -> PyResult<Outcome> {
        if let Some(outcome) = self.known_outcome(py) {
            return Ok(outcome);
        }
        let mut undecoded = self.undecoded.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = self.known_outcome(py) {
            return Ok(outcome);
        }
        let Undecoded { deliveries, collector } = &mut *undecoded;
        if deliveries.is_empty() {
            self.inbox.take(deliveries);
        }
        let mut broken = None;
        while let Some(next) = deliveries.front() {
            match collector.accept(py, next, &self.inbox, &self.faults) {
                Err(error) if errors::interrupts(py, &error) => return Err(error),
                Err(error) => broken = broken.or(Some(error)),
                Ok(()) => {}
            }
            deliveries.pop_front();
        }
        let collector = std::mem::take(collector);
        let finished = match broken {
            Some(error) => Err(error),
            None => self.finish(py, collector),
        };
        let outcome = finished.map_err(|error| error.into_value(py));
        let pool = lock(&self.pool).take();
        drop(pool);
        *lock(&self.outcome) = Some(cloned(py, &outcome));
        Ok(outcome)
    }

    fn known_outcome(&self, py: Python<'_>) -> Option<Outcome> {
        lock(&self.outcome).as_ref().map(|outcome| cloned(py, outcome))
    }

    fn finish(&self, py: Python<'_>, collector: Collector) -> PyResult<Py<PyAny>> {
        if self.inbox.end_error().is_some() {
            return Err(ended_early(py, &self.inbox));
        }
        let mut values = collector.finish(py, &self.inbox, &self.faults)?;
        if !self.single {
            return Ok(PyList::new(py, values)?.into_any().unbind());
        }
        values.pop().ok_or_else(|| ended_early(py, &self.inbox))
    }

    fn call_back(&self, py: Python<'_>) {
        let Some(callbacks) = &self.callbacks else { return };
        callbacks.set(Progress::Running);
        let outcome = self.settle(py);
        let (success, failure) = std::mem::take(&mut *lock(&callbacks.calls));
        // As in multiprocessing, terminating a pool calls no callbacks.
        let ended_early = self.inbox.end_error().is_some_and(|error| error.kind() == ErrorKind::Cancelled);
        let failure = failure.filter(|_| !(ended_early && callbacks.pending.is_terminated()));
        let (callback, called) = match outcome {
            Ok(Ok(value)) => call_with(py, success, &value),
            Ok(Err(error)) => call_with(py, failure, error.as_any()),
            // Nothing interrupts this thread.
            Err(error) => (None, Err(error)),
        };
        if let Err(error) = called {
            error.write_unraisable(py, callback.as_ref().map(|callback| callback.bind(py)));
        }
        callbacks.set(Progress::Done);
        callbacks.pending.remove();
    }

    fn is_ready(&self) -> bool {
        match &self.callbacks {
            None => self.inbox.ended(),
            Some(callbacks) => match callbacks.progress() {
                Progress::Pending => false,
                // A callback that waits for its own job would wait forever. Its result is known.
                Progress::Running => callbacks::on_their_thread(),
                Progress::Done => true,
            },
        }
    }

    /// Waits until the job has ended and its callbacks have run; returns whether they have.
    fn wait(&self, py: Python<'_>, deadline: Option<Instant>) -> PyResult<bool> {
        self.session.here().map_err(|error| errors::to_python(py, &error))?;
        let ended = |until| {
            if !self.inbox.ended() {
                self.session.wait(&self.inbox, Some(until));
            }
            self.inbox.ended()
        };
        if !self.inbox.ended() && !wait_until(py, deadline, ended)? {
            return Ok(false);
        }
        let Some(callbacks) = &self.callbacks else { return Ok(true) };
        let have_run = |until: Instant| {
            let progress = callbacks.progress.lock().unwrap_or_else(PoisonError::into_inner);
            let left = until.saturating_duration_since(Instant::now());
            let waits = |progress: &mut Progress| *progress != Progress::Done;
            let (progress, _) =
                callbacks.changed.wait_timeout_while(progress, left, waits).unwrap_or_else(PoisonError::into_inner);
            *progress == Progress::Done
        };
        while !self.is_ready() {
            // On the callbacks' thread, a callback that waits for others must run them itself.
            if !callbacks::help(py) {
                return wait_until(py, deadline, have_run);
            }
            if !self.is_ready() && deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Callbacks {
    fn progress(&self) -> Progress {
        *lock(&self.progress)
    }

    fn set(&self, progress: Progress) {
        *lock(&self.progress) = progress;
        self.changed.notify_all();
    }
}

/// Calls a callback, if there is one. Returns it, and what it has raised.
fn call_with(py: Python<'_>, callback: Callback, argument: &Py<PyAny>) -> (Callback, PyResult<()>) {
    let called =
        callback.as_ref().map(|callback| background::call(callback.bind(py), &[argument.bind(py)], None).map(drop));
    (callback, called.unwrap_or(Ok(())))
}

fn cloned(py: Python<'_>, outcome: &Outcome) -> Outcome {
    match outcome {
        Ok(value) => Ok(value.clone_ref(py)),
        Err(error) => Err(error.clone_ref(py)),
    }
}

// Held only briefly, and never while Python code runs.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[pymethods]
impl AsyncResult {
    /// Returns the result, or raises the exception of the failed item with the lowest index. You can call it again.
    /// Raises `multiprocessing.TimeoutError` if the job has not ended after `timeout` seconds.
    #[pyo3(signature = (timeout=None))]
    fn get(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        if !self.0.wait(py, deadline(timeout))? {
            return Err(errors::timeout(py));
        }
        self.0.settle(py)?.map_err(|error| PyErr::from_value(error.into_bound(py).into_any()))
    }

    /// Waits until the job has ended and its callback has run, for at most `timeout` seconds.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        self.0.wait(py, deadline(timeout)).map(|_| ())
    }

    /// Returns whether the job has ended and its callback has run.
    fn ready(&self) -> bool {
        let ready = self.0.session.here().is_err() || self.0.is_ready();
        if !ready {
            self.0.inbox.knock();
        }
        ready
    }

    /// Returns whether the job succeeded. Raises `ValueError` if it has not ended.
    fn successful(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let (py, job) = (slf.py(), &slf.get().0);
        if !job.is_ready() {
            return Err(PyValueError::new_err(format!("{} not ready", slf.repr()?)));
        }
        Ok(job.settle(py)?.is_ok())
    }

    /// Cancels the job: its running items are killed, and `get` raises `farpool.Cancelled` unless the job has already ended.
    fn cancel(&self, py: Python<'_>) {
        py.detach(|| farpool_session::cancel(&self.0.session, &self.0.inbox));
    }

    #[getter]
    fn _job(&self) -> u64 {
        self.0.inbox.job()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if Arc::strong_count(&self.0) > 1 {
            // The job runs. What it refers to will be used, and must not be collected.
            return Ok(());
        }
        // The collector may run while this thread has a lock. What is not visited is not collected.
        if let Ok(pool) = self.0.pool.try_lock() {
            visit.call(&*pool)?;
        }
        match self.0.outcome.try_lock().as_deref() {
            Ok(Some(Ok(value))) => visit.call(value),
            Ok(Some(Err(error))) => visit.call(error),
            _ => Ok(()),
        }
    }

    fn __clear__(&self) {
        let pool = self.0.pool.try_lock().ok().and_then(|mut pool| pool.take());
        let outcome = self.0.outcome.try_lock().ok().and_then(|mut outcome| outcome.take());
        // Dropped without the locks: this may run any code.
        drop((pool, outcome));
    }

    #[classmethod]
    fn __class_getitem__<'py>(class: &Bound<'py, PyType>, item: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        crate::generic_alias(class, item)
    }
}
