//! One worker as the agent sees it.
//!
//! Its parts own its state and do not know each other: [`Link`] the shared memory, [`Items`] what it was given,
//! [`Life`] its process, and [`Lending`] its slot. The worker passes events of one part on to the others.

mod given;
mod giving;
mod items;
mod lending;
mod life;
mod link;
mod reading;
mod receiving;
mod records;

use std::os::fd::{BorrowedFd, OwnedFd};

use farpool_link::process::Process;
use farpool_link::record::Kind;
use farpool_proto::v1::Failure;
use prost::Message;

use super::chunks::Piece;
use super::death::{Death, Reason};
use super::round::Round;
use super::wait::Armed;
use crate::slot_numbers::SlotNumber;
use items::Items;
use lending::Lending;
use life::{Life, Stage};
use link::Link;

pub(super) use items::{STALLED_NS, Victim};
pub(super) use life::NextStep;
pub(super) use reading::Record;

/// When to try again to send a file that the kernel has refused.
const FILE_RETRY_NS: u64 = 10_000_000;
/// Outcomes of quick items are collected for this long at most, so that they travel together.
const COLLECT_NS: u64 = 1_000_000;
/// How often to check whether a cancelled item that was still on its way to its worker has begun.
const CANCEL_LOOK_NS: u64 = 10_000_000;

/// A worker process and all that the agent knows about it, except its output.
#[derive(Debug)]
pub(super) struct Worker {
    life: Life,
    link: Link,
    items: Items,
    lending: Lending,
    /// Its number among the workers of the agent, until it has exited.
    _slot: SlotNumber,
}

/// What remains of a worker that has exited.
#[derive(Debug)]
pub(super) struct Remains {
    pub(super) number: u32,
    /// Its process id, as reported by the fork server.
    pub(super) pid: u32,
    /// Its process id, as reported by the fork server or by the worker.
    pub(super) known_pid: u32,
    pub(super) death: Death,
    /// It had become ready.
    pub(super) was_ready: bool,
    /// Why its initializer failed, if it did.
    pub(super) init_failure: Option<Failure>,
    /// It had no items.
    pub(super) was_idle: bool,
    /// It had finished items before.
    pub(super) finished_any: bool,
    /// Its last note about the item that it ran.
    pub(super) note: Option<String>,
    /// The items that it ran, the last one first.
    pub(super) victims: Vec<Victim>,
    /// All other items that it had, the last ones first.
    pub(super) pieces: Vec<Piece>,
}

impl Worker {
    /// Prepares the agent's end of a worker and writes its settings, which it reads first. Returns it with the worker's
    /// ends: the memory, and the socket.
    pub(super) fn prepare(number: u32, round: &Round) -> nix::Result<(Worker, [OwnedFd; 2])> {
        let (mut link, ends) = Link::new()?;
        link.set_up(round.settings.encode_to_vec());
        let slot = round.host.slot_numbers.take();
        link.status().set_worker_number(slot.get());
        let (life, items) = (Life::new(number, round.now), Items::new(round.now));
        Ok((Worker { life, link, items, lending: Lending::default(), _slot: slot }, ends))
    }

    pub(super) fn number(&self) -> u32 {
        self.life.number()
    }

    /// Returns the process id that the fork server has reported; 0 if it has not.
    pub(super) fn pid(&self) -> u32 {
        self.life.pid()
    }

    /// Returns its process id; 0 if it is not known yet.
    pub(super) fn known_pid(&self) -> u32 {
        self.life.known_pid()
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.link.socket()
    }

    // ---- what it does

    /// Returns whether it has items and does not lend its slot.
    pub(super) fn runs(&self) -> bool {
        !self.lending.is_lent() && !self.items.is_idle()
    }

    /// Returns whether it is ready or starting, and does not lend its slot.
    pub(super) fn serves(&self) -> bool {
        !self.lending.is_lent() && self.life.serves()
    }

    /// Returns whether it is starting.
    pub(super) fn is_starting(&self) -> bool {
        self.life.stage() == Stage::Starting
    }

