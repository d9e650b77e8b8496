//! Decodes the outcomes of a job that returns all results at once.

use farpool_session::{Delivery, Error, Inbox, Results, check_items_exist};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::codec::{self, Decoded};
use crate::errors;
use crate::feeder::Faults;

#[derive(Default)]
pub(crate) struct Collector {
    values: Vec<Option<Py<PyAny>>>,
    outcomes: u64,
    /// The failed item with the lowest index.
    failed: Option<(u64, PyErr)>,
}

impl Collector {
    pub(crate) fn outcomes(&self) -> u64 {
        self.outcomes
    }

    /// Decodes an entry of the inbox.
    ///
    /// # Errors
    /// If the session broke its contract, or if this thread is interrupted. After an interrupt, pass the entry again.
    pub(crate) fn accept(
        &mut self,
        py: Python<'_>,
        delivery: &Delivery,
        inbox: &Inbox,
        faults: &Faults,
    ) -> PyResult<()> {
        let to_exception = |error: Error| errors::to_python(py, &inbox.add_context(error));
        match delivery {
            Delivery::Done { first, data, ends, .. } => {
                let results = Results::new(*first, data.clone(), ends.clone(), inbox.pulled());
                let mut results = results.map_err(to_exception)?;
                while let Some(next) = results.next() {
                    let (item, bytes) = next.map_err(to_exception)?;
                    // Only the failure with the lowest index counts, and no result after it.
                    if self.failed.as_ref().is_some_and(|(failed, _)| *failed <= item) {
                        codec::handle_records(py, bytes)?;
                        continue;
                    }
                    match decode(py, bytes)? {
                        Ok(value) => self.keep(item, value),
                        Err(error) => self.fail(item, error),
                    }
                }
                self.outcomes += results.items();
            }
            Delivery::Failed { first, count, error, .. } => {
                check_items_exist(*first, *count, inbox.pulled()).map_err(to_exception)?;
                self.fail(*first, failure(py, *first, error.clone(), inbox, faults)?);
                self.outcomes += count;
            }
        }
        Ok(())
    }

    /// Returns the results, or the exception of the failed item with the lowest index.
    ///
    /// # Errors
    /// Also if an item has no outcome.
    pub(crate) fn finish(mut self, py: Python<'_>, inbox: &Inbox, faults: &Faults) -> PyResult<Vec<Py<PyAny>>> {
        if let Some((item, error)) = faults.take_input() {
            self.fail(item, error);
        }
        if let Some((_, error)) = self.failed {
            return Err(error);
        }
        let items = self.values.len() as u64;
        let values: Option<Vec<_>> = self.values.into_iter().collect();
        values.filter(|_| items == inbox.pulled()).ok_or_else(|| ended_early(py, inbox))
    }

    fn keep(&mut self, item: u64, value: Py<PyAny>) {
        let at = item as usize;
        if self.values.len() <= at {
            self.values.resize_with(at + 1, || None);
        }
        self.values[at] = Some(value);
    }

    fn fail(&mut self, item: u64, error: PyErr) {
        if self.failed.as_ref().is_none_or(|(failed, _)| item < *failed) {
            self.failed = Some((item, error));
        }
    }
}

/// Decodes a result, or the exception that takes its place. Handles what its item has logged.
///
/// # Errors
/// The exception that interrupts this thread meanwhile, if any. Then the result can be decoded again.
pub(crate) fn decode(py: Python<'_>, bytes: &[u8]) -> PyResult<PyResult<Py<PyAny>>> {
    let encoded = codec::handle_records(py, bytes)?;
    let decoded = match codec::decode(py, encoded) {
        Ok(Decoded::Value(value)) => Ok(value.unbind()),
        Ok(Decoded::Raised(error)) => Err(error),
        Err(error) if errors::interrupts(py, &error) => return Err(error),
        Err(error) => Err(errors::undecodable(py, &error)?),
    };
    if encoded.len() < bytes.len() {
        codec::forget_records(py)?;
    }
    Ok(decoded)
}

/// Returns the exception for an item that failed outside of its function.
///
/// # Errors
/// The exception that interrupts this thread meanwhile, if any.
pub(crate) fn failure(py: Python<'_>, item: u64, error: Error, inbox: &Inbox, faults: &Faults) -> PyResult<PyErr> {
    match faults.refused(item) {
        Some(error) => Ok(error),
        None => errors::of_item(py, &inbox.add_context(error.of_item(item))),
    }
}

/// Returns the exception of a job that ended before all its items had an outcome.
pub(crate) fn ended_early(py: Python<'_>, inbox: &Inbox) -> PyErr {
    let missing = || inbox.add_context(Error::protocol("the job ended although outcomes of items are missing"));
    errors::to_python(py, &inbox.end_error().unwrap_or_else(missing))
}

/// Makes a list of results.
pub(crate) fn list(py: Python<'_>, values: Vec<Py<PyAny>>) -> PyResult<Bound<'_, PyList>> {
    PyList::new(py, values)
}
