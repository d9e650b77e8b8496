//! The items of one job: the input, until it pauses or there is no room.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::board::Board;
use super::queue::Queue;
use super::task::Work;

/// An iterator over the items of a job.
///
/// `imap` pulls items on the thread that also writes outcomes, and `None` ends the job. So a job ends when its input
/// pauses, and another one continues later. A fast input is one job, however long it is.
pub(super) struct Feed<'a> {
    board: Rc<RefCell<Board<'a>>>,
    queue: Arc<Queue>,
    state: Rc<SegmentState>,
}

/// The state that a job's feed and its segment share.
#[derive(Debug)]
pub(super) struct SegmentState {
    /// Most items of this job that may be dispatched at once.
    pub(super) share: u64,
    /// Dispatched items of this job.
    pub(super) dispatched: Cell<u64>,
    pub(super) ended: Cell<bool>,
    /// Indices of its first items, which were read before the map began. The others are consecutive.
    pub(super) pending: RefCell<Vec<u64>>,
}

/// An input that yields nothing for this long has paused.
const PAUSE: Duration = Duration::from_millis(5);

impl<'a> Feed<'a> {
    pub(super) fn new(board: &Rc<RefCell<Board<'a>>>, queue: &Arc<Queue>) -> (Self, Rc<SegmentState>) {
        let share = share(&board.borrow(), 0);
        let state = Rc::new(SegmentState {
            share,
            dispatched: Cell::new(0),
            ended: Cell::new(false),
            pending: RefCell::default(),
        });
        (Feed { board: Rc::clone(board), queue: Arc::clone(queue), state: Rc::clone(&state) }, state)
    }

    fn next_work(&self) -> Option<Work> {
        let mut board = self.board.borrow_mut();
        // Earlier jobs have ended, or agents have joined: the next job uses the additional room.
        let has_grown = share(&board, self.state.dispatched.get()) > self.state.share;
        if has_grown || !board.has_room() {
            return None;
        }
        let (index, item) = match board.pending.pop_front() {
            Some((index, item)) => {
                if !item.cut {
                    self.state.pending.borrow_mut().push(index);
                }
                (index, item)
            }
            None => {
                let item = self.queue.pop(PAUSE)?;
                (board.take_number(), item)
            }
        };
        if item.cut {
            board.reject(index, item);
            return None;
        }
        self.state.dispatched.update(|count| count + 1);
        Some(board.dispatch(index, item))
    }
}

impl Iterator for Feed<'_> {
    type Item = Work;

    fn next(&mut self) -> Option<Work> {
        let work = self.next_work();
        self.state.ended.set(work.is_none());
        work
    }
}

/// Returns how many items other jobs leave to this one.
fn share(board: &Board<'_>, own: u64) -> u64 {
    let others = board.dispatched_count().saturating_sub(own);
    board.max_dispatched.saturating_sub(others).max(1)
}
