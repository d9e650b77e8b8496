//! Jobs that the coordinator of a cluster keeps: handed over by one process, read by any.

use std::sync::mpsc::{self, Receiver, SendError, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use farpool_proto::v1::{self, DetachedState, OpenJob};
use farpool_session::detached::{self, DetachSettings, JobLocation, JobReader, JobRef, JobSender, ReadEnd, Step};
use farpool_session::{Error, ErrorKind, ItemLimit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyIterator, PyList, PyType};

use crate::codec::Encoder;
use crate::collector::{decode, list};
use crate::errors;
use crate::imap::not_the_end;
use crate::waiting::{SLICE, interruptibly, receive};

/// The type of the results, as programs in other languages see it.
const RESULT: &str = "Python object";
/// The version of the results' encoding: `codec.rs`.
const FORMAT: u32 = 1;
/// The number of a detached job in its pool, where it is alone.
const JOB: u64 = 1;
/// A message of items has about this many bytes.
const FULL_BYTES: usize = 256 << 10;
/// How long an exception is held back until the coordinator has dropped the job. It may be away: then it drops the job later.
const WITHDRAW_TIMEOUT: Duration = Duration::from_secs(3);

/// A handle to a job that a coordinator keeps.
#[pyclass(frozen, module = "farpool")]
pub(crate) struct DetachedJob {
    location: JobLocation,
    job: JobRef,
}

/// The outcomes of a detached job as an iterator.
#[pyclass(frozen, module = "farpool._farpool")]
pub(crate) struct Outcomes(Mutex<Reading>);

/// The items of a job that is handed over.
pub(crate) struct Items {
    values: Py<PyIterator>,
    encoder: Encoder,
    limit: ItemLimit,
    /// How many were pulled.
    pulled: u64,
}

/// The answer to a message of items, or, with the job, to the last one.
type Answer = Result<Option<JobRef>, Error>;

/// Finds the job of this name at the coordinator with this address.
#[pyfunction]
pub(crate) fn attach(py: Python<'_>, address: &str, name: &str) -> PyResult<DetachedJob> {
    let in_python = |error: Error| errors::to_python(py, &error.of_job("attach", name));
    let location = JobLocation::at(address).map_err(in_python)?;
    let (there, job) = (location.clone(), JobRef::by_name(name));
    let about = interruptibly(py, move || detached::about(&there, "attach", &job, false))?;
    if about.result != RESULT {
        let message = format!("its results are of type {}: read it with the program that detached it", about.result);
        return Err(in_python(Error::invalid(message)));
    }
    if about.format != FORMAT {
        let message = "its results were encoded by another version of farpool: use that version";
        return Err(in_python(Error::new(ErrorKind::Codec, message)));
    }
    Ok(DetachedJob { location, job: JobRef { name: name.into(), id: about.id } })
}

#[pymethods]
impl DetachedJob {
    #[getter]
    fn name(&self) -> &str {
        &self.job.name
    }

    /// Returns its progress, as a `farpool.DetachedStatus`.
    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (location, job) = self.parts();
        let (state, about) = interruptibly(py, move || {
            let about = detached::about(&location, "status", &job, true)?;
            let state = match about.state() {
                DetachedState::Receiving => "receiving",
                DetachedState::Running => "running",
                DetachedState::Finished => "finished",
                DetachedState::Cancelled => "cancelled",
                DetachedState::Failed => "failed",
                DetachedState::Unspecified => {
                    let error = Error::protocol("the coordinator reported a state that this version does not know");
                    return Err(error.of_job("status", &job.name));
                }
            };
            Ok((state, about))
        })?;
        let (items, done, failed) = (about.items, about.done, about.failed);
        let facts = (state, items, done, failed, about.detached_ms, about.ended_ms, about.expires_ms);
        py.import(intern!(py, "farpool._detached"))?.call_method1(intern!(py, "status"), facts)
    }

    /// Returns all results once the job has ended, or raises the exception of the failed item with the lowest index.
    fn get<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let mut reading = self.read(py, "get")?;
        let (mut values, mut failed) = (Vec::new(), None);
        while let Some(outcome) = reading.next(py)? {
            match outcome {
                Ok(value) if failed.is_none() => values.push(value),
                Ok(_) => {}
                // The job's own error, instead of an outcome.
                Err(error) if reading.over => return Err(error),
                Err(error) => {
                    values = Vec::new();
                    failed.get_or_insert(error);
                    reading.reader.skip_same_failure();
                }
            }
        }
        match failed {
            Some(error) => Err(error),
            None => list(py, values),
        }
    }

    /// Returns an iterator over the outcomes, from the first one.
    fn __iter__(&self, py: Python<'_>) -> PyResult<Outcomes> {
        let mut reading = self.read(py, "iter")?;
        reading.reader = reading.reader.reporting_missing();
        Ok(Outcomes(Mutex::new(reading)))
    }

    /// Cancels items without an outcome.
    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        let (location, job) = self.parts();
        interruptibly(py, move || detached::cancel(&location, &job))
    }

    /// Drops the job with its outcomes.
    fn discard(&self, py: Python<'_>) -> PyResult<()> {
        let (location, job) = self.parts();
        interruptibly(py, move || detached::discard(&location, &job))
    }

    #[classmethod]
    fn __class_getitem__<'py>(class: &Bound<'py, PyType>, item: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        crate::generic_alias(class, item)
    }

    fn __repr__(&self) -> String {
        format!("<farpool.DetachedJob {:?} at {}>", self.job.name, self.location.address)
    }
}

