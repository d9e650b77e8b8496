//! Reads a detached job's outcomes, in the order of its items.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use farpool_net::Secret;
use farpool_proto::v1::Attach;

use super::super::borrower::Borrower;
use super::super::subject::Subject;
use super::session::{JobConversation, JobSession};
use super::{JobLocation, JobRef};
use crate::error::Error;
use crate::fork::{self, Owned};
use crate::inbox::{self, Delivery};
use crate::results::Results;

/// The number of the job, which is alone in its session.
const JOB: u64 = 1;
/// The largest result that any pool may allow.
const LARGEST_RESULT: u64 = 2 << 30;

/// Reads the outcomes of a detached job as they arrive.
pub struct JobReader {
    incoming: Owned<Incoming>,
    subject: Subject,
    /// Deliveries that were not handled yet.
    deliveries: VecDeque<Delivery>,
    current: Option<Results>,
    /// Failed items whose turn is next: the first, how many, and their error.
    failed: Option<(u64, u64, Error)>,
    /// The next item.
    next: u64,
    /// How many attempts the item of the last outcome took.
    attempts: u32,
    /// Whether items before the next one had no outcome.
    has_gaps: bool,
    /// Whether each item without an outcome is a step of its own.
    reports_missing: bool,
    /// How reading ended, once it has.
    end: Option<ReadEnd>,
}

/// The session that a job is read in.
struct Incoming {
    session: JobSession,
    /// If an item's task started this process: the item's slot is lent while a thread or task waits for outcomes.
    _borrower: Option<Arc<Borrower>>,
}

/// How reading ended.
#[derive(Clone, Debug)]
pub enum ReadEnd {
    /// Every item has its outcome.
    Finished,
    /// The job was cancelled.
    Cancelled,
    /// The job's pool cannot run.
    Failed(Error),
    /// The job can no longer be read.
    Broken(Error),
    /// All outcomes so far were read, as requested; the job is still running.
    Running,
}

/// The next step in reading.
pub enum Step<T> {
    /// An item's outcome.
    Outcome(u64, Result<T, Error>),
    /// An item has no outcome, although later ones have: the job was cancelled, or is still running.
    Missing(u64),
    /// The end.
    Ended(ReadEnd),
    /// Nothing has arrived yet.
    Wait,
}

impl JobReader {
    /// Begins to read; with `wait`, until the job has ended. Items without an outcome are skipped.
    pub fn start(location: &JobLocation, verb: &'static str, job: &JobRef, wait: bool) -> Result<Self, Error> {
        let (reader, conversation) = Self::new(Subject::new(location, verb, job), Secret::random(), wait);
        conversation.start(Box::new(drop))?;
        Ok(reader)
    }

    /// Creates the reader, and its conversation, which has not begun.
    pub(super) fn new(subject: Subject, secret: Secret, wait: bool) -> (Self, JobConversation) {
        // A reader that does not wait needs no slot.
        let borrower = if wait { Borrower::claim(|_| ()) } else { None };
        let (name, id) = subject.job().parts();
        let attach = Attach {
            name,
            wait,
            id,
            ticket: borrower.as_ref().map(|borrower| borrower.ticket()),
            version: Some(farpool_proto::version()),
            secret: secret.to_bytes(),
            job: JOB,
            ..Attach::default()
        };
        let (session, conversation) = JobSession::new(subject.clone(), secret, attach.into(), JOB, Vec::new());
        let incoming = Owned::new(Incoming { session, _borrower: borrower });
        let deliveries = VecDeque::new();
        let (current, failed, next, attempts, has_gaps, reports_missing, end) = (None, None, 0, 0, false, false, None);
        let reader =
            Self { incoming, subject, deliveries, current, failed, next, attempts, has_gaps, reports_missing, end };
        (reader, conversation.accepting(LARGEST_RESULT))
    }

    /// Makes each item without an outcome a separate step.
    pub fn reporting_missing(mut self) -> Self {
        self.reports_missing = true;
        self
    }

    /// Returns how many items the job has, as far as known.
    pub fn items(&self) -> u64 {
        self.incoming.session.inbox.pulled()
    }

    /// Returns the bytes of outcomes that were read but not taken.
    pub fn bytes(&self) -> u64 {
        self.incoming.session.shared.gate.held()
    }

