//! The workers of a pool: counts them by what they do, and sends orders to all of them.

use std::ops::{Index, IndexMut};

use super::chunks::Piece;
use super::pace::Pace;
use super::round::Round;
use super::wait::Armed;
use super::worker::{STALLED_NS, Worker};

/// Exiting workers that are allowed beyond one for each slot.
const EXTRA_EXITING: usize = 4;

/// The workers of a pool.
#[derive(Debug, Default)]
pub(super) struct Crew {
    /// In the order in which they were started.
    workers: Vec<Worker>,
    /// Some of them may have items that wait for other items.
    may_lend: bool,
    /// Some of them get no items until other pools have had their turn.
    yields_slot: bool,
}

impl Index<usize> for Crew {
    type Output = Worker;

    fn index(&self, at: usize) -> &Worker {
        &self.workers[at]
    }
}

impl IndexMut<usize> for Crew {
    fn index_mut(&mut self, at: usize) -> &mut Worker {
        &mut self.workers[at]
    }
}

impl Crew {
    pub(super) fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.workers.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Worker> {
        self.workers.iter()
    }

    /// Returns the index of the worker with this number.
    pub(super) fn position(&self, number: u32) -> Option<usize> {
        self.workers.iter().position(|worker| worker.number() == number)
    }

    /// Returns the process id of the worker with this number; 0 if it is not known yet.
    pub(super) fn pid_of(&self, number: u32) -> u32 {
        self.position(number).map_or(0, |at| self.workers[at].known_pid())
    }

    pub(super) fn add(&mut self, worker: Worker) {
        self.workers.push(worker);
    }

    pub(super) fn remove(&mut self, at: usize) -> Worker {
        self.workers.remove(at)
    }

    /// Handles the ready socket of the worker with this number.
    pub(super) fn socket_ready(&mut self, number: u32, round: &Round) {
        if let Some(at) = self.position(number) {
            self.may_lend |= self.workers[at].socket_ready(round);
        }
    }

    // ---- counts

    /// Returns the number of workers that have items and do not lend their slots.
    pub(super) fn running(&self) -> usize {
        self.workers.iter().filter(|worker| worker.runs()).count()
    }

    /// Returns the number of workers that are ready or starting.
    pub(super) fn serving(&self) -> usize {
        self.workers.iter().filter(|worker| worker.serves()).count()
    }

    /// Returns the number of workers that lend their slots.
    pub(super) fn lent(&self) -> usize {
        if self.may_lend { self.workers.iter().filter(|worker| worker.is_lent()).count() } else { 0 }
    }

    /// Returns how many runs of items are at workers that lend their slots.
    pub(super) fn runs_of_lent(&self) -> usize {
        self.workers.iter().filter(|worker| worker.is_lent()).map(Worker::runs_of_items).sum()
    }

    /// Returns how many runs of items the workers have.
    pub(super) fn runs_of_items(&self) -> usize {
        self.workers.iter().map(Worker::runs_of_items).sum()
    }

    /// Returns how many exiting workers still occupy their slots, and when the first of these slots becomes free.
    pub(super) fn held_slots(&self, now: u64) -> (usize, Option<u64>) {
        let holders = self.workers.iter().filter(|worker| worker.holds_slot(now));
        holders.fold((0, None), |(count, first), worker| {
            (count + 1, [first, worker.slot_held_until()].into_iter().flatten().min())
        })
    }

    /// Returns whether too many workers are exiting for new ones to be started. Those beyond the limit were killed
    /// already, so this does not last long.
    pub(super) fn too_many_exit(&self, slots: u32) -> bool {
        let most = most_exiting(slots);
        self.workers.len() > most && self.workers.iter().filter(|worker| worker.is_exiting()).count() > most
    }

    /// Returns the number of exiting workers that were not killed.
    pub(super) fn exiting_slowly(&self) -> usize {
        self.workers.iter().filter(|worker| worker.exits_slowly()).count()
    }

