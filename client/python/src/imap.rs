//! Results one by one: `imap` and `imap_unordered`.
//!
//! A thread pulls the input, a bounded number of items ahead of the consumer. When the consumer is gone, or the pool is being closed,
//! the rest of the input runs without that bound: in multiprocessing, too, the whole input runs. But an input of unknown length may be
//! endless: if its consumer has taken some results and is gone, the rest is not pulled.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use farpool_proto::v1::EndItems;
use farpool_proto::v1::client_message::Body;
use farpool_session::fork::Owned;
use farpool_session::{Call, Delivery, Error, Inbox, Results, Session, check_items_exist};
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::PyType;

use crate::background;
use crate::collector::{decode, ended_early, failure};
use crate::errors;
use crate::feeder::{Faults, Feeder};
use crate::waiting::{SLICE, deadline};

/// How many items the input may be ahead for each slot: workers get about this many tiny items at once.
const ITEMS_A_SLOT: u64 = 512;
/// How many chunks the input may be ahead for each slot.
const CHUNKS_A_SLOT: u64 = 4;
/// How often the feeding thread checks whether the pool is being closed.
const LOOK: Duration = Duration::from_millis(100);

/// An iterator over results.
#[pyclass(frozen, module = "farpool")]
pub(crate) struct IMapIterator {
    shared: Arc<Shared>,
    state: Mutex<State>,
}

/// What the feeding thread shares with the consumer. It has no reference to the pool, so that the pool can be collected.
struct Shared {
    session: Session,
    inbox: Owned<Arc<Inbox>>,
    faults: Faults,
    /// How many results the consumer has taken.
    taken: AtomicU64,
    /// How many items the input may be ahead.
    most_ahead: u64,
    /// The consumer is gone.
    abandoned: AtomicBool,
    /// Whether the input's length is known, so that it ends.
    sized: bool,
    /// The pool is being closed.
    closing: Arc<AtomicBool>,
    feeding: OnceLock<Thread>,
    /// Cancels the job when it is dropped early.
    call: Mutex<Call>,
}

/// The consumer's side.
struct State {
    /// The index of the next result, if they come in order.
    next: Option<u64>,
    current: Option<Entry>,
    arrived: BTreeMap<u64, Entry>,
    /// Nothing more arrives.
    ended: bool,
    /// The iteration is over.
    over: bool,
    /// Kept until the iteration is over, so that the pool stays open.
    pool: Option<Py<PyAny>>,
}

/// Outcomes of consecutive items.
enum Entry {
    Done(Results),
    Failed { next: u64, end: u64, error: Error },
}

/// The options of an iteration.
pub(crate) struct Beginning {
    pub(crate) ordered: bool,
    /// How many items the input may be ahead of the consumer.
    pub(crate) buffersize: Option<u64>,
    pub(crate) chunksize: u64,
    /// Whether the input's length is known.
    pub(crate) sized: bool,
    pub(crate) closing: Arc<AtomicBool>,
    pub(crate) pool: Py<PyAny>,
}

/// Starts the job and the thread that feeds it.
pub(crate) fn start(py: Python<'_>, mut call: Call, feeder: Feeder, beginning: Beginning) -> PyResult<IMapIterator> {
    let Beginning { ordered, buffersize, chunksize, sized, closing, pool } = beginning;
    let slots = u64::from(call.session.slots().max(1));
    let most_ahead = buffersize.unwrap_or_else(|| {
        slots.saturating_mul(ITEMS_A_SLOT).max(slots.saturating_mul(CHUNKS_A_SLOT).saturating_mul(chunksize))
    });
    crate::map::flush(py, &mut call)?;
    let shared = Arc::new(Shared {
        session: call.session.clone(),
        inbox: Owned::of(call.session.owner(), Arc::clone(&*call.inbox)),
        faults: Faults::default(),
        taken: AtomicU64::new(0),
        most_ahead,
        abandoned: AtomicBool::new(false),
        sized,
        closing,
        feeding: OnceLock::new(),
        call: Mutex::new(call),
    });
    let feeding = Arc::clone(&shared);
    let builder = thread::Builder::new().name("farpool-feeder".to_owned()).stack_size(farpool_session::STACK);
    let thread = builder.spawn(move || feeding.feed(feeder.on_its_own()))?;
    let _ = shared.feeding.set(thread.thread().clone());
    let state = State {
        next: ordered.then_some(0),
        current: None,
        arrived: BTreeMap::new(),
        ended: false,
        over: false,
        pool: Some(pool),
    };
    Ok(IMapIterator { shared, state: Mutex::new(state) })
}