    /// Returns whether it is ready, or finishes its items.
    pub(super) fn works(&self) -> bool {
        self.life.works()
    }

    pub(super) fn was_ready(&self) -> bool {
        self.life.was_ready()
    }

    /// Returns how many runs of items it has.
    pub(super) fn runs_of_items(&self) -> usize {
        self.items.runs()
    }

    /// Returns the number of its unfinished items.
    pub(super) fn outstanding(&self) -> u64 {
        self.items.outstanding()
    }

    // ---- its process

    /// Records the process that the fork server reports. Returns false if the report is invalid.
    pub(super) fn spawned(&mut self, pid: u32, process: Option<Process>) -> bool {
        self.life.spawned(pid, process)
    }

    /// Handles its ready socket: a wake-up, or its exit. Returns whether any of its items wait for other items.
    pub(super) fn socket_ready(&mut self, round: &Round) -> bool {
        if !self.link.drain_socket() {
            round.unwatch(self.link.socket());
            if self.life.closed_connection(round.now) {
                self.lending.end();
            }
        }
        // A worker also sends a doorbell after it starts or stops waiting for other items. That may have been drained
        // above, so the status must be read afterwards.
        self.link.status().waiting() > 0
    }

    /// Gives the worker no more items, if it is ready: it exits when it is idle. Returns whether it was ready.
    pub(super) fn retire(&mut self) -> bool {
        let ready = self.life.stage() == Stage::Ready;
        if ready {
            self.life.retire();
        }
        ready
    }

    /// Retires the worker, if it is ready and has nothing to do. Returns whether it was.
    pub(super) fn retire_if_idle(&mut self) -> bool {
        self.items.is_idle() && !self.lending.is_lent() && self.retire()
    }

    /// Tells it to exit if it is idle and retires. `all`: even if it does not retire.
    pub(super) fn stop_if_idle(&mut self, all: bool, now: u64) {
        let may_exit = match self.life.stage() {
            Stage::Retiring => true,
            Stage::Ready => all,
            _ => false,
        };
        if self.items.is_idle() && may_exit && self.link.order_or_defer(Kind::Stop, 0).unwrap_or(false) {
            self.link.publish();
            self.life.told_to_exit(now);
        }
    }

    /// Begins its termination. Returns false if it has begun already; otherwise SIGTERM is to be sent.
    pub(super) fn terminate(&mut self, reason: Reason, now: u64) -> bool {
        let begins = self.life.terminate(reason, now);
        if begins {
            self.lending.end();
        }
        begins
    }

    /// Takes the next step of its termination, if it is due.
    pub(super) fn advance_termination(&mut self, now: u64) -> Option<NextStep> {
        let next = self.life.advance_termination(now);
        if next == Some(NextStep::Signal(nix::sys::signal::Signal::SIGTERM)) {
            self.lending.end();
        }
        next
    }

    /// Returns when it must be terminated for taking too long, and why. `timed`: items of the pool have timeouts.
    pub(super) fn due(&self, timed: bool, round: &Round) -> Option<(u64, Reason)> {
        if self.life.termination_due().is_some() {
            return None;
        }
        if self.is_starting() {
            return self.life.start_due(round);
        }
        let (items, status, threads) = (&self.items, self.link.status(), round.threads);
        let overdue = if timed { items.first_timeout(status, threads, round.held) } else { None };
        let cancelled = items.cancel_at().filter(|_| items.runs_cancelled(status, threads));
        let cancelled = cancelled.map(|at| (at, Reason::Cancelled));
        overdue.into_iter().chain(cancelled).min_by_key(|(due, _)| *due)
    }

    pub(super) fn is_exiting(&self) -> bool {
        self.life.is_exiting()
    }

    /// Returns whether it is exiting and was not killed.
    pub(super) fn exits_slowly(&self) -> bool {
        self.life.exits_slowly()
    }

    /// Records that SIGKILL is sent to it, although it is exiting already.
    pub(super) fn cut_short(&mut self, now: u64) {
        self.life.cut_short(now);
    }

    /// Kills it with its process group, if the fork server cannot or did not.
    pub(super) fn kill(&self) {
        self.life.kill();
    }

