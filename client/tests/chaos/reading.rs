//! Picking up a detached job in any process, and whether what is there may be so.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use farpool::{Detached, DetachedState, DetachedStatus, Error, ErrorKind};

use crate::ledger::{Ledger, Mark};
use crate::recipe::Recipe;
use crate::work::{Answer, Fate, Task, item_of, judge};

/// Nobody keeps the coordinator away for that long.
const OPENING: Duration = Duration::from_secs(30);

/// A job whose outcomes are read.
pub(crate) struct Reader<'l> {
    ledger: &'l Ledger,
    recipe: &'l Recipe,
}

/// What was read of a job.
#[derive(Debug, Default)]
pub(crate) struct Story {
    /// Outcomes by item, as they are told.
    pub(crate) outcomes: BTreeMap<u64, String>,
    pub(crate) fates: BTreeMap<u64, Fate>,
    /// It was discarded meanwhile.
    pub(crate) gone: bool,
}

impl<'l> Reader<'l> {
    pub(crate) fn new(ledger: &'l Ledger, recipe: &'l Recipe) -> Self {
        Self { ledger, recipe }
    }

    /// The job, if it is there; otherwise it may be missing. While the coordinator cannot be reached it is tried again.
    pub(crate) fn attach(&self, address: &str) -> Result<Option<Detached<Answer>>, String> {
        let start = Instant::now();
        loop {
            // What was so before is so all the more now.
            let (ran, whole) = (!self.ledger.began(self.name()).is_empty(), self.has(Mark::Detached));
            let error = match farpool::attach_to(address, self.name()) {
                Ok(job) => return Ok(Some(job)),
                Err(error) => error,
            };
            match error.kind() {
                ErrorKind::Unavailable if start.elapsed() < OPENING => thread::sleep(Duration::from_millis(20)),
                ErrorKind::InvalidArgument if self.has(Mark::Discarded) => return Ok(None),
                ErrorKind::InvalidArgument if whole => return Err(format!("its detach has returned, but: {error}")),
                ErrorKind::InvalidArgument if ran => return Err(format!("items of it ran, but: {error}")),
                ErrorKind::InvalidArgument => return Ok(None),
                _ => return Err(format!("it cannot be attached to: {error}")),
            }
        }
    }

    /// How far it is; none: it was discarded.
    pub(crate) fn status(&self, job: &Detached<Answer>) -> Result<Option<DetachedStatus>, String> {
        let (began, whole) = (self.ledger.began(self.name()), self.has(Mark::Detached));
        let Some(status) = self.unless_gone(job.status())? else { return Ok(None) };
        let DetachedStatus { state, items, done, failed, .. } = status;
        let wrong = match state {
            DetachedState::Receiving if whole => Some("its detach has returned"),
            DetachedState::Receiving if !began.is_empty() => Some("items of it ran"),
            DetachedState::Receiving => None,
            DetachedState::Failed => Some("nothing is wrong with its pool"),
            _ if items != self.recipe.items => Some("it has another number of items"),
            _ if failed > done || done > items => Some("these numbers cannot be"),
            DetachedState::Finished if done < items => Some("not all items have an outcome"),
            DetachedState::Cancelled if !self.has(Mark::Cancelled) => Some("nobody has cancelled it"),
            _ => None,
        };
        match wrong {
            Some(wrong) => Err(format!("{wrong}, but it is {status:?}")),
            None => Ok(Some(status)),
        }
    }

    /// Reads the outcomes in their order, no more than so many.
    pub(crate) fn iter(&self, job: &Detached<Answer>, most: u64) -> Result<Story, String> {
        let mut story = Story::default();
        let mut outcomes = job.iter().map_err(|error| format!("it cannot be read: {error}"))?;
        for task in self.recipe.tasks() {
            if task.item >= most {
                return Ok(self.note(story));
            }
            let outcome = outcomes.next().ok_or_else(|| format!("it has no outcome of item {}", task.item))?;
            match item_of(&outcome) {
                Some(item) if item == task.item => {}
                None if self.ends_early(&outcome, &mut story)? => return Ok(self.note(story)),
                _ => return Err(format!("where that of item {} was due, there is {outcome:?}", task.item)),
            }
            if matches!(&outcome, Err(error) if error.kind() == ErrorKind::Cancelled) && self.has(Mark::Cancelled) {
                continue;
            }
            self.take(&mut story, &task, &outcome)?;
        }
        match outcomes.next() {
            None => {}
            Some(end) if item_of(&end).is_none() && self.ends_early(&end, &mut story)? => {}
            Some(more) => return Err(format!("behind its last item there is {more:?}")),
        }
        Ok(self.note(story))
    }

