//! Whether anything can run on this host, as far as the daemon knows: the agent tells of workers that die before they can serve, and
//! pools that cannot even be started here say why.

use std::collections::HashSet;

use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{AgentEvent, Ailing, FailureKind};

/// What speaks against this host, and what for it.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Why workers die, as the agent has it.
    workers: String,
    /// Why the last pool could not be started that failed because of this host, unless one was started since.
    starts: String,
    /// Pools that were started here. As long as there are such, something can run.
    started: HashSet<u64>,
    /// Pools that were refused for what is no fault of this host.
    excused: HashSet<u64>,
    /// What the coordinator was told last.
    told: String,
}

impl Health {
    /// The pool is refused, which says nothing of this host.
    pub(super) fn excuse(&mut self, pool: u64) {
        self.excused.insert(pool);
    }

    /// Takes note of what the agent tells, and has the coordinator told what that comes to. Returns it, if it is news: why nothing
    /// can run here, or nothing if something can.
    pub(super) fn hear(&mut self, events: &mut Vec<AgentEvent>) -> Option<&str> {
        let mut changed = false;
        let mut note = |event: &AgentEvent| match &event.body {
            Some(Event::Ailing(ailing)) if ailing.pool == 0 => {
                self.workers.clone_from(&ailing.reason);
                changed = true;
            }
            Some(Event::PoolStarted(started)) => {
                self.started.insert(started.pool);
                self.starts.clear();
                changed = true;
            }
            Some(Event::PoolStopped(stopped)) => {
                self.excused.remove(&stopped.pool);
                changed |= self.started.remove(&stopped.pool);
            }
            Some(Event::PoolFault(fault)) if !self.excused.contains(&fault.pool) => {
                let failure = fault.failure.as_ref().filter(|failure| failure.kind() == FailureKind::Unavailable);
                if let Some(failure) = failure {
                    self.starts.clone_from(&failure.message);
                    changed = true;
                }
            }
            _ => {}
        };
        events.iter().for_each(&mut note);
        if !changed {
            return None;
        }
        events.retain(|event| !matches!(&event.body, Some(Event::Ailing(ailing)) if ailing.pool == 0));
        let starts = if self.started.is_empty() { self.starts.as_str() } else { "" };
        let reason = if self.workers.is_empty() { starts } else { &self.workers };
        if reason == self.told {
            return None;
        }
        reason.clone_into(&mut self.told);
        let reason = self.told.clone();
        events.push(AgentEvent { body: Some(Event::Ailing(Ailing { reason, pool: 0 })) });
        Some(&self.told)
    }
}

#[cfg(test)]
mod tests {
    use farpool_proto::v1::{Failure, PoolFault, PoolStarted, PoolStopped};

    use super::*;

    /// What is told of the host's health when the agent tells this.
    fn told(health: &mut Health, event: Event) -> Option<String> {
        let own = matches!(event, Event::Ailing(_));
        let mut events = vec![AgentEvent { body: Some(event) }];
        let said = health.hear(&mut events).map(str::to_owned);
        let ailing = events.iter().find_map(|event| match &event.body {
            Some(Event::Ailing(ailing)) => Some(ailing.reason.clone()),
            _ => None,
        });
        assert_eq!(said, ailing);
        assert_eq!(events.len(), usize::from(!own) + usize::from(ailing.is_some()));
        ailing
    }

    fn fault(pool: u64, kind: FailureKind, message: &str) -> Event {
        let failure = Failure { kind: kind.into(), message: message.to_owned(), ..Failure::default() };
        Event::PoolFault(Box::new(PoolFault { pool, failure: Some(failure) }))
    }

    #[test]
    fn a_host_that_starts_nothing_ails_until_it_does() {
        let mut health = Health::default();
        assert_eq!(told(&mut health, fault(1, FailureKind::ProgramRejected, "no program")), None);
        assert_eq!(
            told(&mut health, fault(2, FailureKind::Unavailable, "the disk is full")),
            Some("the disk is full".into())
        );
        assert_eq!(told(&mut health, fault(3, FailureKind::Unavailable, "the disk is full")), None);
        assert_eq!(told(&mut health, Event::PoolStarted(PoolStarted { pool: 4 })), Some(String::new()));
        // What one pool lacks does not matter as long as others run.
        assert_eq!(told(&mut health, fault(5, FailureKind::Unavailable, "too large")), None);
        assert_eq!(told(&mut health, Event::PoolStopped(PoolStopped { pool: 4 })), Some("too large".into()));
        let dies = Ailing { reason: "killed by SIGKILL".into(), pool: 0 };
        assert_eq!(told(&mut health, Event::Ailing(dies)), Some("killed by SIGKILL".into()));
        assert_eq!(told(&mut health, Event::Ailing(Ailing::default())), Some("too large".into()));
    }

    #[test]
    fn what_is_no_fault_of_the_host_does_not_count() {
        let mut health = Health::default();
        health.excuse(1);
        assert_eq!(told(&mut health, fault(1, FailureKind::Unavailable, "no client sent it")), None);
        told(&mut health, Event::PoolStopped(PoolStopped { pool: 1 }));
        assert!(health.excused.is_empty());
    }
}
