//! Messages sent and received, under the session's lock.

mod detached;

use farpool_core::Run;
use farpool_net::Outgoing;
use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{ClientEvent, ClientMessage, Failure, FailureKind, ItemsFailed, Welcome};

use super::kept::{self, Fresh, KeptSession, SendState, Violation};
use crate::inboxes::Inboxes;

pub(super) struct SessionState {
    pub(super) inboxes: Inboxes,
    /// Why nothing of the pool can run at the moment, as the coordinator reports it.
    pub(super) waiting: Option<String>,
    /// Why the pool's state is unknown at the moment: the outage.
    pub(super) outage: Option<String>,
    pub(super) link: Link,
    /// A coordinator has accepted the session before.
    pub(super) welcomed: bool,
    pub(super) kept: KeptSession,
    pub(super) outgoing: Outgoing<ClientMessage>,
    /// No further jobs are admitted.
    pub(super) closed: bool,
    /// Everything ends at once: results are no longer read.
    pub(super) terminated: bool,
    /// The session's thread has ended.
    pub(super) over: bool,
}

/// Where messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// To the coordinator.
    Up,
    /// They wait for another connection of the same session.
    Lost,
    /// Nowhere yet: they are only kept. When a coordinator accepts the session, all kept messages are sent.
    Opening,
}

impl SessionState {
    pub(super) fn new(kept: KeptSession, outgoing: Outgoing<ClientMessage>) -> Self {
        Self {
            inboxes: Inboxes::default(),
            waiting: None,
            outage: None,
            link: Link::Opening,
            welcomed: false,
            kept,
            outgoing,
            closed: false,
            terminated: false,
            over: false,
        }
    }

    /// Keeps and sends the messages of jobs that have not ended.
    pub(super) fn send(&mut self, messages: &mut Vec<Body>) {
        let SessionState { kept, outgoing, link, .. } = self;
        let cancels = *link != Link::Up && messages.iter().any(|body| matches!(body, Body::CancelJob(_)));
        let mut pushed = outgoing.pushed();
        messages.retain(|body| {
            let send_state = if *link == Link::Opening { SendState::Unsent } else { SendState::Queued(pushed + 1) };
            let is_kept = kept.keep(body, send_state);
            pushed += u64::from(is_kept);
            is_kept
        });
        match link {
            Link::Up | Link::Lost => outgoing.extend(messages.drain(..).map(message)),
            Link::Opening => messages.clear(),
        }
        if cancels {
            self.end_jobs();
        }
    }

    /// Delivers events about jobs, each outcome once; returns other events.
    pub(super) fn receive(&mut self, event: ClientEvent) -> Result<Option<Event>, Violation> {
        if self.kept.detaches() {
            self.receive_detaching(event)
        } else if self.kept.attached().is_some() {
            self.receive_reading(event)
        } else {
            Ok(self.receive_in_pool(event))
        }
    }

    fn receive_in_pool(&mut self, mut event: ClientEvent) -> Option<Event> {
        match event.body.as_mut()? {
            Event::ItemsDone(done) => {
                let items = (done.ends.len() / 4) as u64;
                if let Fresh::Some(runs) = self.kept.finish(done.job, done.first, items) {
                    for part in kept::part(done, &runs) {
                        self.inboxes.deliver(ClientEvent { body: Some(Event::ItemsDone(part)) });
                    }
                    return None;
                }
            }
            Event::ItemsFailed(failed) => {
                if let Fresh::Some(runs) = self.kept.finish(failed.job, failed.first, failed.count) {
                    for Run { first, count } in runs {
                        self.fail(ItemsFailed { first, count, ..ItemsFailed::clone(failed) });
                    }
                    return None;
                }
            }
            Event::Window(window) => window.limit = self.kept.translate(window.job, window.limit),
            Event::JobEnded(ended) => self.kept.end_job(ended.job),
            Event::PoolFailed(_) | Event::PoolClosed(_) => self.kept.end_all(),
            Event::PoolAt(at) => {
                let comes = !at.gone;
                self.kept.note_agent(std::mem::take(at));
                if comes {
                    // Nothing starts there before this is acknowledged.
                    self.outgoing.acknowledge();
                }
                return None;
            }
            _ => {}
        }
        self.inboxes.deliver(event)
    }

    /// Begins a new session, whose first messages go into this queue.
    pub(super) fn begin(&mut self, outgoing: Outgoing<ClientMessage>) {
        self.link = Link::Opening;
        let before = std::mem::replace(&mut self.outgoing, outgoing);
        self.kept.end_session(before.abandon());
    }

    /// Handles the coordinator's acceptance of the session: sends what was only kept until now, or all jobs again if
    /// another session was accepted before.
    pub(super) fn welcome(&mut self, welcome: Welcome) {
        let lost = self.kept.welcome(welcome.coordinator);
        self.outgoing.set_frame_budget(welcome.window);
        (self.link, self.outage, self.waiting) = (Link::Up, None, None);
        for (job, Run { first, count }) in lost {
            self.fail(ItemsFailed { job, first, count, failure: Some(may_have_run()) });
        }
        let before = self.outgoing.pushed();
        let messages = match std::mem::replace(&mut self.welcomed, true) {
            true => self.kept.resend(before, welcome.window),
            false => self.kept.send_first(before, welcome.window),
        };
        self.outgoing.extend(messages.into_iter().map(message));
        let kept = &self.kept;
        self.inboxes.set_limits(|job| kept.translate(job, welcome.window));
    }

    /// Notes the outage: nothing is received or sent until there is another connection.
    pub(super) fn lose_connection(&mut self, reason: String) {
        if self.link == Link::Up {
            self.link = Link::Lost;
        }
        self.outage = Some(reason);
        self.end_jobs();
    }

    /// Notes that the session has resumed on another connection. Messages that were queued during the outage are in
    /// flight.
    pub(super) fn resume(&mut self) {
        (self.link, self.outage) = (Link::Up, None);
    }

    /// Returns whether there is a reason to reconnect to a coordinator.
    pub(super) fn is_wanted(&self) -> bool {
        !(self.terminated || self.is_done() || self.inboxes.failure().is_some())
    }

    /// Returns whether all jobs have ended, and no more will come.
    pub(super) fn is_done(&self) -> bool {
        self.closed && self.inboxes.iter().len() == 0
    }

    fn fail(&mut self, failed: ItemsFailed) {
        self.inboxes.deliver(ClientEvent { body: Some(Event::ItemsFailed(Box::new(failed))) });
    }

    /// Ends the jobs that need no coordinator during an outage.
    fn end_jobs(&mut self) {
        for ended in self.kept.take_ended() {
            self.inboxes.deliver(ClientEvent { body: Some(Event::JobEnded(ended)) });
        }
    }
}

pub(super) fn message(body: Body) -> ClientMessage {
    ClientMessage { body: Some(body) }
}

fn may_have_run() -> Failure {
    let message = "the client was disconnected for longer than the coordinator's --reconnect-grace, so its running items were \
                   killed; this item had been sent and may have run";
    Failure { kind: FailureKind::AgentLost.into(), message: message.to_owned(), attempts: 1, ..Failure::default() }
}
