//! One job of the map: a run of items.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use farpool::{Error, Imap, Pool};
use futures_core::Stream;

use super::board::Board;
use super::feed::{Feed, Link};
use super::plan::Plan;
use super::queue::Queue;
use super::task::{self, Outcome, Work};

type Works<'a> = Box<dyn Iterator<Item = Work> + 'a>;

/// A job and what it runs.
pub(super) struct Segment<'a> {
    outcomes: Imap<Works<'a>, Outcome>,
    /// Its items: those that were read before, and then those of the input from this index on.
    first: u64,
    link: Rc<Link>,
}

/// What a segment has to say.
pub(super) enum News {
    /// A command has ended, after this many attempts.
    Ended(Outcome, u32),
    /// An item could not be run to its end.
    Failed(u64, Error),
    /// The whole job could not.
    Broken(Error),
    /// It is over.
    Over,
}

impl<'a> Segment<'a> {
    /// Runs what comes next from the input.
    pub(super) fn of_input(pool: &Pool, plan: &'a Plan, board: &Rc<RefCell<Board<'a>>>, queue: &Arc<Queue>) -> Self {
        let first = board.borrow().next;
        let (feed, link) = Feed::new(board, queue);
        let works: Works<'a> = Box::new(feed);
        // Outcomes are put in order where they are written: a slow item must not keep others from being given out.
        let buffersize = link.share.max(plan.chunksize.unwrap_or(1));
        let outcomes = plan.job(pool, task::run).buffersize(buffersize).imap_unordered(works);
        Segment { outcomes, first, link }
    }

    /// Whether it will take further items of the input.
    pub(super) fn is_fed(&self) -> bool {
        !self.link.ended.get()
    }

    /// Stops retries of commands that fail from now on.
    pub(super) fn stop_retries(&mut self) {
        self.outcomes.stop_retries();
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<News> {
        Pin::new(&mut self.outcomes).poll_next(context).map(|outcome| match outcome {
            None => News::Over,
            Some(Ok(outcome)) => {
                self.note_back();
                News::Ended(outcome, self.outcomes.attempts())
            }
            Some(Err(error)) => match error.item().map(|item| self.index_of(item)) {
                Some(index) => {
                    self.note_back();
                    News::Failed(index, error)
                }
                None => News::Broken(error),
            },
        })
    }

    fn note_back(&self) {
        self.link.out.update(|out| out.saturating_sub(1));
    }

    /// Jobs count their items from 0.
    fn index_of(&self, item: u64) -> u64 {
        let pending = self.link.pending.borrow();
        let before = usize::try_from(item).ok().and_then(|item| pending.get(item)).copied();
        before.unwrap_or_else(|| self.first + item - pending.len() as u64)
    }
}
