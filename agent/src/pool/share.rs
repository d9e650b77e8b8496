//! A pool's part in the sharing of slots: what it has and could use, and what it does with what it gets.

use super::WorkerPool;
use super::stop::Stopping;
use super::worker::{Given, State, Worker};
use crate::slots::{Claim, Turn};

/// What a pool may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    /// Workers that may run items.
    pub(crate) running: usize,
    /// Workers that it should have.
    pub(crate) workers: usize,
    /// Workers that it may start now.
    pub(crate) starts: usize,
    /// None: there is nobody to take turns with.
    pub(crate) turn: Option<Turn>,
}

impl Allowance {
    /// That of a pool that has the host for itself: what its coordinator lets it have.
    pub(crate) fn alone(processes: usize) -> Allowance {
        Allowance { running: processes, workers: processes, starts: usize::MAX, turn: None }
    }

    /// The same, with the workers that are there.
    pub(crate) fn without_starts(self) -> Allowance {
        Allowance { starts: 0, ..self }
    }
}

/// What a pool has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Census {
    pub(crate) claim: Claim,
    /// Workers that are about to be gone and take up their slots until then.
    pub(crate) going: usize,
    /// When the first of these is not waited for any longer.
    pub(crate) gone_by: Option<u64>,
}

impl WorkerPool {
    /// Counts what there is.
    pub(crate) fn census(&mut self, now: u64) -> Census {
        // Workers that were asked of a program that is still on its way are no processes yet.
        let up = self.supervision.up;
        let workers = if up { self.serving() } else { 0 };
        let (mut going, mut gone_by) = (0, None);
        for worker in self.workers.iter().filter(|worker| up && !worker.serves() && !worker.lent) {
            let until = worker.gone_by;
            if until.is_none_or(|until| now < until) {
                going += 1;
                gone_by = [gone_by, until].into_iter().flatten().min();
            }
        }
        let wish = self.wish().max(usize::from(up && self.is_to_try(now)));
        if wish > 0 {
            self.used_at = now;
        }
        let may_have_workers = up && (self.supervision.stopping == Stopping::No || wish > 0);
        let claim = Claim {
            weight: self.weight,
            wish,
            most: if may_have_workers { self.processes.saturating_sub(self.lent()) } else { 0 },
            workers,
            // Of interest only until the turn has begun.
            runs: self.turn == Turn::Has { since: None } && self.running() > 0,
            used_at: if wish > 0 { 0 } else { self.used_at },
            turn: self.turn,
        };
        Census { claim, going, gone_by }
    }

    /// This is what it may have from now on.
    pub(crate) fn allow(&mut self, allowance: Allowance, now: u64) {
        self.allowance = allowance;
        match allowance.turn {
            Some(turn) => self.turn = turn,
            None if self.has_chunks() => self.turn = Turn::Has { since: Some(now) },
            None => {}
        }
        if self.allowance.running < self.running() || self.gives_way {
            self.stop_giving();
        }
        if self.allowance.workers < self.serving() {
            self.retire_idle_workers();
        }
    }

    /// Workers that run items, or are about to.
    pub(crate) fn running(&self) -> usize {
        self.workers.iter().filter(|worker| worker.runs()).count()
    }

    /// Workers whose items all wait for other items: they do not use their slots.
    pub(crate) fn lent(&self) -> usize {
        if self.any_waits { self.workers.iter().filter(|worker| worker.lent).count() } else { 0 }
    }

    /// Whether it holds chunks.
    pub(crate) fn has_chunks(&self) -> bool {
        !self.chunks.is_empty()
    }

    /// Chunks that no worker can begin as long as the pool's workers wait for others.
    pub(crate) fn stuck(&self) -> usize {
        if self.lent() >= self.processes { self.queue.len() } else { 0 }
    }

    /// Workers that it could keep busy now.
    fn wish(&self) -> usize {
        if !self.supervision.up || matches!(self.supervision.stopping, Stopping::Now | Stopping::Closing { .. }) {
            return 0;
        }
        let lent = self.workers.iter().filter(|worker| worker.lent).map(|worker| worker.given.len()).sum();
        let chunks = self.chunks.len().saturating_sub(lent);
        let most = self.processes.saturating_sub(self.lent());
        self.running().max(chunks.div_ceil(self.threads)).min(most)
    }

    /// Has as many workers as are too many finish what they run, and be given nothing more.
    fn stop_giving(&mut self) {
        let mut excess = self.running().saturating_sub(self.allowance.running);
        self.gives_way = excess > 0;
        // Those that were chosen before first, then those that have least to give back.
        let mut order: Vec<usize> = (0..self.workers.len()).collect();
        order.sort_by_key(|&at| (!self.workers[at].gives_way, self.workers[at].outstanding()));
        for at in order {
            let worker = &mut self.workers[at];
            worker.gives_way = excess > 0 && worker.state == State::Ready && worker.runs();
            excess -= usize::from(worker.gives_way);
            if worker.gives_way && worker.not_begun() > 0 {
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
    /// It runs an item, or is about to, and does not wait for others.
    pub(super) fn runs(&self) -> bool {
        !self.lent && !self.is_idle()
    }

    /// It has nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.given.is_empty() && self.rest.is_none()
    }

    /// It is up, or will be soon. One that dies before it is ready counts until it is known what it died of: its
    /// initializer may have failed, and would fail again.
    pub(super) fn serves(&self) -> bool {
        !self.lent && (matches!(self.state, State::Starting | State::Ready) || !self.was_ready)
    }
}