    /// Takes all results at once, or the error of the first item that failed.
    pub(crate) fn get(&self, job: &Detached<Answer>) -> Result<Story, String> {
        let mut story = Story::default();
        match job.get() {
            Ok(results) => self.take_all(&mut story, results)?,
            Err(error) => match error.item().and_then(|item| self.recipe.tasks().nth(item as usize)) {
                Some(task) => self.take(&mut story, &task, &Err(error))?,
                None if self.ends_early(&Err(error.clone()), &mut story)? => {}
                None => return Err(format!("it cannot be taken: {error}")),
            },
        }
        Ok(self.note(story))
    }

    /// Drops what has no outcome yet; when that has returned, it has ended.
    pub(crate) fn cancel(&self, job: &Detached<Answer>) -> Result<(), String> {
        self.ledger.mark(self.name(), Mark::Cancelled);
        if self.unless_gone(job.cancel())?.is_none() {
            return Ok(());
        }
        match self.status(job)? {
            Some(status) if !has_ended(&status) => Err(format!("it was cancelled, but it is {status:?}")),
            _ => Ok(()),
        }
    }

    /// Drops it, if nobody has before; when that has returned, it is gone.
    pub(crate) fn discard(&self, address: &str, job: &Detached<Answer>) -> Result<(), String> {
        if !self.ledger.mark(self.name(), Mark::Discarded) {
            return Ok(());
        }
        job.discard().map_err(|error| format!("it cannot be discarded: {error}"))?;
        self.attach(address)?.map_or(Ok(()), |_| Err("it was discarded, and is there".to_owned()))
    }

    /// Whether everything that has an outcome of its own making ran, and nothing oftener than it may.
    pub(crate) fn check_runs(&self, story: &Story) -> Result<(), String> {
        let began = self.ledger.began(self.name());
        let once: BTreeSet<u64> = began.iter().copied().collect();
        if self.recipe.retries == 0 && began.len() > once.len() {
            let twice = once.iter().find(|item| began.iter().filter(|other| other == item).count() > 1);
            return Err(format!("item {twice:?} ran twice, and was to run once at most"));
        }
        let of_its_own = |fate: &Fate| matches!(fate, Fate::Done | Fate::Panicked);
        let never = story.fates.iter().find(|(item, fate)| of_its_own(fate) && !once.contains(item));
        never.map_or(Ok(()), |(item, _)| Err(format!("item {item} has an outcome but never ran")))
    }

    fn take_all(&self, story: &mut Story, results: Vec<Answer>) -> Result<(), String> {
        if results.len() as u64 != self.recipe.items {
            return Err(format!("{} results of {} items", results.len(), self.recipe.items));
        }
        self.recipe.tasks().zip(results).try_for_each(|(task, result)| self.take(story, &task, &Ok(result)))
    }

    fn take(&self, story: &mut Story, task: &Task, outcome: &Result<Answer, Error>) -> Result<(), String> {
        story.fates.insert(task.item, judge(task, self.recipe.retries, outcome)?);
        story.outcomes.insert(task.item, told(outcome));
        Ok(())
    }

    /// Whether an error that is of no item may end the outcomes.
    fn ends_early(&self, outcome: &Result<Answer, Error>, story: &mut Story) -> Result<bool, String> {
        match outcome {
            Err(error) if error.kind() == ErrorKind::Cancelled => Ok(self.has(Mark::Cancelled)),
            Err(error) if error.kind() == ErrorKind::InvalidArgument => {
                story.gone = self.has(Mark::Discarded);
                Ok(story.gone)
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

    /// Whether it may be gone: nobody goes on detaching it, or it was discarded.
    fn may_go(&self) -> bool {
        let whole = self.has(Mark::Detached) || !self.ledger.began(self.name()).is_empty();
        !whole || self.has(Mark::Discarded)
    }

    fn note(&self, story: Story) -> Story {
        self.ledger.note_read(self.name(), &story.outcomes);
        story
    }

    fn has(&self, mark: Mark) -> bool {
        self.ledger.has(self.name(), mark)
    }

    fn name(&self) -> &str {
        &self.recipe.name
    }
}

/// Whether no more outcomes come.
pub(crate) fn has_ended(status: &DetachedStatus) -> bool {
    !matches!(status.state, DetachedState::Receiving | DetachedState::Running)
}

/// An outcome in one line: the same for all who read it.
fn told(outcome: &Result<Answer, Error>) -> String {
    match outcome {
        Ok(answer) => format!("{:016x}", answer.sum()),
        Err(error) => {
            let (kind, attempts, host) = (error.kind(), error.attempts(), error.host());
            format!("{kind:?} {attempts} {host:?} {:?}", error.message())
        }
    }
}
