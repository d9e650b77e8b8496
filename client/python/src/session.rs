//! The pool behind `farpool.Pool`.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use farpool_proto::limits;
use farpool_proto::v1::WorkerSettings;
use farpool_session::{
    Error, Inbox, Interest, ItemLimit, Program, RECONNECT_TIMEOUT, Settings, SharedValue, Target, environment, labels,
};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyIterator, PyList};

use crate::async_result::{AsyncResult, Ending};
use crate::callbacks::{self, Pending, Shown};
use crate::codec::Encoder;
use crate::collector::list;
use crate::detached::DetachedJob;
use crate::feeder::Feeder;
use crate::imap::{Beginning, IMapIterator};
use crate::shared::{self, SharedHandle};
use crate::task::{Options, Task, required, seconds};
use crate::waiting::{deadline, interruptibly, wait_until};
use crate::{async_result, background, detached, errors, imap, map};

/// An open pool.
#[pyclass(frozen, module = "farpool._farpool")]
pub(crate) struct Session {
    session: farpool_session::Session,
    payload_limit: u64,
    /// Whether what tasks log is handled here.
    logging: bool,
    closing: Arc<AtomicBool>,
    jobs: Mutex<Jobs>,
    pending: Arc<Pending>,
}

/// Jobs in the background, including some that have ended.
#[derive(Default)]
struct Jobs {
    known: Vec<Weak<Inbox>>,
    /// At this length, ended jobs are removed.
    most: usize,
}

/// Opens a pool. `address`: the address of a cluster's coordinator, or `None` for this machine. `initializer`: a function as in `Task`;
/// `initargs`: its encoded arguments; `initializer_timeout`: how many seconds it may run. `stays`: whether
/// workers start in this process's directory, on the hosts of a cluster that have it. `environment`: variables for the workers. `require`: keys and values of the labels that its hosts
/// must have. `logging`: whether workers return what tasks log. `payload_limit`: bytes of an item or a result, for tests.
#[pyfunction]
#[pyo3(signature = (*, processes, address, file, arguments, stays, environment, initializer, initargs, initializer_timeout, max_chunks_per_child, name, require, logging=false, payload_limit=limits::PAYLOAD_BYTES))]
#[expect(clippy::too_many_arguments, reason = "each is named by its only caller")]
pub(crate) fn open(
    py: Python<'_>,
    processes: u32,
    address: Option<String>,
    file: PathBuf,
    arguments: Vec<OsString>,
    stays: bool,
    environment: Vec<(OsString, OsString)>,
    initializer: Vec<u8>,
    initargs: Vec<u8>,
    initializer_timeout: Option<f64>,
    max_chunks_per_child: u64,
    name: &str,
    require: Vec<(String, String)>,
    logging: bool,
    payload_limit: u64,
) -> PyResult<Session> {
    let is_here = address.is_none();
    let name = limits::clipped(name, limits::POOL_NAME_BYTES);
    let settings = WorkerSettings {
        initializer: initializer.into(),
        initializer_args: initargs.into(),
        initializer_timeout_ns: seconds(py, "initializer_timeout", initializer_timeout)?.unwrap_or(u64::MAX),
        max_tasks_per_child: 0,
        max_chunks_per_child,
        threads: 1,
        memory_limit: 0,
        payload_limit,
        name,
    };
    let open = move || {
        let invalid = |beyond: limits::BeyondLimit| Error::invalid(beyond.to_string());
        limits::pool(processes, 1).map_err(invalid)?;
        limits::settings(&settings).map_err(invalid)?;
        let require = required(require);
        let target = match &address {
            Some(url) => {
                labels::check(&require)?;
                Target::Cluster(farpool_session::address(url)?)
            }
            None => {
                labels::check_here(&require)?;
                Target::Here
            }
        };
        let reconnect_timeout = environment::reconnect_timeout()?.unwrap_or(RECONNECT_TIMEOUT);
        let directory = if stays { env::current_dir().ok() } else { None };
        let settings = Settings {
            processes,
            program: Program { file, arguments, keep: true, directory },
            settings,
            require,
            weight: 1,
            environment,
            reconnect_timeout,
        };
        farpool_session::Session::open(target, settings, Arc::new(Shown))
    };
    let session = match is_here {
        true => py.detach(open).map_err(|error| errors::to_python(py, &error))?,
        false => interruptibly(py, open)?,
    };
    Ok(Session {
        session,
        payload_limit,
        logging,
        closing: Arc::default(),
        jobs: Mutex::default(),
        pending: Arc::default(),
    })
}

