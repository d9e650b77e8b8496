//! What everybody knows of the detached jobs: what they were told, and what must be so from then on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use farpool_proto::v1::{DetachedJob, DetachedState};
use farpool_session::{Error, ErrorKind};

use crate::client::told;
use crate::plan::{Outcome, Plan, is_failed, mark};
use crate::trace;

#[derive(Clone)]
pub(crate) struct Books {
    plan: Plan,
    jobs: Arc<Mutex<BTreeMap<String, Job>>>,
}

/// What is known of a job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Job {
    /// What its items are marked with.
    pub(crate) tag: u64,
    pub(crate) items: u64,
    /// Its client has said that it is whole.
    pub(crate) all_said: bool,
    /// The coordinator has said that it keeps it.
    pub(crate) kept: bool,
    /// Somebody has asked that it be cancelled, or be discarded.
    pub(crate) cancel_asked: bool,
    pub(crate) discard_asked: bool,
    /// It has been.
    pub(crate) discarded: bool,
    /// How it has ended.
    pub(crate) ended: Option<End>,
    /// What has come of its items, as somebody has read it.
    pub(crate) outcomes: BTreeMap<u64, Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Finished,
    Cancelled,
    /// One of the two: who cancelled it was told that it has ended.
    Either,
}

fn has_failed(outcome: &Outcome) -> bool {
    outcome.as_ref().map_or(true, |(result, _)| is_failed(result))
}

impl Books {
    pub(crate) fn new(plan: Plan) -> Self {
        Self { plan, jobs: Arc::default() }
    }

    /// A job is about to be detached.
    pub(crate) fn begin(&self, name: &str, tag: u64, items: u64) {
        let mut jobs = self.jobs();
        let before = jobs.remove(name).unwrap_or_default();
        let Job { cancel_asked, discard_asked, .. } = before;
        jobs.insert(name.to_owned(), Job { tag, items, cancel_asked, discard_asked, ..Job::default() });
    }

    /// What is known of a job now; nobody has begun with one that is not known.
    pub(crate) fn job(&self, name: &str) -> Job {
        self.jobs().get(name).cloned().unwrap_or_default()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.jobs().keys().cloned().collect()
    }

    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut Job)) {
        change(self.jobs().entry(name.to_owned()).or_default());
    }

    /// Somebody has read what came of an item.
    pub(crate) fn take(&self, name: &str, item: u64, result: Result<(Bytes, u32), Error>) {
        let outcome = result.map_err(|error| told(&error));
        let job = self.job(name);
        self.plan.check(mark(job.tag, item), &outcome);
        if let Some(before) = job.outcomes.get(&item).filter(|before| **before != outcome) {
            trace::violation(format_args!("item {item} of {name} had the outcome {before:?}, and now has {outcome:?}"));
        }
        self.change(name, |job| drop(job.outcomes.insert(item, outcome)));
    }

    /// Somebody has seen how a job has ended.
    pub(crate) fn has_ended(&self, name: &str, how: End) {
        let job = self.job(name);
        let fits = match job.ended {
            None => how != End::Cancelled || job.cancel_asked,
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

    /// Somebody was told of a job what was known of it `before`.
    pub(crate) fn described(&self, name: &str, before: &Job, about: &DetachedJob) {
        let state = about.state();
        let wrong = |what: &str| trace::violation(format_args!("{name} is {what}: {about:?}, and it was {before:?}"));
        if before.discarded {
            wrong("there again");
        }
        match state {
            DetachedState::Finished => self.has_ended(name, End::Finished),
            DetachedState::Cancelled => self.has_ended(name, End::Cancelled),
            DetachedState::Receiving if before.kept => wrong("not whole any more"),
            DetachedState::Receiving | DetachedState::Running if before.ended.is_some() => wrong("going on"),
            DetachedState::Receiving => {}
            DetachedState::Running if self.job(name).all_said => {}
            _ => wrong("in no state to be in"),
        }
        if state != DetachedState::Receiving && about.items != self.job(name).items {
            wrong("of another length");
        }
        let failed = before.outcomes.values().filter(|outcome| has_failed(outcome)).count() as u64;
        if about.done < before.outcomes.len() as u64 || about.failed < failed {
            wrong("less far than it was");
        }
    }

    /// Somebody was told that a job cannot be had, of which this was known `before`.
    pub(crate) fn missed(&self, name: &str, before: &Job, error: &Error) {
        let now = self.job(name);
        let is_gone = error.kind() == ErrorKind::InvalidArgument && (!before.kept || now.discard_asked);
        if !is_gone {
            trace::violation(format_args!("{name} cannot be had: {error}; it was {before:?}"));
        }
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<String, Job>> {
        self.jobs.lock().expect("nobody panics with it")
    }
}
