//! Reads a detached job's outcomes, in the order of its items.

mod follow;

use std::sync::Arc;
use std::task::Waker;

use super::super::connect::Connect;
use super::attempts::Attempts;
use super::inbox::{Arrival, End, Inbox};
use super::keeper::Keeper;
use super::refusal::Subject;
use super::{Named, Place, thread};
use crate::error::Error;
use crate::fork::{self, Owned};
use crate::results::Results;
use follow::Follower;

/// The outcomes of a detached job, as they come.
pub struct Reading {
    inbox: Owned<Arc<Inbox>>,
    subject: Subject,
    current: Option<Results>,
    /// Failed items whose turn is next: the first, how many, and their error.
    failed: Option<(u64, u64, Error)>,
    /// The next item.
    next: u64,
    /// How many attempts the item of the last outcome took.
    attempts: u32,
    /// Some items before it had no outcome.
    lacks: bool,
    /// Whether each item without an outcome is a step of its own.
    tells_missing: bool,
    /// How reading ended, once it has.
    end: Option<End>,
}

/// The next step in reading.
pub enum Step<T> {
    /// An item's outcome.
    Outcome(u64, Result<T, Error>),
    /// An item has no outcome, although later ones have: the job was cancelled, or is still running.
    Missing(u64),
    /// The end.
    Ended(End),
    /// Nothing has arrived yet.
    Wait,
}

impl Reading {
    /// Begins to read; with `wait`, until the job has ended. Items without an outcome are skipped.
    pub fn start(place: &Place, verb: &'static str, job: &Named, wait: bool) -> Result<Self, Error> {
        let (reading, read) = Self::over(place.way(), Subject::new(place, verb, job), place.attempts(), wait);
        let refused = Arc::clone(&*reading.inbox);
        thread::start(read, move |error| refused.end(End::Broken(error)))?;
        Ok(reading)
    }

    /// The same over any way to the coordinator; what this returns beside is to be driven to its end.
    pub(super) fn over<C: Connect<Connection: Keeper>>(
        connect: C,
        subject: Subject,
        attempts: Attempts,
        wait: bool,
    ) -> (Self, impl Future<Output = ()> + use<C>) {
        let inbox = Arc::new(Inbox::default());
        let (own, follower) = (Arc::clone(&inbox), Follower::new(connect, subject.clone(), attempts, wait));
        let read = async move {
            let ended = tokio::select! {
                biased;
                () = own.abandoned() => return,
                ended = follower.run(&own) => ended,
            };
            own.end(ended);
        };
        let (current, failed, next, attempts, lacks, tells_missing, end) = (None, None, 0, 0, false, false, None);
        let inbox = Owned::new(inbox);
        (Self { inbox, subject, current, failed, next, attempts, lacks, tells_missing, end }, read)
    }

    /// Makes each item without an outcome a separate step.
    pub fn telling_missing(mut self) -> Self {
        self.tells_missing = true;
        self
    }

    /// Items of the job, as far as that is known.
    pub fn items(&self) -> u64 {
        self.inbox.items()
    }

    /// Bytes of outcomes that were read and not taken.
    pub fn bytes(&self) -> usize {
        self.inbox.bytes()
    }

    /// Returns how many attempts the item of the last outcome took.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Returns the next outcome that has arrived; `decode` converts a result's bytes.
    pub fn step<T, E: Into<Error>>(&mut self, decode: impl FnOnce(&[u8]) -> Result<T, E>) -> Step<T> {
        if let Err(error) = fork::check_detached(self.inbox.owner()) {
            return Step::Ended(End::Broken(self.subject.tell(error)));
        }
        loop {
            if let Some(end) = &self.end {
                return Step::Ended(end.clone());
            }
            if let Some(results) = &mut self.current {
                let (item, attempts) = (results.next_item(), results.attempts());
                if item > self.next {
                    match self.miss(item) {
                        Some(missing) => return Step::Missing(missing),
                        None => continue,
                    }
                }
                match results.next() {
                    Some(Ok((item, bytes))) => {
                        (self.next, self.attempts) = (item + 1, attempts);
                        return Step::Outcome(
                            item,
                            decode(bytes).map_err(|error| self.subject.tell(error.into().of_item(item))),
                        );
                    }
                    Some(Err(error)) => self.end = Some(End::Broken(self.subject.tell(error))),
                    None => self.current = None,
                }
                continue;
            }
            if let Some((item, count, error)) = self.failed.take() {
                if item > self.next
                    && let Some(missing) = self.miss(item)
                {
                    self.failed = Some((item, count, error));
                    return Step::Missing(missing);
                }
                (self.next, self.attempts) = (item + 1, error.attempts());
                self.failed = (count > 1).then(|| (item + 1, count - 1, error.clone()));
                return Step::Outcome(item, Err(self.subject.tell(error.of_item(item))));
            }
            match self.inbox.take() {
                None => return Step::Wait,
                Some(Ok(arrival)) => self.accept(arrival),
                Some(Err(end)) => self.end = Some(self.finish(end)),
            }
        }
    }

    /// Skips the items that failed together with the item of the last step.
    pub fn pass_over_alike(&mut self) {
        if let Some((first, count, _)) = self.failed.take_if(|(first, ..)| *first == self.next) {
            self.next = first + count;
        }
    }

    /// Blocks until there is news.
    pub fn wait(&self) {
        if self.inbox.owner().is_here() {
            self.inbox.wait();
        }
    }

    /// Wakes the task at the next news; returns whether there already is some.
    pub fn wake_for_news(&self, waker: &Waker) -> bool {
        !self.inbox.owner().is_here() || self.inbox.wake_for_news(waker)
    }

    /// Nothing has come of the items up to this one. Returns the next of them, if that is to be told.
    fn miss(&mut self, up_to: u64) -> Option<u64> {
        self.lacks = true;
        if !self.tells_missing {
            self.next = up_to;
            return None;
        }
        self.next += 1;
        Some(self.next - 1)
    }

    fn accept(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Failed(first, count, error) => self.failed = Some((first, count, error)),
            Arrival::Done(done) => match Results::new(done.first, done.data, done.ends, self.items()) {
                Ok(results) => self.current = Some(results.tried(done.attempts)),
                Err(error) => self.end = Some(End::Broken(self.subject.tell(error))),
            },
        }
    }

    /// Checks that the end is one.
    fn finish(&self, end: End) -> End {
        if matches!(end, End::Finished) && (self.lacks || self.next != self.items()) {
            let error = Error::protocol("the job has finished although outcomes of items are missing");
            return End::Broken(self.subject.tell(error));
        }
        end
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if self.inbox.owner().is_here() {
            self.inbox.abandon();
        }
    }
}