/// Ends the threads of this module before the interpreter shuts down. Waits for those that run Python code, for at most this many
/// seconds.
#[pyfunction]
pub(crate) fn end_threads(py: Python<'_>, patience: f64) {
    background::end(py, Duration::try_from_secs_f64(patience).unwrap_or_default());
}

impl Drop for Session {
    /// Ends a pool that was not closed: its constructor was interrupted.
    fn drop(&mut self) {
        if self.session.owner().is_here() && !self.closing.load(Ordering::SeqCst) {
            self.session.close(true);
        }
    }
}

#[pymethods]
impl Session {
    /// Calls the task with one value, and returns its result.
    fn apply(&self, py: Python<'_>, task: &Task, value: &Bound<'_, PyAny>, options: &Options) -> PyResult<Py<PyAny>> {
        let (call, encoder) = self.begin(py, "apply", task, options, Interest::Outcomes)?;
        map::run_one(py, call, encoder, value, self.limit())
    }

    /// Calls the task with each value, and returns the results in order. `verb` is the name of the call in errors.
    fn map<'py>(
        &self,
        py: Python<'py>,
        verb: &str,
        task: &Task,
        values: Bound<'py, PyIterator>,
        options: &Options,
    ) -> PyResult<Bound<'py, PyList>> {
        let (call, encoder) = self.begin(py, verb_of(verb), task, options, Interest::Outcomes)?;
        let feeder = self.feeder(values, encoder, options);
        list(py, map::run_all(py, call, feeder)?)
    }

    /// As `map`, but in the background. `single`: the outcome is the result of the only value. `pool` is kept until the job has ended.
    #[pyo3(signature = (verb, task, values, pool, single, options, callback=None, error_callback=None))]
    #[expect(clippy::too_many_arguments, reason = "the options of a call")]
    fn start(
        &self,
        py: Python<'_>,
        verb: &str,
        task: &Task,
        values: Bound<'_, PyIterator>,
        pool: Py<PyAny>,
        single: bool,
        options: &Options,
        callback: Option<Py<PyAny>>,
        error_callback: Option<Py<PyAny>>,
    ) -> PyResult<AsyncResult> {
        let (call, feeder) = self.begin_in_background(py, verb, task, values, options, Interest::End)?;
        let ending = Ending {
            pool,
            success: callback,
            failure: error_callback,
            logging: self.logging,
            pending: Arc::clone(&self.pending),
        };
        async_result::start(py, call, feeder, single, ending)
    }

    /// Calls the task with each value, and returns an iterator over the results. `sized`: whether the number of values is known.
    #[pyo3(signature = (verb, task, values, sized, pool, ordered, options, buffersize=None))]
    #[expect(clippy::too_many_arguments, reason = "the options of a call")]
    fn imap(
        &self,
        py: Python<'_>,
        verb: &str,
        task: &Task,
        values: Bound<'_, PyIterator>,
        sized: bool,
        pool: Py<PyAny>,
        ordered: bool,
        options: &Options,
        buffersize: Option<u64>,
    ) -> PyResult<IMapIterator> {
        let (call, feeder) = self.begin_in_background(py, verb, task, values, options, Interest::Outcomes)?;
        let closing = Arc::clone(&self.closing);
        let chunksize = options.chunksize;
        imap::start(py, call, feeder, Beginning { ordered, buffersize, chunksize, sized, closing, pool })
    }

    /// Shares a pickled value with all tasks. Returns its key, and its handle.
    fn share<'py>(
        &self,
        py: Python<'py>,
        pickled: &[u8],
        buffers: &Bound<'py, PyList>,
    ) -> PyResult<(Bound<'py, PyBytes>, SharedHandle)> {
        let (key, bytes) = shared::pack(pickled, buffers)?;
        let shared = py.detach(|| SharedValue::share(&self.session, key, bytes.into()));
        let value = shared.map_err(|error| errors::to_python(py, &error))?;
        Ok((PyBytes::new(py, &key), SharedHandle::new(value)))
    }

    /// Hands a whole job to the coordinator, which keeps it under this name. Returns when all of it is on disk there.
    fn detach(
        &self,
        py: Python<'_>,
        name: String,
        task: &Task,
        values: Bound<'_, PyIterator>,
        options: &Options,
    ) -> PyResult<DetachedJob> {
        let settings = self.check_labels(options).and_then(|()| detached::settings(&self.session, &name));
        let settings = settings.map_err(|error| errors::to_python(py, &error))?;
        let (open, encoder) = task.prepare(py, options, &self.session)?;
        let fits = self.session.check_function(open.function.len());
        fits.map_err(|error| errors::to_python(py, &error.of_job("detach", &name)))?;
        let items = detached::Items::new(values, encoder, self.limit());
        detached::detach(py, settings, name, open, items)
    }

    /// Refuses further calls; with `now`, also ends open ones.
    fn close(&self, py: Python<'_>, now: bool) {
        self.closing.store(true, Ordering::SeqCst);
        if now {
            self.pending.terminate();
        }
        py.detach(|| self.session.close(now));
    }

    /// Waits until all jobs have ended and all workers have exited. Returns false after `timeout` seconds.
    #[pyo3(signature = (timeout=None))]
    fn wait_closed(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        wait_until(py, deadline(timeout), |until| self.session.wait_closed(Some(until)))
    }

    /// Waits until the callbacks of all jobs have run. A callback does not wait for itself.
    fn wait_for_callbacks(&self, py: Python<'_>) -> PyResult<()> {
        if !self.is_here() || callbacks::on_their_thread() {
            return Ok(());
        }
        wait_until(py, None, |until| background::is_ending() || self.pending.wait(until)).map(drop)
    }

    /// Returns how many workers run at once.
    fn processes(&self) -> u32 {
        self.session.processes()
    }

    /// Returns the process ids of the workers on this machine.
    fn worker_pids(&self, py: Python<'_>) -> PyResult<Vec<u32>> {
        let workers = py.detach(|| self.session.here().map(|carrier| carrier.worker_pids()));
        workers.map_err(|error| errors::to_python(py, &error))
    }

    /// If the pool has failed, raises the reason.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        let failure = py.detach(|| self.session.here().map(|carrier| carrier.failure()));
        match failure {
            Ok(None) => Ok(()),
            Ok(Some(error)) | Err(error) => Err(errors::to_python(py, &error)),
        }
    }

    /// Returns whether this process opened it, and is not a fork of the process that did.
    fn is_here(&self) -> bool {
        self.session.owner().is_here()
    }

    /// Returns the numbers of the jobs in the background that have not ended.
    fn open_jobs(&self) -> Vec<u64> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let open = jobs.known.iter().filter_map(Weak::upgrade).filter(|inbox| !inbox.ended());
        open.map(|inbox| inbox.job()).collect()
    }
}