    /// Returns how many attempts the item of the last outcome took.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Returns the next outcome that has arrived; `decode` converts a result's bytes.
    pub fn step<T, E: Into<Error>>(&mut self, decode: impl FnOnce(&[u8]) -> Result<T, E>) -> Step<T> {
        if let Err(error) = fork::check_detached(self.incoming.owner()) {
            return Step::Ended(ReadEnd::Broken(self.subject.of_job(error)));
        }
        loop {
            if let Some(end) = &self.end {
                return Step::Ended(end.clone());
            }
            if let Some(results) = &mut self.current {
                let (item, attempts) = (results.next_item(), results.attempts());
                if item > self.next {
                    match self.skip_missing(item) {
                        Some(missing) => return Step::Missing(missing),
                        None => continue,
                    }
                }
                match results.next() {
                    Some(Ok((item, bytes))) => {
                        (self.next, self.attempts) = (item + 1, attempts);
                        return Step::Outcome(
                            item,
                            decode(bytes).map_err(|error| self.subject.of_job(error.into().of_item(item))),
                        );
                    }
                    Some(Err(error)) => self.end = Some(ReadEnd::Broken(self.subject.of_job(error))),
                    None => self.current = None,
                }
                continue;
            }
            if let Some((item, count, error)) = self.failed.take() {
                if item > self.next
                    && let Some(missing) = self.skip_missing(item)
                {
                    self.failed = Some((item, count, error));
                    return Step::Missing(missing);
                }
                (self.next, self.attempts) = (item + 1, error.attempts());
                self.failed = (count > 1).then(|| (item + 1, count - 1, error.clone()));
                return Step::Outcome(item, Err(self.subject.of_job(error.of_item(item))));
            }
            if let Some(delivery) = self.deliveries.pop_front() {
                self.accept(delivery);
                continue;
            }
            let ended = self.incoming.session.inbox.take(&mut self.deliveries);
            if self.deliveries.is_empty() {
                if !ended {
                    return Step::Wait;
                }
                self.end = Some(self.finish());
            }
        }
    }

    /// Skips the items that failed together with the item of the last step.
    pub fn skip_same_failure(&mut self) {
        if let Some((first, count, _)) = self.failed.take_if(|(first, ..)| *first == self.next) {
            self.next = first + count;
        }
    }

    /// Blocks until something has arrived, or until the deadline.
    pub fn wait(&self, deadline: Option<Instant>) {
        let inbox = &self.incoming.session.inbox;
        if self.incoming.owner().is_here() && !inbox.has_arrivals() {
            inbox.park(deadline);
        }
    }

    /// Wakes the task when something arrives; returns whether something already has.
    pub fn wake_on_arrival(&self, waker: &Waker) -> bool {
        !self.incoming.owner().is_here() || self.incoming.session.inbox.wake_on_arrival(waker)
    }

    /// Skips items without an outcome, up to this one. Returns the next of them, if each is to be reported.
    fn skip_missing(&mut self, up_to: u64) -> Option<u64> {
        self.has_gaps = true;
        if !self.reports_missing {
            self.next = up_to;
            return None;
        }
        self.next += 1;
        Some(self.next - 1)
    }

    fn accept(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Failed { first, count, error, held: _ } => self.failed = Some((first, count, error)),
            Delivery::Done { first, data, ends, attempts, held } => match Results::new(first, data, ends, self.items())
            {
                Ok(results) => self.current = Some(results.with_attempts(attempts).holding(held)),
                Err(error) => self.end = Some(ReadEnd::Broken(self.subject.of_job(error))),
            },
        }
    }

    /// Returns how the job has ended, after its last outcome.
    fn finish(&self) -> ReadEnd {
        let JobSession { shared, inbox } = &self.incoming.session;
        match inbox.how_ended() {
            Some(inbox::End::Finished) if self.has_gaps || self.next != self.items() => {
                let error = Error::protocol("the job has finished although outcomes of items are missing");
                ReadEnd::Broken(self.subject.of_job(error))
            }
            Some(inbox::End::Finished) => ReadEnd::Finished,
            Some(inbox::End::Cancelled) => ReadEnd::Cancelled,
            Some(inbox::End::PoolFailed(error)) => {
                let error = self.subject.of_job(error);
                // If the session failed, the error is not that of the job's pool.
                if shared.failure().is_some() { ReadEnd::Broken(error) } else { ReadEnd::Failed(error) }
            }
            Some(inbox::End::Closed) | None => ReadEnd::Running,
        }
    }
}
