//! What is known of the items between the input and the output.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::item::Item;
use super::outputs::Outputs;
use super::plan::Plan;
use super::spool::SpoolFile;
use super::task::Work;

/// Shared by the jobs that give items out and the loop that takes outcomes, all on one thread.
pub(super) struct Board<'a> {
    plan: &'a Plan,
    outputs: Outputs,
    /// Items that were read before the map began, which come first.
    pub(super) pending: VecDeque<(u64, Item)>,
    /// Index of the next item that is read.
    pub(super) next: u64,
    /// Items whose command runs, or is about to.
    pub(super) out: BTreeMap<u64, Flight>,
    /// Items that were too long to be run.
    pub(super) refused: Vec<(u64, Item)>,
    /// Items that were read and whose outcome is not written.
    pub(super) unwritten: u64,
    /// What outcomes take up that wait for their turn.
    pub(super) waiting_bytes: usize,
    /// The same on disk.
    pub(super) waiting_spooled: u64,
    /// Nothing more is given out.
    pub(super) stopping: bool,
    /// The most items that may be out at once.
    pub(super) most_out: u64,
}

/// An item that is out.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) item: Item,
    /// Where its outputs go that are not held in memory.
    pub(super) spool: Option<Rc<SpoolFile>>,
}

/// A slow item holds back the outputs of so many behind it, at most; then no more are given out.
const MOST_UNWRITTEN: u64 = 10_000;
/// The same in bytes of output.
const MOST_WAITING_BYTES: usize = 64 << 20;
/// The same on disk.
const MOST_WAITING_SPOOLED: u64 = 4 << 30;

impl<'a> Board<'a> {
    pub(super) fn new(plan: &'a Plan, outputs: Outputs) -> Self {
        Board {
            plan,
            outputs,
            pending: VecDeque::new(),
            next: 0,
            out: BTreeMap::new(),
            refused: Vec::new(),
            unwritten: 0,
            waiting_bytes: 0,
            waiting_spooled: 0,
            stopping: false,
            most_out: 0,
        }
    }

    /// Whether the next item of a job may be given out.
    pub(super) fn has_room(&self) -> bool {
        !self.stopping
            && self.unwritten < MOST_UNWRITTEN
            && self.waiting_bytes < MOST_WAITING_BYTES
            && self.waiting_spooled < MOST_WAITING_SPOOLED
    }

    /// Whether a new job is worth while: half the room at least, so that there are few of them.
    pub(super) fn has_room_for_a_job(&self) -> bool {
        self.has_room()
            && self.unwritten < MOST_UNWRITTEN / 2
            && self.waiting_bytes < MOST_WAITING_BYTES / 2
            && self.waiting_spooled < MOST_WAITING_SPOOLED / 2
            && self.out_now() < self.most_out
    }

    /// Items that are out.
    pub(super) fn out_now(&self) -> u64 {
        self.out.len() as u64
    }

    /// Index of the next item that is read, which was not before.
    pub(super) fn take_number(&mut self) -> u64 {
        let index = self.next;
        self.next += 1;
        index
    }

    /// Notes that an item goes out.
    pub(super) fn give_out(&mut self, index: u64, mut item: Item) -> Work {
        self.unwritten += 1;
        let (keeping, spool) = self.outputs.of(&item.name);
        let Plan { timeout, grace, .. } = *self.plan;
        let (command, input) = (self.plan.command(&item, index), item.take_content());
        self.out.insert(index, Flight { item, spool });
        Work { index, command, input, timeout, grace, keeping }
    }

    /// Notes that an item cannot be run.
    pub(super) fn refuse(&mut self, index: u64, item: Item) {
        self.unwritten += 1;
        self.refused.push((index, item));
    }

    /// An item's outcome has come.
    pub(super) fn take_back(&mut self, index: u64) -> Option<Flight> {
        self.out.remove(&index)
    }
}
