//! A pool's side of sharing slots: its demand, and what it may use.

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

/// What a pool has, and could use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    /// Workers that have work now.
    pub(super) usable: usize,
    /// Workers that it has.
    pub(super) workers: usize,
    /// Of these, how many lend their slots.
    pub(super) lent: usize,
    /// Whether any of them runs items.
    pub(super) runs: bool,
    /// Whether it may have workers at all.
    pub(super) may_have_workers: bool,
}

/// How many workers a pool may have, start and run.
#[derive(Debug)]
pub(super) struct Quota {
    weight: u32,
    /// Most workers that run items at the same time.
    processes: usize,
    /// Its share of the host's slots.
    allowance: Allowance,
    turn: Turn,
    /// Most workers that may run items now.
    may_run: usize,
    /// When it last had work.
    used_at: u64,
}

impl Quota {
    pub(super) fn new(weight: u32, processes: usize, now: u64) -> Quota {
        Quota {
            weight: weight.max(1),
            processes,
            allowance: Allowance { running: 0, workers: 0, starts: 0, turn: None },
            turn: Turn::Over { at: 0 },
            may_run: 0,
            used_at: now,
        }
    }

    /// Changes the number of workers.
    pub(super) fn resize(&mut self, processes: usize) {
        self.processes = processes;
    }

    pub(super) fn processes(&self) -> usize {
        self.processes
    }

    /// Returns the demand of a pool that needs this.
    pub(super) fn demand(&mut self, need: Need, now: u64) -> Demand {
        let Need { usable, workers, lent, runs, may_have_workers } = need;
        if usable > 0 {
            self.used_at = now;
        }
        Demand {
            weight: self.weight,
            usable,
            most: if may_have_workers { self.processes.saturating_sub(lent) } else { 0 },
            workers,
            // Only used until the turn has begun.
            runs: self.turn == Turn::Has { since: None } && runs,
            used_at: if usable > 0 { 0 } else { self.used_at },
            turn: self.turn,
        }
    }

    /// Takes a new allowance. `has_work`: the pool holds chunks.
    pub(super) fn allow(&mut self, allowance: Allowance, has_work: bool, now: u64) {
        self.allowance = allowance;
        match allowance.turn {
            Some(turn) => self.turn = turn,
            None if has_work => self.turn = Turn::Has { since: Some(now) },
            None => {}
        }
    }

    /// Decides how many workers may run items now: at most `room`.
    pub(super) fn limit(&mut self, room: usize) {
        self.may_run = self.allowance.running.min(room);
    }

    /// Returns the most workers that may run items now.
    pub(super) fn may_run(&self) -> usize {
        self.may_run
    }

    /// Returns how many workers its share of the slots lets run.
    pub(super) fn running(&self) -> usize {
        self.allowance.running
    }

    /// Returns how many workers it should have.
    pub(super) fn workers(&self) -> usize {
        self.allowance.workers
    }

    /// Returns whether it may start another worker if it has `serving` workers.
    pub(super) fn may_start(&self, serving: usize) -> bool {
        self.allowance.starts > 0 && serving < self.allowance.workers
    }

    /// Records that it starts a worker.
    pub(super) fn start(&mut self) {
        self.allowance.starts -= 1;
    }
}