/// The feeding thread's side.
impl Shared {
    fn feed(&self, mut feeder: Feeder) {
        while !feeder.exhausted() && !self.inbox.ended() {
            if self.is_over() {
                let mut call = self.call.lock().unwrap_or_else(PoisonError::into_inner);
                call.messages.push(Body::EndItems(EndItems { job: self.inbox.job() }));
                // It fails only if the session has ended, which ends the job.
                let _ = call.flush();
                break;
            }
            let room = self.room(&feeder);
            if room == 0 || !self.inbox.has_room(feeder.room(0)) {
                self.inbox.unpark_for_room(feeder.room(0));
                // A later change unparks this thread, and an earlier one is visible here.
                if self.room(&feeder) == 0 || !self.inbox.has_room(feeder.room(0)) {
                    thread::park_timeout(LOOK);
                }
                continue;
            }
            let mut messages = Vec::new();
            let fed = background::attach(|py| feeder.feed(py, room, &self.inbox, &self.faults, &mut messages));
            // The feeder records the exceptions of its input. `None`: the interpreter is shutting down.
            if !matches!(fed, Some(Ok(()))) {
                return;
            }
            let mut call = self.call.lock().unwrap_or_else(PoisonError::into_inner);
            call.messages.append(&mut messages);
            if let Err(error) = call.flush() {
                call.cancel();
                self.inbox.break_with(error);
                return;
            }
        }
        self.call.lock().unwrap_or_else(PoisonError::into_inner).settle();
        // Release the input now, not when this process attaches next.
        background::attach(|_| drop(feeder));
    }

    /// Returns whether nobody wants the rest of the input.
    fn is_over(&self) -> bool {
        self.abandoned.load(Ordering::SeqCst) && !self.sized && self.taken.load(Ordering::SeqCst) > 0
    }

    /// Returns how many items may be pulled now. It is 0 until there is room for many: otherwise each would wake this thread.
    fn room(&self, feeder: &Feeder) -> u64 {
        if self.abandoned.load(Ordering::SeqCst) || self.closing.load(Ordering::SeqCst) {
            return u64::MAX;
        }
        let ahead = feeder.pulled().saturating_sub(self.taken.load(Ordering::SeqCst));
        let room = self.most_ahead.saturating_sub(ahead);
        if room >= (self.most_ahead / 4).max(1) { room } else { 0 }
    }

    fn note_taken(&self) {
        self.taken.fetch_add(1, Ordering::SeqCst);
        let due = self.taken.load(Ordering::Relaxed).is_multiple_of((self.most_ahead / 4).max(1));
        if let Some(thread) = self.feeding.get().filter(|_| due) {
            thread.unpark();
        }
    }
}

impl IMapIterator {
    /// Returns the next result, or the exception in its place. `None`: the deadline has passed; `Some(None)`: there are no more.
    fn take(&self, py: Python<'_>, deadline: Option<Instant>) -> PyResult<Option<Option<Py<PyAny>>>> {
        let shared = &self.shared;
        shared.session.here().map_err(|error| errors::to_python(py, &error))?;
        loop {
            {
                let mut state = self.state.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
                if let Some(next) = state.next(py, shared) {
                    if matches!(next, Ok(Some(_)) | Err(_)) {
                        shared.note_taken();
                    }
                    return next.map(Some);
                }
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Ok(None);
            }
            let until = deadline.map_or(now + SLICE, |deadline| deadline.min(now + SLICE));
            py.detach(|| shared.session.wait(&shared.inbox, Some(until)));
            py.check_signals()?;
        }
    }
}

impl State {
    /// Returns the next result if it has arrived; `Some(Ok(None))` after the last one.
    fn next(&mut self, py: Python<'_>, shared: &Shared) -> Option<PyResult<Option<Py<PyAny>>>> {
        loop {
            if self.over {
                return Some(Ok(None));
            }
            if self.next.is_some_and(|next| shared.faults.cut().is_some_and(|cut| next >= cut)) {
                return Some(self.end(py, shared));
            }
            if self.current.is_none() && !self.find_current() {
                if self.ended {
                    return Some(self.end(py, shared));
                }
                if !shared.inbox.has_arrivals() {
                    return None;
                }
                if let Err(error) = self.take(py, shared) {
                    return Some(Err(error));
                }
                continue;
            }
            match self.outcome(py, shared) {
                Some(Ok((item, outcome))) => {
                    if shared.faults.cut().is_some_and(|cut| item >= cut) {
                        continue;
                    }
                    if let Some(next) = &mut self.next {
                        *next += 1;
                    }
                    return Some(outcome.map(Some).map_err(|error| not_the_end(py, error)));
                }
                Some(Err(error)) => return Some(Err(error)),
                None => self.current = None,
            }
        }
    }

