//! What one job is given: the input, as far as it comes without a pause and there is room.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::board::Board;
use super::queue::Queue;
use super::task::Work;

/// imap asks for items on the thread that also writes outcomes, and takes `None` for the end: so a job ends when its input
/// pauses, and another one goes on later. A quick input is one job, however long it is.
pub(super) struct Feed<'a> {
    board: Rc<RefCell<Board<'a>>>,
    queue: Arc<Queue>,
    link: Rc<Link>,
}

/// What a job's feed and the rest of it tell each other.
#[derive(Debug)]
pub(super) struct Link {
    /// Items of this job that may be out at once.
    pub(super) share: u64,
    /// Items of this job that are out.
    pub(super) out: Cell<u64>,
    pub(super) ended: Cell<bool>,
    /// Indices of its first items: those that were read before the map began. The others follow each other.
    pub(super) pending: RefCell<Vec<u64>>,
}

/// An input that is silent for longer has paused.
const PAUSE: Duration = Duration::from_millis(5);

impl<'a> Feed<'a> {
    pub(super) fn new(board: &Rc<RefCell<Board<'a>>>, queue: &Arc<Queue>) -> (Self, Rc<Link>) {
        let share = share(&board.borrow(), 0);
        let link = Rc::new(Link { share, out: Cell::new(0), ended: Cell::new(false), pending: RefCell::default() });
        (Feed { board: Rc::clone(board), queue: Arc::clone(queue), link: Rc::clone(&link) }, link)
    }

    fn next_work(&self) -> Option<Work> {
        let mut board = self.board.borrow_mut();
        // Jobs before this one have left it more room, or agents have come: the next job makes use of that.
        let has_grown = share(&board, self.link.out.get()) > self.link.share;
        if has_grown || !board.has_room() {
            return None;
        }
        let (index, item) = match board.pending.pop_front() {
            Some((index, item)) => {
                if !item.cut {
                    self.link.pending.borrow_mut().push(index);
                }
                (index, item)
            }
            None => {
                let item = self.queue.pop(PAUSE)?;
                (board.take_number(), item)
            }
        };
        if item.cut {
            board.refuse(index, item);
            return None;
        }
        self.link.out.update(|out| out + 1);
        Some(board.give_out(index, item))
    }
}

impl Iterator for Feed<'_> {
    type Item = Work;

    fn next(&mut self) -> Option<Work> {
        let work = self.next_work();
        self.link.ended.set(work.is_none());
        work
    }
}

/// What other jobs leave of the items that may be out.
fn share(board: &Board<'_>, own: u64) -> u64 {
    let others = board.out_now().saturating_sub(own);
    board.most_out.saturating_sub(others).max(1)
}
