//! Attaches to detached jobs in any process, and checks what it finds.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use farpool::{Detached, DetachedState, DetachedStatus, Error, ErrorKind};

use crate::job_records::{JobRecords, Mark};
use crate::job_spec::JobSpec;
use crate::work::{Answer, Fate, Task, item_of, judge};

/// Longer than any fault keeps the coordinator away.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// A job whose outcomes are read.
pub(crate) struct Reader<'l> {
    job_records: &'l JobRecords,
    job_spec: &'l JobSpec,
}

/// What was read of a job.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    /// Outcomes by item, as text.
    pub(crate) outcomes: BTreeMap<u64, String>,
    pub(crate) fates: BTreeMap<u64, Fate>,
    /// It was discarded in the meantime.
    pub(crate) gone: bool,
}

impl<'l> Reader<'l> {
    pub(crate) fn new(job_records: &'l JobRecords, job_spec: &'l JobSpec) -> Self {
        Self { job_records, job_spec }
    }

    /// Returns the job; `None` if it is rightly missing. Retries while the coordinator cannot be reached.
    pub(crate) fn attach(&self, address: &str) -> Result<Option<Detached<Answer>>, String> {
        let start = Instant::now();
        loop {
            // Read before the attempt: these can only become true.
            let (ran, whole) = (!self.job_records.began(self.name()).is_empty(), self.has(Mark::Detached));
            let error = match farpool::attach_to(address, self.name()) {
                Ok(job) => return Ok(Some(job)),
                Err(error) => error,
            };
            match error.kind() {
                ErrorKind::Unavailable if start.elapsed() < OPEN_TIMEOUT => thread::sleep(Duration::from_millis(20)),
                ErrorKind::InvalidArgument if self.has(Mark::Discarded) => return Ok(None),
                ErrorKind::InvalidArgument if whole => return Err(format!("its detach has returned, but: {error}")),
                ErrorKind::InvalidArgument if ran => return Err(format!("items of it ran, but: {error}")),
                ErrorKind::InvalidArgument => return Ok(None),
                _ => return Err(format!("it cannot be attached to: {error}")),
            }
        }
    }

    /// Returns its status; `None` if it is rightly missing.
    pub(crate) fn status(&self, job: &Detached<Answer>) -> Result<Option<DetachedStatus>, String> {
        let (began, whole) = (self.job_records.began(self.name()), self.has(Mark::Detached));
        let Some(status) = self.unless_gone(job.status())? else { return Ok(None) };
        let DetachedStatus { state, items, done, failed, .. } = status;
        let wrong = match state {
            DetachedState::Receiving if whole => Some("its detach has returned"),
            DetachedState::Receiving if !began.is_empty() => Some("items of it ran"),
            DetachedState::Receiving => None,
            DetachedState::Failed => Some("nothing is wrong with its pool"),
            _ if items != self.job_spec.items => Some("it has another number of items"),
            _ if failed > done || done > items => Some("these numbers are impossible"),
            DetachedState::Finished if done < items => Some("not all items have an outcome"),
            DetachedState::Cancelled if !self.has(Mark::Cancelled) => Some("nobody has cancelled it"),
            _ => None,
        };
        match wrong {
            Some(wrong) => Err(format!("{wrong}, but it is {status:?}")),
            None => Ok(Some(status)),
        }
    }

    /// Reads at most this many outcomes, in order.
    pub(crate) fn iter(&self, job: &Detached<Answer>, most: u64) -> Result<Observed, String> {
        let mut observed = Observed::default();
        let mut outcomes = job.iter().map_err(|error| format!("it cannot be read: {error}"))?;
        for task in self.job_spec.tasks() {
            if task.item >= most {
                return Ok(self.note(observed));
            }
            let outcome = outcomes.next().ok_or_else(|| format!("it has no outcome of item {}", task.item))?;
            match item_of(&outcome) {
                Some(item) if item == task.item => {}
                None if self.ends_early(&outcome, &mut observed)? => return Ok(self.note(observed)),
                _ => return Err(format!("instead of the outcome of item {} there is {outcome:?}", task.item)),
            }
            if matches!(&outcome, Err(error) if error.kind() == ErrorKind::Cancelled) && self.has(Mark::Cancelled) {
                continue;
            }
            self.take(&mut observed, &task, &outcome)?;
        }
        match outcomes.next() {
            None => {}
            Some(end) if item_of(&end).is_none() && self.ends_early(&end, &mut observed)? => {}
            Some(more) => return Err(format!("after its last item there is {more:?}")),
        }
        Ok(self.note(observed))
    }

