//! One job of the map: a run of items, or items that run again.

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
    items: Items,
}

enum Items {
    /// Those that were read before, and then those of the input from this index on.
    From(u64, Rc<Link>),
    These(Vec<u64>),
}

/// What a segment has to say.
pub(super) enum News {
    /// A command has ended.
    Ended(Outcome),
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
        let outcomes = start(pool, plan, link.share, Box::new(feed));
        Segment { outcomes, items: Items::From(first, link) }
    }

    /// Runs items again.
    pub(super) fn of_items(pool: &Pool, plan: &Plan, works: Vec<Work>) -> Self {
        let indices = works.iter().map(|work| work.index).collect();
        let outcomes = start(pool, plan, works.len() as u64, Box::new(works.into_iter()));
        Segment { outcomes, items: Items::These(indices) }
    }

    /// Whether it will take further items of the input.
    pub(super) fn is_fed(&self) -> bool {
        matches!(&self.items, Items::From(_, link) if !link.ended.get())
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<News> {
        Pin::new(&mut self.outcomes).poll_next(context).map(|outcome| match outcome {
            None => News::Over,
            Some(Ok(outcome)) => {
                self.note_back();
                News::Ended(outcome)
            }
            Some(Err(error)) => match error.item().and_then(|item| self.index_of(item)) {
                Some(index) => {
                    self.note_back();
                    News::Failed(index, error)
                }
                None => News::Broken(error),
            },
        })
    }

    fn note_back(&self) {
        if let Items::From(_, link) = &self.items {
            link.out.update(|out| out.saturating_sub(1));
        }
    }

    /// Jobs count their items from 0.
    fn index_of(&self, item: u64) -> Option<u64> {
        match &self.items {
            Items::From(first, link) => {
                let pending = link.pending.borrow();
                let before = usize::try_from(item).ok().and_then(|item| pending.get(item)).copied();
                Some(before.unwrap_or_else(|| first + item - pending.len() as u64))
            }
            Items::These(indices) => indices.get(usize::try_from(item).ok()?).copied(),
        }
    }
}

fn start<'a>(pool: &Pool, plan: &Plan, share: u64, works: Works<'a>) -> Imap<Works<'a>, Outcome> {
    let job = plan.job(pool, run);
    // Outcomes are put in order where they are written: a slow item must not keep others from being given out.
    job.buffersize(share.max(plan.chunksize.unwrap_or(1))).imap_unordered(works)
}

/// What a worker does.
fn run(work: Work) -> Outcome {
    let outcome = task::run(work);
    if !outcome.ended.is_success() {
        farpool::count_as_failed();
    }
    outcome
}