    /// Marks the worker that has been exiting longest as killed. Returns its number, to kill it by.
    pub(super) fn mark_longest_exiting_killed(&mut self, now: u64) -> Option<u32> {
        let slow = self.workers.iter_mut().filter(|worker| worker.exits_slowly());
        let worker = slow.min_by_key(|worker| worker.slot_held_until())?;
        worker.cut_short(now);
        Some(worker.number())
    }

    // ---- orders to all

    /// Publishes what was written to the workers.
    pub(super) fn publish(&mut self) {
        self.workers.iter_mut().for_each(Worker::publish);
    }

    /// Tells the workers to forget the function of a job that has ended.
    pub(super) fn forget_function(&mut self, job: u32) {
        self.workers.iter_mut().for_each(|worker| worker.forget_function(job));
    }

    /// Tells idle retiring workers to exit. `all`: also those that do not retire.
    pub(super) fn stop_idle(&mut self, all: bool, now: u64) {
        self.workers.iter_mut().for_each(|worker| worker.stop_if_idle(all, now));
    }

    /// Makes surplus workers retire, as far as they are idle, so that `wanted` stay.
    pub(super) fn retire_idle(&mut self, wanted: usize) {
        let mut surplus = self.serving().saturating_sub(wanted);
        for worker in &mut self.workers {
            if surplus == 0 {
                return;
            }
            surplus -= usize::from(worker.retire_if_idle());
        }
    }

    /// Makes surplus workers finish what they run and gives them nothing more, so that `wanted` run. Returns what they
    /// had not begun.
    pub(super) fn stop_giving(&mut self, wanted: usize) -> Vec<Piece> {
        let mut excess = self.running().saturating_sub(wanted);
        if excess == 0 && !self.yields_slot {
            return Vec::new();
        }
        self.yields_slot = excess > 0;
        // Prefer workers that were chosen before, then those with the fewest items to return.
        let mut order: Vec<usize> = (0..self.workers.len()).collect();
        order.sort_by_key(|&at| (!self.workers[at].yields_slot(), self.workers[at].outstanding()));
        let mut taken = Vec::new();
        for at in order {
            let (yields, pieces) = self.workers[at].yield_slot(excess > 0);
            excess -= usize::from(yields);
            taken.extend(pieces);
        }
        taken
    }

    /// Takes back the items of a chunk that have not begun, and all items after them.
    pub(super) fn take_back_chunk(&mut self, chunk: u32) -> Vec<Piece> {
        self.workers.iter_mut().flat_map(|worker| worker.take_back_chunk(chunk)).collect()
    }

    /// Takes back the cancelled items that have not begun, with all items after them, and has those that run killed
    /// later. Returns the rest of each cancelled chunk that was kept for a worker, and the items that were taken back.
    pub(super) fn cancel(&mut self, is_cancelled: impl Fn(u32) -> bool, now: u64) -> (Vec<Piece>, Vec<Piece>) {
        let (mut rests, mut taken) = (Vec::new(), Vec::new());
        for worker in &mut self.workers {
            let (rest, pieces) = worker.cancel(&is_cancelled, now);
            rests.extend(rest);
            taken.extend(pieces);
        }
        (rests, taken)
    }

    // ---- lending slots

    /// Returns whether any worker may lend its slot.
    pub(super) fn may_lend(&self) -> bool {
        self.may_lend
    }

    /// Decides whether a worker lends its slot. Returns what was taken back from it.
    pub(super) fn update_lending(&mut self, at: usize, threads: usize) -> Vec<Piece> {
        let taken = self.workers[at].update_lending(threads);
        self.may_lend = self.workers.iter().any(Worker::may_lend);
        taken
    }

    /// Records the positions of the items whose clients wait. Returns whether the worker with this secret is one of
    /// these.
    pub(super) fn set_waiting_clients(&mut self, secret: u128, positions: &[u32]) -> bool {
        let Some(worker) = self.workers.iter_mut().find(|worker| worker.has_secret(secret)) else { return false };
        worker.set_waiting_clients(positions);
        self.may_lend = true;
        true
    }

