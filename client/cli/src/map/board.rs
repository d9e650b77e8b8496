//! The state of items between the input and the output.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::item::Item;
use super::outputs::Outputs;
use super::plan::Plan;
use super::spool::SpoolFile;
use super::task::Work;

/// Shared by the jobs that dispatch items and the loop that receives outcomes, all on one thread.
pub(super) struct Board<'a> {
    plan: &'a Plan,
    outputs: Outputs,
    /// Items that were read before the map began; they are dispatched first.
    pub(super) pending: VecDeque<(u64, Item)>,
    /// Index of the next item to read.
    pub(super) next: u64,
    /// Dispatched items without an outcome.
    pub(super) dispatched: BTreeMap<u64, Dispatched>,
    /// Items that are too long to run.
    pub(super) rejected: Vec<(u64, Item)>,
    /// Number of dispatched items whose outcome is not written.
    pub(super) unwritten: u64,
    /// Size in memory of outputs that wait for their turn.
    pub(super) waiting_bytes: usize,
    /// Their size on disk.
    pub(super) waiting_spooled: u64,
    /// No more items are dispatched.
    pub(super) stopping: bool,
    /// Most items that may be dispatched at once.
    pub(super) max_dispatched: u64,
}

/// A dispatched item.
#[derive(Debug)]
pub(super) struct Dispatched {
    pub(super) item: Item,
    /// The file of its outputs that are not in memory.
    pub(super) spool: Option<Rc<SpoolFile>>,
}

/// Most items whose outputs wait behind a slow item; then no more are dispatched.
const MAX_UNWRITTEN: u64 = 10_000;
/// Most bytes of output in memory that wait behind a slow item.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// Most bytes of output on disk that wait behind a slow item.
const MAX_WAITING_SPOOLED: u64 = 4 << 30;

impl<'a> Board<'a> {
    pub(super) fn new(plan: &'a Plan, outputs: Outputs) -> Self {
        Board {
            plan,
            outputs,
            pending: VecDeque::new(),
            next: 0,
            dispatched: BTreeMap::new(),
            rejected: Vec::new(),
            unwritten: 0,
            waiting_bytes: 0,
            waiting_spooled: 0,
            stopping: false,
            max_dispatched: 0,
        }
    }

    /// Returns whether a job may dispatch another item.
    pub(super) fn has_room(&self) -> bool {
        !self.stopping
            && self.unwritten < MAX_UNWRITTEN
            && self.waiting_bytes < MAX_WAITING_BYTES
            && self.waiting_spooled < MAX_WAITING_SPOOLED
    }

    /// Returns whether to start a new job: only with half the room free, so that there are few jobs.
    pub(super) fn has_room_for_a_job(&self) -> bool {
        self.has_room()
            && self.unwritten < MAX_UNWRITTEN / 2
            && self.waiting_bytes < MAX_WAITING_BYTES / 2
            && self.waiting_spooled < MAX_WAITING_SPOOLED / 2
            && self.dispatched_count() < self.max_dispatched
    }

    /// Returns the number of dispatched items.
    pub(super) fn dispatched_count(&self) -> u64 {
        self.dispatched.len() as u64
    }

    /// Returns the index for the next item.
    pub(super) fn take_number(&mut self) -> u64 {
        let index = self.next;
        self.next += 1;
        index
    }

    /// Dispatches an item.
    pub(super) fn dispatch(&mut self, index: u64, mut item: Item) -> Work {
        self.unwritten += 1;
        let (output_mode, spool) = self.outputs.of(&item.name);
        let Plan { timeout, grace, .. } = *self.plan;
        let (command, input) = (self.plan.command(&item, index), item.take_content());
        self.dispatched.insert(index, Dispatched { item, spool });
        Work { index, command, input, timeout, grace, output_mode }
    }

    /// Records that an item cannot run.
    pub(super) fn reject(&mut self, index: u64, item: Item) {
        self.unwritten += 1;
        self.rejected.push((index, item));
    }

    /// Removes an item whose outcome has arrived.
    pub(super) fn remove(&mut self, index: u64) -> Option<Dispatched> {
        self.dispatched.remove(&index)
    }
}