    /// Takes all results at once, or the error of the first item that failed.
    pub(crate) fn get(&self, job: &Detached<Answer>) -> Result<Observed, String> {
        let mut observed = Observed::default();
        match job.get() {
            Ok(results) => self.take_all(&mut observed, results)?,
            Err(error) => match error.item().and_then(|item| self.job_spec.tasks().nth(item as usize)) {
                Some(task) => self.take(&mut observed, &task, &Err(error))?,
                None if self.ends_early(&Err(error.clone()), &mut observed)? => {}
                None => return Err(format!("its results cannot be read: {error}")),
            },
        }
        Ok(self.note(observed))
    }

    /// Cancels it, and checks that it has ended when that has returned.
    pub(crate) fn cancel(&self, job: &Detached<Answer>) -> Result<(), String> {
        self.job_records.mark(self.name(), Mark::Cancelled);
        if self.unless_gone(job.cancel())?.is_none() {
            return Ok(());
        }
        match self.status(job)? {
            Some(status) if !has_ended(&status) => Err(format!("it was cancelled, but it is {status:?}")),
            _ => Ok(()),
        }
    }

    /// Discards it, unless that was done before, and checks that it is gone.
    pub(crate) fn discard(&self, address: &str, job: &Detached<Answer>) -> Result<(), String> {
        if !self.job_records.mark(self.name(), Mark::Discarded) {
            return Ok(());
        }
        job.discard().map_err(|error| format!("it cannot be discarded: {error}"))?;
        self.attach(address)?.map_or(Ok(()), |_| Err("it was discarded, but still exists".to_owned()))
    }

    /// Checks that items with outcomes of their own have run, and none more often than it may.
    pub(crate) fn check_runs(&self, observed: &Observed) -> Result<(), String> {
        let began = self.job_records.began(self.name());
        let once: BTreeSet<u64> = began.iter().copied().collect();
        if self.job_spec.retries == 0 && began.len() > once.len() {
            let twice = once.iter().find(|item| began.iter().filter(|other| other == item).count() > 1);
            return Err(format!("item {twice:?} ran twice, but may run at most once"));
        }
        let of_its_own = |fate: &Fate| matches!(fate, Fate::Done | Fate::Panicked);
        let never = observed.fates.iter().find(|(item, fate)| of_its_own(fate) && !once.contains(item));
        never.map_or(Ok(()), |(item, _)| Err(format!("item {item} has an outcome but never ran")))
    }

    fn take_all(&self, observed: &mut Observed, results: Vec<Answer>) -> Result<(), String> {
        if results.len() as u64 != self.job_spec.items {
            return Err(format!("{} results of {} items", results.len(), self.job_spec.items));
        }
        self.job_spec.tasks().zip(results).try_for_each(|(task, result)| self.take(observed, &task, &Ok(result)))
    }

    fn take(&self, observed: &mut Observed, task: &Task, outcome: &Result<Answer, Error>) -> Result<(), String> {
        observed.fates.insert(task.item, judge(task, self.job_spec.retries, outcome)?);
        observed.outcomes.insert(task.item, outcome_text(outcome));
        Ok(())
    }

    /// Returns whether an error that belongs to no item may end the outcomes.
    fn ends_early(&self, outcome: &Result<Answer, Error>, observed: &mut Observed) -> Result<bool, String> {
        match outcome {
            Err(error) if error.kind() == ErrorKind::Cancelled => Ok(self.has(Mark::Cancelled)),
            Err(error) if error.kind() == ErrorKind::InvalidArgument => {
                observed.gone = self.has(Mark::Discarded);
                Ok(observed.gone)
            }
            _ => Err(format!("it cannot be read: {outcome:?}")),
        }
    }

    fn unless_gone<T>(&self, done: Result<T, Error>) -> Result<Option<T>, String> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(error) if error.kind() == ErrorKind::InvalidArgument && self.may_go() => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Returns whether it may be gone: it may be incomplete without a client, or was discarded.
    fn may_go(&self) -> bool {
        let whole = self.has(Mark::Detached) || !self.job_records.began(self.name()).is_empty();
        !whole || self.has(Mark::Discarded)
    }

    fn note(&self, observed: Observed) -> Observed {
        self.job_records.note_read(self.name(), &observed.outcomes);
        observed
    }

    fn has(&self, mark: Mark) -> bool {
        self.job_records.has(self.name(), mark)
    }

    fn name(&self) -> &str {
        &self.job_spec.name
    }
}

/// Returns whether no more outcomes follow.
pub(crate) fn has_ended(status: &DetachedStatus) -> bool {
    !matches!(status.state, DetachedState::Receiving | DetachedState::Running)
}

/// Formats an outcome as one line, the same for all readers.
fn outcome_text(outcome: &Result<Answer, Error>) -> String {
    match outcome {
        Ok(answer) => format!("{:016x}", answer.sum()),
        Err(error) => {
            let (kind, attempts, host) = (error.kind(), error.attempts(), error.host());
            format!("{kind:?} {attempts} {host:?} {:?}", error.message())
        }
    }
}
