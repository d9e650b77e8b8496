//! A worker's process: its stages, and its end.

use farpool_link::Corrupt;
use farpool_link::process::Process;
use farpool_proto::v1::Failure;
use nix::sys::signal::Signal;

use super::super::death::{Death, Reason};
use super::super::round::Round;
use super::super::stop::CLOSE_GRACE_NS;

/// Time for a worker that was told to exit: its program's exit handlers may have work to do.
const EXIT_GRACE_NS: u64 = 5_000_000_000;
/// How long an exiting worker occupies its slot at most.
const SLOT_HOLD_NS: u64 = 1_000_000_000;
/// Time between SIGTERM and SIGKILL.
const SIGTERM_GRACE_NS: u64 = 100_000_000;
/// Time for a worker that has closed its connection to exit.
const CLOSED_GRACE_NS: u64 = 50_000_000;
/// Time for a worker that the agent itself has killed to disappear.
const DIRECT_KILL_GRACE_NS: u64 = 100_000_000;

/// The process of a worker.
#[derive(Debug)]
pub(super) struct Life {
    number: u32,
    /// Its process id, as reported by the fork server; 0: not reported yet.
    pid: u32,
    /// The process with this id, if it is a child of the fork server.
    process: Option<Process>,
    /// Its process id, as reported by itself, perhaps earlier. Good enough for errors, and for nothing else.
    reported_pid: u32,
    stage: Stage,
    /// Whether it has become ready: its initializer, if any, has returned.
    was_ready: bool,
    /// When it was requested, in nanoseconds.
    requested_at: u64,
    /// Why its initializer failed; it exits by itself.
    init_failure: Option<Failure>,
    termination: Option<Termination>,
    /// When it is exiting: its slot stays occupied until this time at most.
    slot_held_until: Option<u64>,
}

/// The stages of a worker's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not ready yet: starting, or in its initializer.
    Starting,
    /// Takes items.
    Ready,
    /// Finishes its items and gets no more: it has run as many as one worker may.
    Retiring,
    /// Was told to exit.
    Exiting,
    /// Is being terminated; see [`Termination`].
    Terminating,
}

/// The progress of a worker's termination.
#[derive(Clone, Copy, Debug)]
struct Termination {
    reason: Reason,
    /// When the next step is due.
    at: u64,
    /// SIGTERM was sent.
    sigterm_sent: bool,
    /// The fork server was asked to send SIGKILL.
    sigkill_sent: bool,
    /// The agent itself has sent SIGKILL.
    killed_directly: bool,
}

/// What its pool must do next to end a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pool) enum NextStep {
    /// Have the fork server send this signal to it and its descendants.
    Signal(Signal),
    /// Kill the fork server with all of its workers.
    KillForkServer,
    /// Treat it as if it had exited.
    Abandon,
}

impl Termination {
    fn scheduled(reason: Reason, at: u64) -> Termination {
        Termination { reason, at, sigterm_sent: false, sigkill_sent: false, killed_directly: false }
    }
}

