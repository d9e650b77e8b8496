//! Leaving: what runs is finished, the rest is given back, and everything is told.

use farpool_common::log::info;
use tokio::time::Instant;

use super::parts::{Connect, Workers};
use super::{End, Session, Turn};

/// How far the agent has come on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    No,
    /// What runs finishes.
    Draining,
    /// Everything was said; the coordinator ends its side of the session, until then.
    Gone(Instant),
}

impl Leaving {
    pub(super) fn is_gone(self) -> bool {
        matches!(self, Leaving::Gone(_))
    }

    /// What was said last may not have been heard.
    pub(super) fn has_more_to_say(&mut self) {
        if self.is_gone() {
            *self = Leaving::Draining;
        }
    }

    /// How long the coordinator has to see that the agent has left.
    pub(super) fn until(self) -> Option<Instant> {
        match self {
            Leaving::Gone(until) => Some(until),
            _ => None,
        }
    }

    pub(super) fn is_over(self, now: Instant) -> bool {
        self.until().is_some_and(|until| now >= until)
    }
}

impl<C: Connect, W: Workers> Session<C, W> {
    /// Somebody wants the agent to leave.
    pub(super) fn asked_to_leave(&mut self, code: u8) -> Result<(), Turn> {
        let nothing_to_do = self.outgoing.is_none() || !self.link.is_up() && self.ledger.is_empty();
        match self.leaving {
            Leaving::No if nothing_to_do => Err(Turn::Over(End::Left)),
            Leaving::No => {
                self.drain("a signal was received");
                Ok(())
            }
            _ => Err(Turn::Over(End::Killed(code))),
        }
    }

    pub(super) fn drain(&mut self, reason: &str) {
        if self.leaving == Leaving::No {
            info!(self.manner.log, reason, "draining: finishing running items and giving back the rest");
            self.leaving = Leaving::Draining;
            self.workers.drain();
        }
    }

    /// Whether it can leave without a connection: it has nothing that a coordinator would want to hear of.
    pub(super) fn nobody_misses_it(&self) -> bool {
        match self.leaving {
            Leaving::No => false,
            Leaving::Gone(_) if self.all_was_heard() => true,
            _ => self.ledger.is_empty(),
        }
    }

    /// Whether the coordinator has heard everything, as far as it has said.
    fn all_was_heard(&self) -> bool {
        self.outgoing.as_ref().is_none_or(|outgoing| outgoing.acknowledged() == outgoing.pushed())
    }

    /// Ends this side of the session once there is nothing more to be said.
    pub(super) fn finish_if_drained(&mut self) {
        if self.leaving == Leaving::Draining
            && self.workers.is_drained()
            && !self.ledger.has_held()
            && let Some(outgoing) = &self.outgoing
        {
            outgoing.finish();
            self.leaving = Leaving::Gone(Instant::now() + self.manner.patience);
        }
    }
}
