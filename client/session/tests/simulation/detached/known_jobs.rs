//! The facts that clients have learned about detached jobs. Every client must find them unchanged later.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use farpool_proto::v1::{DetachedJob, DetachedState};
use farpool_session::{Error, ErrorKind};

use crate::client::failure_of;
use crate::plan::{Outcome, Plan, is_failed, mark};
use crate::trace;

#[derive(Clone)]
pub(crate) struct KnownJobs {
    plan: Plan,
    jobs: Arc<Mutex<BTreeMap<String, Job>>>,
}

/// The facts known about a job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Job {
    /// The tag of its items.
    pub(crate) tag: u64,
    pub(crate) items: u64,
    /// Its client has sent all of it.
    pub(crate) all_sent: bool,
    /// The coordinator has confirmed that it keeps the job.
    pub(crate) kept: bool,
    /// A client has requested to cancel or discard it.
    pub(crate) cancel_requested: bool,
    pub(crate) discard_requested: bool,
    /// The coordinator has confirmed that it was discarded.
    pub(crate) discarded: bool,
    /// How it has ended.
    pub(crate) ended: Option<End>,
    /// The outcomes that clients have read.
    pub(crate) outcomes: BTreeMap<u64, Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Finished,
    Cancelled,
    /// One of the two: a cancellation returned, so it has ended.
    Either,
}

fn has_failed(outcome: &Outcome) -> bool {
    outcome.as_ref().map_or(true, |(result, _)| is_failed(result))
}

impl KnownJobs {
    pub(crate) fn new(plan: Plan) -> Self {
        Self { plan, jobs: Arc::default() }
    }

    /// Notes that a job is about to be detached.
    pub(crate) fn begin(&self, name: &str, tag: u64, items: u64) {
        let mut jobs = self.jobs();
        let before = jobs.remove(name).unwrap_or_default();
        let Job { cancel_requested, discard_requested, .. } = before;
        jobs.insert(name.to_owned(), Job { tag, items, cancel_requested, discard_requested, ..Job::default() });
    }

    /// Returns what is known of a job; nothing if no client has begun to detach it.
    pub(crate) fn job(&self, name: &str) -> Job {
        self.jobs().get(name).cloned().unwrap_or_default()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.jobs().keys().cloned().collect()
    }

    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut Job)) {
        change(self.jobs().entry(name.to_owned()).or_default());
    }

    /// Notes and checks an outcome that was read.
    pub(crate) fn take(&self, name: &str, item: u64, result: Result<(Bytes, u32), Error>) {
        let outcome = result.map_err(|error| failure_of(&error));
        let job = self.job(name);
        self.plan.check(mark(job.tag, item), &outcome);
        if let Some(before) = job.outcomes.get(&item).filter(|before| **before != outcome) {
            trace::violation(format_args!("item {item} of {name} had the outcome {before:?}, and now has {outcome:?}"));
        }
        self.change(name, |job| drop(job.outcomes.insert(item, outcome)));
    }

    /// Notes and checks how a job has ended.
    pub(crate) fn note_end(&self, name: &str, how: End) {
        let job = self.job(name);
        let fits = match job.ended {
            None => how != End::Cancelled || job.cancel_requested,
            Some(End::Either) => true,
            Some(ended) => how == ended || how == End::Either,
        };
        if !fits {
            trace::violation(format_args!("{name} has ended, {how:?}, and it was {job:?}"));
        }
        if how != End::Either || job.ended.is_none() {
            self.change(name, |job| job.ended = Some(how));
        }
    }

    /// Checks a job's description against what was known `before` the request.
    pub(crate) fn note_description(&self, name: &str, before: &Job, about: &DetachedJob) {
        let state = about.state();
        let wrong = |what: &str| trace::violation(format_args!("{name} is {what}: {about:?}, and it was {before:?}"));
        if before.discarded {
            wrong("back after it was discarded");
        }
        match state {
            DetachedState::Finished => self.note_end(name, End::Finished),
            DetachedState::Cancelled => self.note_end(name, End::Cancelled),
            DetachedState::Receiving if before.kept => wrong("no longer complete"),
            DetachedState::Receiving | DetachedState::Running if before.ended.is_some() => {
                wrong("running after its end")
            }
            DetachedState::Receiving => {}
            DetachedState::Running if self.job(name).all_sent => {}
            _ => wrong("in an impossible state"),
        }
        if state != DetachedState::Receiving && about.items != self.job(name).items {
            wrong("of another length");
        }
        let failed = before.outcomes.values().filter(|outcome| has_failed(outcome)).count() as u64;
        if about.done < before.outcomes.len() as u64 || about.failed < failed {
            wrong("behind its earlier progress");
        }
    }

    /// Checks an error about a job against what was known `before` the request.
    pub(crate) fn note_missing(&self, name: &str, before: &Job, error: &Error) {
        let now = self.job(name);
        let is_gone = error.kind() == ErrorKind::InvalidArgument && (!before.kept || now.discard_requested);
        if !is_gone {
            trace::violation(format_args!("{name} cannot be found: {error}; it was {before:?}"));
        }
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<String, Job>> {
        self.jobs.lock().expect("a thread panicked while it held the lock")
    }
}