impl Life {
    pub(super) fn new(number: u32, now: u64) -> Life {
        Life {
            number,
            pid: 0,
            process: None,
            reported_pid: 0,
            stage: Stage::Starting,
            was_ready: false,
            requested_at: now,
            init_failure: None,
            termination: None,
            slot_held_until: None,
        }
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Returns the process id that the fork server has reported.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns its process id; 0 if it is not known yet.
    pub(super) fn known_pid(&self) -> u32 {
        if self.pid == 0 { self.reported_pid } else { self.pid }
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// Returns whether it works, and may finish what it has.
    pub(super) fn works(&self) -> bool {
        matches!(self.stage, Stage::Ready | Stage::Retiring)
    }

    /// Returns whether it is ready or starting. A worker that dies during startup counts until its death is known: its
    /// initializer may have failed, and would fail again.
    pub(super) fn serves(&self) -> bool {
        matches!(self.stage, Stage::Starting | Stage::Ready) || !self.was_ready
    }

    pub(super) fn requested_at(&self) -> u64 {
        self.requested_at
    }

    pub(super) fn slot_held_until(&self) -> Option<u64> {
        self.slot_held_until
    }

    /// Records the process that the fork server reports. Returns false if the report is invalid.
    pub(super) fn spawned(&mut self, pid: u32, process: Option<Process>) -> bool {
        // The pid is good enough for errors; only a child of the fork server is ever killed.
        self.process = process;
        std::mem::replace(&mut self.pid, pid) == 0 && pid > 0
    }

    /// Records that it is ready, under the process id that it reports. Returns whether it takes items now.
    pub(super) fn became_ready(&mut self, pid: u32) -> Result<bool, Corrupt> {
        if std::mem::replace(&mut self.was_ready, true) {
            return Err(Corrupt);
        }
        self.reported_pid = pid;
        let starting = self.stage == Stage::Starting;
        if starting {
            self.stage = Stage::Ready;
        }
        Ok(starting)
    }

    /// Returns whether it may report that its initializer has failed.
    pub(super) fn initializes(&self) -> bool {
        !self.was_ready && self.init_failure.is_none()
    }

    pub(super) fn initializer_failed(&mut self, failure: Failure) {
        self.init_failure = Some(failure);
    }

    /// Gives it no more items: it exits when it is idle.
    pub(super) fn retire(&mut self) {
        self.stage = Stage::Retiring;
    }

    /// Records that it was told to exit.
    pub(super) fn told_to_exit(&mut self, now: u64) {
        self.stage = Stage::Exiting;
        self.slot_held_until = Some(now + SLOT_HOLD_NS);
        self.termination = Some(Termination::scheduled(Reason::Stopped, now + EXIT_GRACE_NS));
    }

    /// Records that it has closed its connection. Returns false if it is ending anyway.
    pub(super) fn closed_connection(&mut self, now: u64) -> bool {
        if self.termination.is_some() {
            return false;
        }
        // Its exit will be reported soon, unless it has only closed the socket and keeps running.
        self.stage = Stage::Terminating;
        self.slot_held_until = Some(now + SLOT_HOLD_NS);
        self.termination = Some(Termination::scheduled(Reason::ClosedConnection, now + CLOSED_GRACE_NS));
        true
    }

    /// Begins its termination: SIGTERM now, SIGKILL after a grace period. Returns false if it has begun already.
    pub(super) fn terminate(&mut self, reason: Reason, now: u64) -> bool {
        if self.termination.is_some_and(|termination| termination.sigterm_sent) {
            return false;
        }
        self.stage = Stage::Terminating;
        self.slot_held_until.get_or_insert(now + SLOT_HOLD_NS);
        let scheduled = Termination::scheduled(reason, now + SIGTERM_GRACE_NS);
        self.termination = Some(Termination { sigterm_sent: true, ..scheduled });
        true
    }

    /// Takes the next step of its termination, if it is due.
    pub(super) fn advance_termination(&mut self, now: u64) -> Option<NextStep> {
        let termination = self.termination.filter(|termination| now >= termination.at)?;
        if !termination.sigterm_sent {
            self.terminate(termination.reason, now);
            return Some(NextStep::Signal(Signal::SIGTERM));
        }
        if !termination.sigkill_sent {
            self.termination = Some(Termination { at: now + CLOSE_GRACE_NS, sigkill_sent: true, ..termination });
            return Some(NextStep::Signal(Signal::SIGKILL));
        }
        // Its fork server was asked to kill it, but has not reported its exit.
        if !self.runs() {
            // The fork server is stopped or stuck. As a last resort it is killed, with all of its workers.
            self.termination = Some(Termination { at: now + CLOSE_GRACE_NS, ..termination });
            Some(NextStep::KillForkServer)
        } else if !termination.killed_directly {
            self.termination =
                Some(Termination { at: now + DIRECT_KILL_GRACE_NS, killed_directly: true, ..termination });
            self.kill();
            None
        } else {
            // The kernel has not removed the process: it may wait for a disk that does not respond. It will not run any
            // code again, so its items need not wait.
            Some(NextStep::Abandon)
        }
    }

    /// Returns when the next step of its termination is due.
    pub(super) fn termination_due(&self) -> Option<u64> {
        self.termination.map(|termination| termination.at)
    }

    /// Returns when it is terminated unless it becomes ready, and why.
    pub(super) fn start_due(&self, round: &Round) -> Option<(u64, Reason)> {
        let settings = &round.settings;
        let limit = if settings.initializer.is_empty() { round.start_limit } else { settings.initializer_timeout_ns };
        (limit > 0).then_some((self.requested_at.saturating_add(limit), Reason::InitializerTimedOut { limit }))
    }

    pub(super) fn is_exiting(&self) -> bool {
        matches!(self.stage, Stage::Exiting | Stage::Terminating)
    }

    /// Returns whether it is exiting and was not killed.
    pub(super) fn exits_slowly(&self) -> bool {
        self.is_exiting() && self.termination.is_some_and(|termination| !termination.sigkill_sent)
    }

    /// Records that SIGKILL is sent to it, although it is exiting already.
    pub(super) fn cut_short(&mut self, now: u64) {
        let Some(termination) = &mut self.termination else { return };
        *termination = Termination { at: now + CLOSE_GRACE_NS, sigterm_sent: true, sigkill_sent: true, ..*termination };
        self.stage = Stage::Terminating;
    }

    /// Kills it with its process group, if the fork server cannot or did not.
    pub(super) fn kill(&self) {
        if let Some(process) = &self.process {
            // An error means that they have ended already.
            let _ = process.signal(Signal::SIGKILL);
            let _ = process.signal_group(Signal::SIGKILL);
        }
    }

    /// Handles its exit: returns how it died, whether it had become ready, and why its initializer failed.
    pub(super) fn end(self, status: Option<i32>) -> (Death, bool, Option<Failure>) {
        // The report of its exit may be wrong.
        if self.runs() {
            self.kill();
        }
        let terminated = self.termination.filter(|termination| termination.sigterm_sent);
        let death = Death { status, reason: terminated.map(|termination| termination.reason) };
        (death, self.was_ready, self.init_failure)
    }

    pub(super) fn was_ready(&self) -> bool {
        self.was_ready
    }

    fn runs(&self) -> bool {
        self.process.as_ref().is_some_and(|process| !process.has_ended())
    }
}
