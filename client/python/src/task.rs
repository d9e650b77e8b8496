//! A packed function, and the options of a call.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farpool_proto::limits;
use farpool_proto::v1::{Label, OpenJob};
use farpool_session::{Error, Session, labels};
use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::codec::{self, Encoder};
use crate::common::{self, Common};
use crate::errors;
use crate::progress::Progress;

/// A packed function, ready to send.
#[pyclass(frozen, module = "farpool._farpool")]
pub(crate) struct Task {
    function: Bytes,
    label: String,
    by_value: Option<Py<PyAny>>,
    published: Arc<HashSet<String>>,
}

#[pymethods]
impl Task {
    /// `function`: a letter for how it is called (see `worker.rs`), then its bytes from `farpool._functions.dump`. `published`: the
    /// names that it defines in a worker's `__main__`. `by_value` pickles items that refer to other names of `__main__`.
    #[new]
    fn new(
        py: Python<'_>,
        function: &[u8],
        label: &str,
        by_value: Option<Py<PyAny>>,
        published: HashSet<String>,
    ) -> PyResult<Self> {
        limits::function("bytes of the function with the globals and defaults that it uses", function.len()).map_err(
            |beyond| {
                let advice = "pass less with each call: initializer= and initargs= send data once to each worker";
                errors::to_python(py, &Error::invalid(format!("{beyond}; {advice}")))
            },
        )?;
        let label = limits::clipped(label, limits::JOB_LABEL_BYTES);
        Ok(Self { function: Bytes::copy_from_slice(function), label, by_value, published: Arc::new(published) })
    }
}

impl Task {
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// Returns the message that opens a job, and what encodes its items. `session`: limits the size of functions.
    pub(crate) fn prepare(&self, py: Python<'_>, options: &Options, session: &Session) -> PyResult<(OpenJob, Encoder)> {
        let by_value = self.by_value.as_ref().map(|hook| hook.clone_ref(py));
        let mut encoder = Encoder::new(py, by_value, Some(Arc::clone(&self.published)))?;
        let mut function = self.function.clone();
        if let Some((arguments, items)) = &options.common {
            let mut encoded = Vec::new();
            let fits = |arguments: &[u8]| {
                let size = function.len() + arguments.len() + common::HEAD_BYTES;
                limits::function("", size).is_ok() && session.check_function(size).is_ok()
            };
            match encoder.encode(PyTuple::new(py, arguments)?.as_any(), &mut encoded) {
                Ok(()) if !codec::decodes_once(&encoded) && fits(&encoded) => {
                    function = common::put_before(&function, *items, &encoded).into();
                    encoder.set_common(Common::new(py, arguments));
                }
                Err(error) if errors::interrupts(py, &error) => return Err(error),
                // They travel with each item, or fail with it.
                Ok(()) | Err(_) => {}
            }
        }
        Ok((self.open_job(function, options), encoder))
    }

    fn open_job(&self, function: Bytes, options: &Options) -> OpenJob {
        OpenJob {
            function,
            label: self.label.clone(),
            chunksize: options.chunksize,
            timeout_ns: options.timeout_ns,
            retries: options.retries,
            priority: options.priority,
            require: options.require.clone(),
            ..OpenJob::default()
        }
    }
}

/// The options of a call.
#[pyclass(frozen, module = "farpool._farpool")]
pub(crate) struct Options {
    /// Items in a chunk; 0: farpool chooses.
    pub(crate) chunksize: u64,
    timeout_ns: u64,
    retries: u32,
    priority: i32,
    /// The labels that a host needs to run it.
    pub(crate) require: Vec<Label>,
    /// What is told the call when it begins.
    pub(crate) progress: Option<Py<Progress>>,
    /// Arguments that the items have in common, and how many items may share a copy of them.
    common: Option<(Vec<Py<PyAny>>, u64)>,
}

#[pymethods]
impl Options {
    /// Checks and converts them. `timeout`: seconds that one item may run. `require`: keys and values of labels. `common`: arguments
    /// that the items have in common, and how many items may share a copy of them.
    #[new]
    #[pyo3(signature = (chunksize, timeout, retries, priority, require, progress=None, common=None))]
    #[expect(clippy::too_many_arguments, reason = "the options of a call")]
    fn new(
        py: Python<'_>,
        chunksize: Option<u64>,
        timeout: Option<f64>,
        retries: &Bound<'_, PyAny>,
        priority: &Bound<'_, PyAny>,
        require: Vec<(String, String)>,
        progress: Option<Py<Progress>>,
        common: Option<(Vec<Py<PyAny>>, u64)>,
    ) -> PyResult<Self> {
        let require = required(require);
        labels::check(&require).map_err(|error| errors::to_python(py, &error))?;
        let invalid = |message: String| Err(errors::to_python(py, &Error::invalid(message)));
        let limit = limits::RETRIES;
        let Some(retries) = integer(retries)?.filter(|retries| *retries <= limit) else {
            return invalid(format!("retries must be from 0 to {limit}, not {retries}"));
        };
        let Some(priority) = integer(priority)? else {
            return invalid(format!("priority must be from {} to {}, not {priority}", i32::MIN, i32::MAX));
        };
        let timeout_ns = seconds(py, "timeout", timeout)?.unwrap_or(0);
        Ok(Self { chunksize: chunksize.unwrap_or(0), timeout_ns, retries, priority, require, progress, common })
    }
}

/// Converts an integer; `None` if it is out of range.
fn integer<'py, T: for<'a> FromPyObject<'a, 'py, Error = PyErr>>(value: &Bound<'py, PyAny>) -> PyResult<Option<T>> {
    match value.extract() {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Converts a time limit in seconds to nanoseconds. `name`: the argument's, for errors.
pub(crate) fn seconds(py: Python<'_>, name: &str, limit: Option<f64>) -> PyResult<Option<u64>> {
    match limit.filter(|limit| *limit != f64::INFINITY).map(Duration::try_from_secs_f64) {
        None => Ok(None),
        Some(Ok(limit)) if !limit.is_zero() => Ok(Some(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX))),
        Some(_) => {
            let error = Error::invalid(format!("{name} must be above zero: leave it out for no limit"));
            Err(errors::to_python(py, &error))
        }
    }
}

/// Converts the keys and values of required labels.
pub(crate) fn required(labels: Vec<(String, String)>) -> Vec<Label> {
    labels.into_iter().map(|(key, value)| labels::required(key, value)).collect()
}