    /// Forgets which clients wait.
    pub(super) fn clear_waiting_clients(&mut self) {
        for worker in &mut self.workers {
            self.may_lend |= worker.clear_waiting_clients();
        }
    }

    // ---- moving work

    /// Returns the worker from which work should move to an idle one, and from which position on. `may_run`: how many
    /// workers may run items.
    pub(super) fn next_move(&self, may_run: usize, pace: &Pace, round: &Round) -> Option<(usize, u32)> {
        let takers = Takers::count(&self.workers, may_run, round.threads);
        if takers.none() {
            return None;
        }
        let movable = self.workers.iter().enumerate().filter_map(|(at, worker)| {
            let (items, from, all) = worker.surplus(pace, round)?;
            takers.any_beside(worker, all).then_some((items, at, from))
        });
        movable.max_by_key(|(items, ..)| *items).map(|(_, at, from)| (at, from))
    }

    /// Returns when work is due to move to an idle worker.
    pub(super) fn time_to_move(&self, may_run: usize, round: &Round) -> Option<u64> {
        let takers = Takers::count(&self.workers, may_run, round.threads);
        if takers.none() {
            return None;
        }
        let due = |worker: &Worker| {
            let (due, all) = worker.time_to_move(round)?;
            // It may be overdue because the worker was just about to begin it; check again later.
            takers.any_beside(worker, all).then(|| due.max(round.now + STALLED_NS))
        };
        self.workers.iter().filter_map(due).min()
    }

    /// Returns when the next worker is due to be replaced. `wanted`: items wait for any worker.
    pub(super) fn time_to_replace(&self, wanted: bool, threads: usize) -> Option<u64> {
        self.workers.iter().filter_map(|worker| worker.time_to_replace(wanted, threads)).min()
    }

    // ---- sleeping

    /// Asks the workers to wake the agent when there is work. See [`Worker::arm`].
    pub(super) fn arm(&mut self, quick: bool, timed: bool, round: &Round) -> Armed {
        let mut first = None;
        for worker in &mut self.workers {
            match worker.arm(quick, timed, round) {
                Armed::Busy => return Armed::Busy,
                Armed::Until(due) => first = [first, due].into_iter().flatten().min(),
            }
        }
        Armed::Until(first)
    }
}

/// Returns how many exiting workers a host with this many slots may have. One that was told to exit, or is being
/// terminated, may take its time. It is replaced at once, so their number must be bounded.
pub(crate) fn most_exiting(slots: u32) -> usize {
    slots as usize + EXTRA_EXITING
}

/// The number of workers that could take more: now, and if one busy worker were idle.
struct Takers {
    now: usize,
    if_one_fewer_busy: usize,
    busy: usize,
    may_run: usize,
    threads: usize,
}

impl Takers {
    fn count(workers: &[Worker], may_run: usize, threads: usize) -> Takers {
        let busy = workers.iter().filter(|worker| worker.runs()).count();
        let mut takers = Takers { now: 0, if_one_fewer_busy: 0, busy, may_run, threads };
        let count = |busy| workers.iter().filter(|worker| takers.takes_more(worker, busy)).count();
        let now = count(busy);
        let if_one_fewer_busy = if now == 0 && busy > 0 { count(busy - 1) } else { now };
        (takers.now, takers.if_one_fewer_busy) = (now, if_one_fewer_busy);
        takers
    }

    fn none(&self) -> bool {
        self.if_one_fewer_busy == 0
    }

    /// Returns whether a worker could take more while `busy` workers are busy.
    fn takes_more(&self, worker: &Worker, busy: usize) -> bool {
        worker.takes_up_to(self.threads) && (worker.runs_of_items() > 0 || busy < self.may_run)
    }

    /// Returns whether a worker other than this one could take more. `all`: everything that this one has would be taken.
    fn any_beside(&self, worker: &Worker, all: bool) -> bool {
        let (takers, busy) =
            if all { (self.if_one_fewer_busy, self.busy.saturating_sub(1)) } else { (self.now, self.busy) };
        takers > usize::from(self.takes_more(worker, busy))
    }
}
