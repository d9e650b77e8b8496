//! Detects deadlocks: tracks which jobs' inputs each thread is pulling, and which outcomes such threads wait for. An input that
//! waits for the outcome of its own job would wait forever, and so would inputs that wait for the outcomes of each other's jobs.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, PoisonError};

use farpool_session::Inbox;
use farpool_session::fork::PerProcess;

use crate::error::Error;

thread_local! {
    /// Jobs, outermost first: an input may run other jobs.
    static JOBS: RefCell<Vec<*const Inbox>> = const { RefCell::new(Vec::new()) };
}

/// The jobs whose inputs wait, each with the job whose outcome it waits for. While a thread waits, it pulls none of its jobs' inputs.
static WAITS: PerProcess<Mutex<Vec<Wait>>> = PerProcess::new();

/// Jobs, by the addresses of their inboxes, which outlive the wait.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Wait {
    input_of: usize,
    outcome_of: usize,
}

/// Marks this thread as pulling the input of a job until dropped.
#[must_use = "the input is pulled while this lives"]
pub(crate) struct Pulling(());

/// Marks this thread as waiting for an outcome until dropped.
#[must_use = "the thread waits while this lives"]
pub(crate) struct Waiting(Vec<Wait>);

/// Marks this thread as pulling the input of the job with this inbox.
pub(crate) fn begin(inbox: &Inbox) -> Pulling {
    JOBS.with_borrow_mut(|jobs| jobs.push(inbox));
    Pulling(())
}

/// Fails if this thread is pulling the input of the job with this inbox.
pub(crate) fn refuse_own(inbox: &Inbox) -> Result<(), Error> {
    if !JOBS.with_borrow(|jobs| jobs.iter().any(|job| std::ptr::eq(*job, inbox))) {
        return Ok(());
    }
    Err(inbox.add_context(Error::invalid(
        "the input waits for the outcome of its own job, which cannot be ready before the input has ended: run the job with \
         imap_from_thread, and feed its input through a channel",
    )))
}

/// Marks this thread as waiting, without a time limit, for the outcome of the job with this inbox.
///
/// # Errors
/// If the outcome can never be ready: the job's input waits, directly or through other jobs, for a job whose input this thread pulls.
pub(crate) fn wait_for(inbox: &Inbox) -> Result<Waiting, Error> {
    refuse_own(inbox)?;
    let outcome_of = std::ptr::from_ref(inbox).addr();
    let own: Vec<usize> = JOBS.with_borrow(|jobs| jobs.iter().map(|job| job.addr()).collect());
    if own.is_empty() {
        return Ok(Waiting(Vec::new()));
    }
    let mut all = waits();
    let mut reached = vec![outcome_of];
    let mut at = 0;
    while let Some(&job) = reached.get(at) {
        at += 1;
        for wait in all.iter().filter(|wait| wait.input_of == job) {
            if !reached.contains(&wait.outcome_of) {
                reached.push(wait.outcome_of);
            }
        }
    }
    if reached.iter().any(|job| own.contains(job)) {
        drop(all);
        return Err(inbox.add_context(Error::invalid(
            "the inputs of several jobs wait for each other's outcomes, and no outcome can be ready before its job's input \
             has ended: run one of the jobs with imap_from_thread, and feed the others' inputs through channels",
        )));
    }
    let waits: Vec<Wait> = own.into_iter().map(|input_of| Wait { input_of, outcome_of }).collect();
    all.extend(&waits);
    Ok(Waiting(waits))
}

fn waits() -> MutexGuard<'static, Vec<Wait>> {
    WAITS.get().lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Pulling {
    fn drop(&mut self) {
        JOBS.with_borrow_mut(Vec::pop);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.0.is_empty() {
            return;
        }
        let mut all = waits();
        for wait in &self.0 {
            if let Some(at) = all.iter().position(|other| other == wait) {
                all.swap_remove(at);
            }
        }
    }
}