impl DetachedJob {
    fn parts(&self) -> (JobLocation, JobRef) {
        (self.location.clone(), self.job.clone())
    }

    fn read(&self, py: Python<'_>, verb: &'static str) -> PyResult<Reading> {
        let reader = py.detach(|| JobReader::start(&self.location, verb, &self.job, true));
        let reader = reader.map_err(|error| errors::to_python(py, &error))?;
        Ok(Reading { reader, verb, name: self.job.name.to_string(), undecoded: None, over: false })
    }
}

#[pymethods]
impl Outcomes {
    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let mut reading = self.0.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
        reading.next(py)?.transpose().map_err(|error| not_the_end(py, error))
    }
}

/// Reads outcomes in the order of the items.
struct Reading {
    reader: JobReader,
    verb: &'static str,
    name: String,
    /// A result that was taken; its decoding was interrupted.
    undecoded: Option<Bytes>,
    over: bool,
}

impl Reading {
    /// Returns the next outcome, or `None` after the last one. If the job ended early, that is the last one.
    ///
    /// # Errors
    /// What interrupts this thread. The outcome is not lost.
    fn next(&mut self, py: Python<'_>) -> PyResult<Option<PyResult<Py<PyAny>>>> {
        while !self.over {
            if let Some(bytes) = &self.undecoded {
                let value = decode(py, bytes)?;
                self.undecoded = None;
                return Ok(Some(value));
            }
            let error = match self.reader.step(|bytes| Ok::<_, Error>(Bytes::copy_from_slice(bytes))) {
                Step::Wait => {
                    let reader = &mut self.reader;
                    py.detach(|| reader.wait(Some(Instant::now() + SLICE)));
                    py.check_signals()?;
                    continue;
                }
                Step::Outcome(_, Ok(bytes)) => {
                    self.undecoded = Some(bytes);
                    continue;
                }
                Step::Outcome(_, Err(error)) => error,
                Step::Missing(item) => {
                    self.cancelled("the job was cancelled before the item had an outcome").of_item(item)
                }
                Step::Ended(end) => {
                    self.over = true;
                    match end {
                        ReadEnd::Finished => return Ok(None),
                        ReadEnd::Failed(error) | ReadEnd::Broken(error) => error,
                        ReadEnd::Cancelled | ReadEnd::Running => self.cancelled("the job was cancelled"),
                    }
                }
            };
            return Ok(Some(Err(errors::of_item(py, &error)?)));
        }
        Ok(None)
    }

    fn cancelled(&self, message: &str) -> Error {
        Error::new(ErrorKind::Cancelled, message).of_job(self.verb, &self.name)
    }
}

/// Returns what a detached job needs of its pool.
pub(crate) fn settings(session: &farpool_session::Session, name: &str) -> Result<DetachSettings, Error> {
    let local = || {
        Error::invalid(
            "the pool runs on this machine only, but detached jobs are kept by the coordinator of a cluster: set FARPOOL_ADDRESS \
             to its address, or use Pool(address=...)",
        )
    };
    session.here()?.detach_settings().ok_or_else(local).map_err(|error| error.of_job("detach", name))
}

