//! A pool's side of sharing slots: its demand, and how it applies its share.

use super::WorkerPool;
use super::stop::Stopping;
use super::worker::{Given, State, Worker};
use crate::slots::{Demand, Turn};

/// What a pool may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    /// Workers that may run items.
    pub(crate) running: usize,
    /// Workers that it should have.
    pub(crate) workers: usize,
    /// Workers that it may start now.
    pub(crate) starts: usize,
    /// `None`: it has the host to itself.
    pub(crate) turn: Option<Turn>,
}

impl Allowance {
    /// Returns the allowance of a pool that has the host to itself.
    pub(crate) fn alone(processes: usize) -> Allowance {
        Allowance { running: processes, workers: processes, starts: usize::MAX, turn: None }
    }

    /// Returns the same allowance without new workers.
    pub(crate) fn without_starts(self) -> Allowance {
        Allowance { starts: 0, ..self }
    }
}

/// The workers of a pool, and its demand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Census {
    pub(crate) demand: Demand,
    /// Exiting workers that still occupy their slots.
    pub(crate) exiting: usize,
    /// When the first of these slots becomes free.
    pub(crate) slot_held_until: Option<u64>,
}

impl WorkerPool {
    /// Counts its workers and its demand.
    pub(crate) fn census(&mut self, now: u64) -> Census {
        // Before the program has started, its requested workers are not processes yet.
        let up = self.supervision.up;
        let workers = if up { self.serving() } else { 0 };
        let (mut exiting, mut slot_held_until) = (0, None);
        for worker in self.workers.iter().filter(|worker| up && !worker.serves() && !worker.lent) {
            let until = worker.slot_held_until;
            if until.is_none_or(|until| now < until) {
                exiting += 1;
                slot_held_until = [slot_held_until, until].into_iter().flatten().min();
            }
        }
        let usable = self.usable().max(usize::from(up && self.should_probe(now)));
        if usable > 0 {
            self.used_at = now;
        }
        let may_have_workers = up && (self.supervision.stopping == Stopping::No || usable > 0);
        let demand = Demand {
            weight: self.weight,
            usable,
            most: if may_have_workers { self.processes.saturating_sub(self.lent()) } else { 0 },
            workers,
            // Only used until the turn has begun.
            runs: self.turn == Turn::Has { since: None } && self.running() > 0,
            used_at: if usable > 0 { 0 } else { self.used_at },
            turn: self.turn,
        };
        Census { demand, exiting, slot_held_until }
    }

    /// Applies a new allowance.
    pub(crate) fn allow(&mut self, allowance: Allowance, now: u64) {
        self.allowance = allowance;
        match allowance.turn {
            Some(turn) => self.turn = turn,
            None if self.has_chunks() => self.turn = Turn::Has { since: Some(now) },
            None => {}
        }
        if self.allowance.running < self.running() || self.yields_slot {
            self.stop_giving();
        }
        if self.allowance.workers < self.serving() {
            self.retire_idle_workers();
        }
    }

    /// Returns the number of workers that have items and do not lend their slots.
    pub(crate) fn running(&self) -> usize {
        self.workers.iter().filter(|worker| worker.runs()).count()
    }

    /// Returns the number of workers that lend their slots.
    pub(crate) fn lent(&self) -> usize {
        if self.may_lend { self.workers.iter().filter(|worker| worker.lent).count() } else { 0 }
    }

    /// Returns whether it holds chunks.
    pub(crate) fn has_chunks(&self) -> bool {
        !self.chunks.is_empty()
    }

    /// Returns the number of chunks that no worker can begin, because all wait for other items.
    pub(crate) fn stuck(&self) -> usize {
        if self.lent() >= self.processes { self.queue.len() } else { 0 }
    }

    /// Returns how many workers have work now.
    fn usable(&self) -> usize {
        if !self.supervision.up || matches!(self.supervision.stopping, Stopping::Now | Stopping::Closing { .. }) {
            return 0;
        }
        let lent = self.workers.iter().filter(|worker| worker.lent).map(|worker| worker.given.len()).sum();
        let chunks = self.chunks.len().saturating_sub(lent);
        let most = self.processes.saturating_sub(self.lent());
        self.running().max(chunks.div_ceil(self.threads)).min(most)
    }

    /// Makes surplus workers finish what they run and gives them nothing more.
    fn stop_giving(&mut self) {
        let mut excess = self.running().saturating_sub(self.allowance.running);
        self.yields_slot = excess > 0;
        // Workers that were chosen before first, then those that have the least to return.
        let mut order: Vec<usize> = (0..self.workers.len()).collect();
        order.sort_by_key(|&at| (!self.workers[at].yields_slot, self.workers[at].outstanding()));
        for at in order {
            let worker = &mut self.workers[at];
            worker.yields_slot = excess > 0 && worker.state == State::Ready && worker.runs();
            excess -= usize::from(worker.yields_slot);
            if worker.yields_slot && worker.not_begun() > 0 {
                self.take_back_all(at);
            }
        }
    }

    /// Takes back everything that a worker has not begun.
    pub(super) fn take_back_all(&mut self, at: usize) {
        let Some(first) = self.workers[at].given.front().map(Given::next) else { return };
        if self.workers[at].can_give_back() {
            self.take_back(at, first);
        }
    }

    fn retire_idle_workers(&mut self) {
        let mut surplus = self.serving() - self.allowance.workers;
        for worker in &mut self.workers {
            if surplus > 0 && worker.state == State::Ready && worker.is_idle() && !worker.lent {
                worker.state = State::Retiring;
                surplus -= 1;
            }
        }
    }
}

impl Worker {
    /// Returns whether it has items and does not lend its slot.
    pub(super) fn runs(&self) -> bool {
        !self.lent && !self.is_idle()
    }

    /// Returns whether it has no items.
    pub(super) fn is_idle(&self) -> bool {
        self.given.is_empty() && self.rest.is_none()
    }

    /// Returns whether it is ready or starting. A worker that dies during startup counts until its death is known: its
    /// initializer may have failed, and would fail again.
    pub(super) fn serves(&self) -> bool {
        !self.lent && (matches!(self.state, State::Starting | State::Ready) || !self.was_ready)
    }
}