    /// Makes the next entry the current one. Returns whether it has arrived.
    fn find_current(&mut self) -> bool {
        let Some(first) = self.arrived.first_entry() else { return false };
        if self.next.is_none_or(|next| *first.key() == next) {
            self.current = Some(first.remove());
        }
        self.current.is_some()
    }

    /// Takes all outcomes that have arrived.
    fn take(&mut self, py: Python<'_>, shared: &Shared) -> PyResult<()> {
        let inbox = &shared.inbox;
        let lies = |error: Error| errors::to_python(py, &inbox.add_context(error));
        let mut deliveries = VecDeque::new();
        self.ended |= inbox.take(&mut deliveries);
        for delivery in deliveries {
            let (first, entry) = match delivery {
                Delivery::Done { first, data, ends, attempts: _, held } => {
                    let results = Results::new(first, data, ends, inbox.pulled()).map_err(lies)?;
                    (first, Entry::Done(results.holding(held)))
                }
                Delivery::Failed { first, count, error, held: _ } => {
                    check_items_exist(first, count, inbox.pulled()).map_err(lies)?;
                    (first, Entry::Failed { next: first, end: first + count, error })
                }
            };
            self.arrived.insert(first, entry);
        }
        Ok(())
    }

    /// Returns the next outcome of the current entry, with its index.
    fn outcome(&mut self, py: Python<'_>, shared: &Shared) -> Option<PyResult<(u64, PyResult<Py<PyAny>>)>> {
        match self.current.as_mut()? {
            Entry::Done(results) => Some(match results.next()? {
                Ok((item, bytes)) => match decode(py, bytes) {
                    Ok(outcome) => Ok((item, outcome)),
                    Err(interrupted) => {
                        // It stays the next one.
                        results.step_back();
                        Err(interrupted)
                    }
                },
                Err(error) => Err(errors::to_python(py, &shared.inbox.add_context(error))),
            }),
            Entry::Failed { next, end, error } => {
                let item = *next;
                if item == *end {
                    return None;
                }
                let failure = failure(py, item, error.clone(), &shared.inbox, &shared.faults);
                Some(failure.map(|failure| {
                    *next += 1;
                    (item, Err(failure))
                }))
            }
        }
    }

    /// Ends the iteration. If an exception ended it, that is raised once.
    fn end(&mut self, py: Python<'_>, shared: &Shared) -> PyResult<Option<Py<PyAny>>> {
        self.over = true;
        self.arrived.clear();
        self.current = None;
        self.pool = None;
        if let Some((_, error)) = shared.faults.take_input() {
            return Err(error);
        }
        if shared.inbox.end_error().is_some() { Err(ended_early(py, &shared.inbox)) } else { Ok(None) }
    }
}

/// Replaces a task's StopIteration, which would look like the end of the results.
pub(crate) fn not_the_end(py: Python<'_>, error: PyErr) -> PyErr {
    if !error.is_instance_of::<PyStopIteration>(py) {
        return error;
    }
    let instead = PyRuntimeError::new_err("the task raised StopIteration");
    instead.set_cause(py, Some(error));
    instead
}

impl Drop for IMapIterator {
    fn drop(&mut self) {
        let shared = &self.shared;
        if shared.session.owner().is_here() {
            shared.abandoned.store(true, Ordering::SeqCst);
            shared.inbox.discard();
            if let Some(thread) = shared.feeding.get() {
                thread.unpark();
            }
        }
    }
}

#[pymethods]
impl IMapIterator {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        Ok(self.take(py, None)?.flatten())
    }

    /// Returns the next result. Raises `multiprocessing.TimeoutError` if none arrives within `timeout` seconds, and `StopIteration`
    /// after the last one.
    #[pyo3(signature = (timeout=None))]
    fn next(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        match self.take(py, deadline(timeout))? {
            Some(Some(value)) => Ok(value),
            Some(None) => Err(PyStopIteration::new_err(())),
            None => Err(errors::timeout(py)),
        }
    }

    #[getter]
    fn _job(&self) -> u64 {
        self.shared.inbox.job()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // The collector may run while this thread has the lock. What is not visited is not collected.
        self.state.try_lock().map_or(Ok(()), |state| visit.call(&state.pool))
    }

    fn __clear__(&self) {
        let pool = self.state.try_lock().ok().and_then(|mut state| state.pool.take());
        // Dropped without the lock: this may run any code.
        drop(pool);
    }

    #[classmethod]
    fn __class_getitem__<'py>(class: &Bound<'py, PyType>, item: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        crate::generic_alias(class, item)
    }
}