/// Hands a job over. Returns when all of it is on disk there; an exception withdraws it.
pub(crate) fn detach(
    py: Python<'_>,
    settings: DetachSettings,
    name: String,
    open: OpenJob,
    mut items: Items,
) -> PyResult<DetachedJob> {
    let location = settings.location.clone();
    let detach = v1::Detach { name: name.clone(), result: RESULT.to_owned(), format: FORMAT, durable: 0 };
    let open = OpenJob { job: JOB, detach: Some(detach), ..open };
    let (batches, incoming) = mpsc::channel();
    let (answers, answered) = mpsc::channel();
    let send = move || send(&settings, open, &incoming, &answers);
    thread::Builder::new().name("farpool-detaching".to_owned()).spawn(send)?;
    let answered = Mutex::new(answered);
    // Each message is answered before the next one is made. `receive` reports it if that thread has ended.
    let mut hand_over = || {
        receive(py, &answered)?;
        while let Some(batch) = items.next_batch(py, &name)? {
            let _ = batches.send(Some(batch));
            receive(py, &answered)?;
        }
        let _ = batches.send(None);
        receive(py, &answered)
    };
    let job = match hand_over() {
        Ok(job) => job.unwrap_or_else(|| JobRef::by_name(&name)),
        Err(error) => {
            drop(batches);
            py.detach(|| wait_until_withdrawn(&location, &answered));
            return Err(error);
        }
    };
    Ok(DetachedJob { location, job })
}

/// Waits until the thread that sends has ended, and with it the job: a caller who catches the exception finds its name free.
fn wait_until_withdrawn(location: &JobLocation, answered: &Mutex<Receiver<Answer>>) {
    let (answered, deadline) =
        (answered.lock().unwrap_or_else(PoisonError::into_inner), Instant::now() + WITHDRAW_TIMEOUT);
    while let Ok(answer) = answered.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        discard_unwanted(location, answer);
    }
}

/// Discards a job that became complete just before its call was interrupted.
fn discard_unwanted(location: &JobLocation, answer: Answer) {
    if let Ok(Some(job)) = answer {
        // If this fails, the coordinator drops the job when it expires.
        let _ = detached::discard(location, &job);
    }
}

/// Sends the batches of a job until `None`, the end of its items. If its caller is gone before that, the job is withdrawn.
fn send(settings: &DetachSettings, open: OpenJob, batches: &Receiver<Option<v1::Items>>, answers: &Sender<Answer>) {
    let mut sender = match JobSender::start(settings, open) {
        Ok(sender) => sender,
        Err(error) => return drop(answers.send(Err(error))),
    };
    let mut answer = Ok(None);
    while let Ok(()) = answers.send(answer) {
        match batches.recv() {
            Ok(Some(batch)) => answer = sender.send(batch).map(|()| None),
            Ok(None) => {
                if let Err(SendError(unwanted)) = answers.send(sender.finish().map(Some)) {
                    discard_unwanted(&settings.location, unwanted);
                }
                return;
            }
            Err(_) => return,
        }
    }
}

impl Items {
    pub(crate) fn new(values: Bound<'_, PyIterator>, encoder: Encoder, limit: ItemLimit) -> Self {
        Self { values: values.unbind(), encoder, limit, pulled: 0 }
    }

    /// Pulls and encodes items; `None` after the last one. `name`: the job's.
    ///
    /// # Errors
    /// What the input or the pickling of an item raises, and if an item is too large.
    fn next_batch(&mut self, py: Python<'_>, name: &str) -> PyResult<Option<v1::Items>> {
        py.check_signals()?;
        let (first, mut data, mut ends) = (self.pulled, Vec::new(), Vec::new());
        let values = self.values.bind(py).clone();
        for value in values {
            let before = data.len();
            self.encoder.encode(&value?, &mut data)?;
            self.limit
                .check(data.len() - before)
                .map_err(|error| errors::to_python(py, &error.of_item(self.pulled).of_job("detach", name)))?;
            self.pulled += 1;
            // A batch is at most full plus one item, whose size is limited to 2 GiB.
            ends.extend_from_slice(&(data.len() as u32).to_le_bytes());
            if data.len() >= FULL_BYTES {
                break;
            }
        }
        let items = v1::Items { job: JOB, first, data: data.into(), ends: ends.into() };
        Ok((self.pulled > first).then_some(items))
    }
}
