//! Leaves: finishes running items, returns the others, and reports everything.

use farpool_common::log::info;
use tokio::time::Instant;

use super::parts::{Connect, Workers};
use super::{End, Interrupt, Session};

/// How far the agent is with leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    No,
    /// Running items are being finished.
    Draining {
        /// Whether the coordinator knows. Otherwise, it may have assigned items that are still on their way.
        confirmed: bool,
        /// Once everything is finished: waits until this time for the coordinator to confirm that it knows.
        until: Option<Instant>,
    },
    /// Everything was sent; waits until this time for the coordinator to end its side of the session.
    Finished(Instant),
}

impl Leaving {
    fn draining() -> Self {
        Leaving::Draining { confirmed: false, until: None }
    }

    pub(super) fn is_finished(self) -> bool {
        matches!(self, Leaving::Finished(_))
    }

    /// Records that the coordinator knows that the agent is leaving.
    pub(super) fn confirm(&mut self) {
        if let Leaving::Draining { confirmed, .. } = self {
            *confirmed = true;
        }
    }

    /// Returns to draining in a new session: its coordinator does not know yet, and the last messages may have been
    /// lost.
    pub(super) fn restart_draining(&mut self) {
        if *self != Leaving::No {
            *self = Leaving::draining();
        }
    }

    /// Returns until when to wait for the coordinator.
    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Leaving::No => None,
            Leaving::Draining { until, .. } => until,
            Leaving::Finished(until) => Some(until),
        }
    }

    pub(super) fn is_expired(self, now: Instant) -> bool {
        self.deadline().is_some_and(|until| now >= until)
    }
}

impl<C: Connect, W: Workers> Session<C, W> {
    /// Handles a signal to leave.
    pub(super) fn leave_requested(&mut self, code: u8) -> Result<(), Interrupt> {
        let nothing_to_do = self.outgoing.is_none() || !self.link.is_up() && self.ledger.is_empty();
        match self.leaving {
            Leaving::No if nothing_to_do => Err(Interrupt::Ended(End::Left)),
            Leaving::No => {
                self.drain("signal");
                Ok(())
            }
            _ => Err(Interrupt::Ended(End::Killed(code))),
        }
    }

    pub(super) fn drain(&mut self, reason: &str) {
        if self.leaving == Leaving::No {
            info!(self.settings.log, reason, "draining; finishing running items and returning the others");
            self.leaving = Leaving::draining();
            self.workers.drain();
        }
    }

    /// Returns whether it can leave without a connection: it has nothing to report.
    pub(super) fn may_leave_unconnected(&self) -> bool {
        match self.leaving {
            Leaving::No => false,
            Leaving::Finished(_) if self.all_acknowledged() => true,
            _ => self.ledger.is_empty(),
        }
    }

    /// Returns whether the coordinator has acknowledged everything.
    fn all_acknowledged(&self) -> bool {
        self.outgoing.as_ref().is_none_or(|outgoing| outgoing.acknowledged() == outgoing.pushed())
    }

    /// Ends this side of the session once everything was sent, and nothing more can arrive.
    pub(super) fn finish_if_drained(&mut self) {
        let Leaving::Draining { confirmed, until } = &mut self.leaving else { return };
        let Some(outgoing) = &self.outgoing else { return };
        if !self.workers.is_drained() || self.ledger.has_held() {
            return;
        }
        let limit = || Instant::now() + self.settings.leave_timeout;
        if *confirmed {
            outgoing.finish();
            self.leaving = Leaving::Finished(limit());
        } else {
            until.get_or_insert_with(limit);
        }
    }
}