    /// Handles its exit. `status` is as waitpid(2) gives it; `None` if the fork server died.
    pub(super) fn end(self, status: Option<i32>, threads: usize) -> Remains {
        let Worker { life, link, items, .. } = self;
        let (number, pid, known_pid) = (life.number(), life.pid(), life.known_pid());
        let (was_idle, finished_any) = (items.runs() == 0, items.finished() > 0);
        let (death, was_ready, init_failure) = life.end(status);
        let mut running: Vec<u32> = link.status().running(threads).map(|running| running.position).collect();
        if let Some(Reason::TimedOut { position, .. }) = death.reason {
            running.push(position);
        }
        let (victims, pieces) = items.split(&running);
        let note = if victims.is_empty() { None } else { link.status().note() };
        Remains {
            number,
            pid,
            known_pid,
            death,
            was_ready,
            init_failure,
            was_idle,
            finished_any,
            note,
            victims,
            pieces,
        }
    }

    // ---- its slot

    pub(super) fn is_lent(&self) -> bool {
        self.lending.is_lent()
    }

    /// Returns whether it lends its slot, or may do so without a message.
    pub(super) fn may_lend(&self) -> bool {
        self.lending.may_lend(self.link.status())
    }

    /// Returns whether it occupies its slot although it serves no more.
    pub(super) fn holds_slot(&self, now: u64) -> bool {
        let free = self.life.slot_held_until().is_some_and(|until| now >= until);
        !self.life.serves() && !self.lending.is_lent() && !free
    }

    /// Returns when its slot becomes free at the latest.
    pub(super) fn slot_held_until(&self) -> Option<u64> {
        self.life.slot_held_until()
    }

    /// Returns whether programs of its items name it by this secret.
    pub(super) fn has_secret(&self, secret: u128) -> bool {
        self.link.status().has_item_secret(secret)
    }

    /// Returns whether it runs the item that a client names by this position.
    pub(super) fn runs_item(&self, position: u32, threads: usize) -> bool {
        lending::runs_item(self.link.status(), position, threads)
    }

    /// Records the positions of the items whose clients wait.
    pub(super) fn set_waiting_clients(&mut self, positions: &[u32]) {
        self.lending.set_waiting_clients(positions);
    }

    /// Forgets which clients wait. Returns whether any did.
    pub(super) fn clear_waiting_clients(&mut self) -> bool {
        self.lending.clear_waiting_clients()
    }

    // ---- sleeping

    /// Asks it to wake the agent when there is work. `quick`: items are so quick that their outcomes are collected.
    /// `timed`: items of the pool have timeouts.
    pub(super) fn arm(&mut self, quick: bool, timed: bool, round: &Round) -> Armed {
        let now = round.now;
        if !round.held && (self.may_have_records() || self.link.wants_room()) && self.arm_link(quick, now) {
            return Armed::Busy;
        }
        let armed_at = self.link.armed_at();
        let collect = armed_at.filter(|at| *at > self.items.finished() + 1).map(|_| now + COLLECT_NS);
        // A cancelled item that could not be taken back is ended once it begins, which no event reports.
        let cancelled = self.items.cancel_at().map(|at| at.max(now + CANCEL_LOOK_NS));
        let due = self.due(timed, round).map(|(due, _)| due);
        let file = self.link.retries_file().then_some(now + FILE_RETRY_NS);
        Armed::Until([collect, self.life.termination_due(), cancelled, due, file].into_iter().flatten().min())
    }

    fn arm_link(&mut self, quick: bool, now: u64) -> bool {
        let outstanding = self.items.outstanding();
        // Outcomes of quick items are collected, unless this worker has come to a long item.
        let stalled = now.saturating_sub(self.items.progress_at()) >= COLLECT_NS;
        let collects = quick && !stalled && self.life.stage() == Stage::Ready && !self.items.is_receiving();
        let ahead = if collects { outstanding / 2 } else { 0 };
        self.link.arm(self.items.finished() + ahead.max(1))
    }
}

#[cfg(test)]
mod tests;