impl Session {
    fn begin(
        &self,
        py: Python<'_>,
        verb: &'static str,
        task: &Task,
        options: &Options,
        interest: Interest,
    ) -> PyResult<(farpool_session::Call, Encoder)> {
        let (open, encoder) = task.prepare(py, options, &self.session)?;
        let call = self.check_labels(options).and_then(|()| self.session.begin(verb, task.label(), open, interest));
        let call = call.map_err(|error| errors::to_python(py, &error))?;
        if let Some(progress) = &options.progress {
            progress.get().count_items_of(&call);
        }
        Ok((call, encoder))
    }

    fn limit(&self) -> ItemLimit {
        self.session.item_limit(self.payload_limit)
    }

    fn check_labels(&self, options: &Options) -> Result<(), Error> {
        match &options.require[..] {
            [] => Ok(()),
            require => self.session.here()?.check_labels(require),
        }
    }

    /// Begins a job that continues after the call has returned, and adds it to `open_jobs`.
    fn begin_in_background(
        &self,
        py: Python<'_>,
        verb: &str,
        task: &Task,
        values: Bound<'_, PyIterator>,
        options: &Options,
        interest: Interest,
    ) -> PyResult<(farpool_session::Call, Feeder)> {
        let (call, encoder) = self.begin(py, verb_of(verb), task, options, interest)?;
        self.remember(&call.inbox);
        Ok((call, self.feeder(values, encoder, options)))
    }

    fn feeder(&self, values: Bound<'_, PyIterator>, encoder: Encoder, options: &Options) -> Feeder {
        Feeder::new(values, encoder, options.chunksize, self.limit())
    }

    fn remember(&self, inbox: &Arc<Inbox>) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.known.len() >= jobs.most {
            jobs.known.retain(|inbox| inbox.upgrade().is_some_and(|inbox| !inbox.ended()));
            jobs.most = (2 * jobs.known.len()).max(64);
        }
        jobs.known.push(Arc::downgrade(inbox));
    }
}

/// Returns the name of a call for errors.
fn verb_of(verb: &str) -> &'static str {
    ["map", "starmap", "imap", "imap_unordered", "apply_async", "map_async", "starmap_async"]
        .into_iter()
        .find(|known| *known == verb)
        .unwrap_or("call")
}
