//! A segment of the map: one job, which runs consecutive items.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use farpool::{Error, Imap, Pool};
use futures_core::Stream;

use super::board::Board;
use super::feed::{Feed, SegmentState};
use super::plan::Plan;
use super::queue::Queue;
use super::task::{self, Outcome, Work};

type Works<'a> = Box<dyn Iterator<Item = Work> + 'a>;

/// A job and its items.
pub(super) struct Segment<'a> {
    outcomes: Imap<Works<'a>, Outcome>,
    /// Index of its first item from the input. Items that were read before the map began come first.
    first: u64,
    state: Rc<SegmentState>,
}

/// An event of a segment.
pub(super) enum SegmentEvent {
    /// A command has ended, after this many attempts.
    Ended(Outcome, u32),
    /// An item was lost or could not run.
    Failed(u64, Error),
    /// The whole job failed.
    JobFailed(Error),
    /// The job has ended.
    JobEnded,
}

impl<'a> Segment<'a> {
    /// Starts a job that runs the next items of the input.
    pub(super) fn of_input(pool: &Pool, plan: &'a Plan, board: &Rc<RefCell<Board<'a>>>, queue: &Arc<Queue>) -> Self {
        let first = board.borrow().next;
        let (feed, state) = Feed::new(board, queue);
        let works: Works<'a> = Box::new(feed);
        // Outcomes are ordered when they are written: a slow item must not delay the start of others.
        let buffersize = state.share.max(plan.chunksize.unwrap_or(1));
        let outcomes = plan.job(pool, task::run).buffersize(buffersize).imap_unordered(works);
        Segment { outcomes, first, state }
    }

    /// Returns whether it will take more items.
    pub(super) fn is_fed(&self) -> bool {
        !self.state.ended.get()
    }

    /// Stops retrying commands that fail from now on.
    pub(super) fn stop_retries(&mut self) {
        self.outcomes.stop_retries();
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<SegmentEvent> {
        Pin::new(&mut self.outcomes).poll_next(context).map(|outcome| match outcome {
            None => SegmentEvent::JobEnded,
            Some(Ok(outcome)) => {
                self.note_outcome();
                SegmentEvent::Ended(outcome, self.outcomes.attempts())
            }
            Some(Err(error)) => match error.item().map(|item| self.index_of(item)) {
                Some(index) => {
                    self.note_outcome();
                    SegmentEvent::Failed(index, error)
                }
                None => SegmentEvent::JobFailed(error),
            },
        })
    }

    fn note_outcome(&self) {
        self.state.dispatched.update(|count| count.saturating_sub(1));
    }

    /// Returns the index of an item; jobs number their items from 0.
    fn index_of(&self, item: u64) -> u64 {
        let pending = self.state.pending.borrow();
        let before = usize::try_from(item).ok().and_then(|item| pending.get(item)).copied();
        before.unwrap_or_else(|| self.first + item - pending.len() as u64)
    }
}
