//! What is said and heard, under the session's lock.

use farpool_core::Run;
use farpool_net::Outgoing;
use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{ClientEvent, ClientMessage, Failure, FailureKind, ItemsFailed, Welcome};

use super::kept::{self, Fresh, Kept, Way};
use crate::inboxes::Inboxes;

pub(super) struct State {
    pub(super) inboxes: Inboxes,
    /// Why nothing of the pool can run for now, in the coordinator's words.
    pub(super) waiting: Option<String>,
    /// Why nobody knows what becomes of the pool for now.
    pub(super) away: Option<String>,
    pub(super) link: Link,
    pub(super) kept: Kept,
    pub(super) outgoing: Outgoing<ClientMessage>,
    /// No further jobs will come.
    pub(super) closed: bool,
    /// Everything ends at once: nobody reads results any more.
    pub(super) terminated: bool,
    /// The session's thread is through.
    pub(super) over: bool,
}

/// Where what is said goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// To the coordinator.
    Up,
    /// It waits for another connection of the same session.
    Away,
    /// It is only kept: when a coordinator has taken the pool again, it is told all that is kept.
    Opening,
}

impl State {
    pub(super) fn new(kept: Kept, outgoing: Outgoing<ClientMessage>) -> Self {
        Self {
            inboxes: Inboxes::default(),
            waiting: None,
            away: None,
            link: Link::Opening,
            kept,
            outgoing,
            closed: false,
            terminated: false,
            over: false,
        }
    }

    /// Keeps messages and sends them, as far as they are of jobs that have not ended.
    pub(super) fn say(&mut self, messages: &mut Vec<Body>) {
        let State { kept, outgoing, link, .. } = self;
        let cancels = *link != Link::Up && messages.iter().any(|body| matches!(body, Body::CancelJob(_)));
        let mut pushed = outgoing.pushed();
        messages.retain(|body| {
            let way = if *link == Link::Opening { Way::Unsaid } else { Way::Queued(pushed + 1) };
            let is_said = kept.say(body, way);
            pushed += u64::from(is_said);
            is_said
        });
        match link {
            Link::Up | Link::Away => outgoing.extend(messages.drain(..).map(message)),
            Link::Opening => messages.clear(),
        }
        if cancels {
            self.end_cancelled();
        }
    }

    /// Delivers what is about jobs, each outcome once; returns what is about other things.
    pub(super) fn hear(&mut self, mut event: ClientEvent) -> Option<Event> {
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
                self.kept.note_place(std::mem::take(at));
                if comes {
                    // Nothing starts there before.
                    self.outgoing.acknowledge();
                }
                return None;
            }
            _ => {}
        }
        self.inboxes.deliver(event)
    }

    /// Begins a session anew, with what there is to be said first in this queue.
    pub(super) fn begin(&mut self, outgoing: Outgoing<ClientMessage>) {
        self.link = Link::Opening;
        let before = std::mem::replace(&mut self.outgoing, outgoing);
        self.kept.end_session(before.abandon());
    }

    /// The coordinator has taken the pool, and gets to know what is to be done; nothing, if it is for the first time.
    pub(super) fn welcome(&mut self, welcome: Welcome, again: bool) {
        let lost = self.kept.welcome(welcome.coordinator);
        (self.link, self.away, self.waiting) = (Link::Up, None, None);
        for (job, Run { first, count }) in lost {
            self.fail(ItemsFailed { job, first, count, failure: Some(may_have_run()) });
        }
        if again {
            let again = self.kept.say_again(self.outgoing.pushed(), welcome.window);
            self.outgoing.extend(again.into_iter().map(message));
            let kept = &self.kept;
            self.inboxes.set_limits(|job| kept.translate(job, welcome.window));
        }
    }

    /// Nothing comes and nothing leaves until there is another connection.
    pub(super) fn lose_connection(&mut self, reason: String) {
        if self.link == Link::Up {
            self.link = Link::Away;
        }
        self.away = Some(reason);
        self.end_cancelled();
    }

    /// There is another connection of the same session, and what was said meanwhile is on its way.
    pub(super) fn resume(&mut self) {
        (self.link, self.away) = (Link::Up, None);
    }

    /// Whether there is anything left to come back to a coordinator for.
    pub(super) fn is_wanted(&self) -> bool {
        let done = self.closed && self.inboxes.iter().len() == 0;
        !(self.terminated || done || self.inboxes.failure().is_some())
    }

    fn fail(&mut self, failed: ItemsFailed) {
        self.inboxes.deliver(ClientEvent { body: Some(Event::ItemsFailed(Box::new(failed))) });
    }

    /// While nobody is there who could say so, jobs that were cancelled have ended.
    fn end_cancelled(&mut self) {
        for job in self.kept.take_cancelled() {
            self.inboxes.cancel(job);
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
