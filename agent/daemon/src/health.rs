//! The health of this host: the agent reports workers that die at startup, and the daemon adds pools that could not
//! even start.

use std::collections::HashSet;

use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{AgentEvent, FailureKind, HealthReport};

/// Reasons why this host is healthy or unhealthy.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Why workers die, as the agent reports it; empty if they do not.
    worker_failure: String,
    /// Why the last pool failed to start because of this host; empty after a pool has started.
    start_failure: String,
    /// Pools that run here. While there are any, the host is healthy.
    started: HashSet<u64>,
    /// Rejected pools whose failure is not the host's fault.
    ignored: HashSet<u64>,
    /// The reason last reported to the coordinator; empty: healthy.
    reported: String,
}

impl Health {
    /// Ignores the failure of a rejected pool, because it is not the host's fault.
    pub(super) fn ignore_failure(&mut self, pool: u64) {
        self.ignored.insert(pool);
    }

    /// Updates the health from the agent's events, and replaces the agent's health reports by the host's. Returns why
    /// nothing can run here, if that has changed; empty: something can run again.
    pub(super) fn update(&mut self, events: &mut Vec<AgentEvent>) -> Option<&str> {
        let mut changed = false;
        let mut note = |event: &AgentEvent| match &event.body {
            Some(Event::HealthReport(unhealthy)) if unhealthy.pool == 0 => {
                self.worker_failure.clone_from(&unhealthy.reason);
                changed = true;
            }
            Some(Event::PoolStarted(started)) => {
                self.started.insert(started.pool);
                self.start_failure.clear();
                changed = true;
            }
            Some(Event::PoolStopped(stopped)) => {
                self.ignored.remove(&stopped.pool);
                changed |= self.started.remove(&stopped.pool);
            }
            Some(Event::PoolFault(fault)) if !self.ignored.contains(&fault.pool) => {
                let failure = fault.failure.as_ref().filter(|failure| failure.kind() == FailureKind::Unavailable);
                if let Some(failure) = failure {
                    self.start_failure.clone_from(&failure.message);
                    changed = true;
                }
            }
            _ => {}
        };
        events.iter().for_each(&mut note);
        if !changed {
            return None;
        }
        events.retain(|event| !matches!(&event.body, Some(Event::HealthReport(unhealthy)) if unhealthy.pool == 0));
        let starts = if self.started.is_empty() { self.start_failure.as_str() } else { "" };
        let reason = if self.worker_failure.is_empty() { starts } else { &self.worker_failure };
        if reason == self.reported {
            return None;
        }
        reason.clone_into(&mut self.reported);
        let reason = self.reported.clone();
        events.push(AgentEvent { body: Some(Event::HealthReport(HealthReport { reason, pool: 0 })) });
        Some(&self.reported)
    }
}

#[cfg(test)]
mod tests {
    use farpool_proto::v1::{Failure, PoolFault, PoolStarted, PoolStopped};

    use super::*;

    /// Returns what is reported to the coordinator after this event of the agent.
    fn reported(health: &mut Health, event: Event) -> Option<String> {
        let own = matches!(event, Event::HealthReport(_));
        let mut events = vec![AgentEvent { body: Some(event) }];
        let returned = health.update(&mut events).map(str::to_owned);
        let unhealthy = events.iter().find_map(|event| match &event.body {
            Some(Event::HealthReport(unhealthy)) => Some(unhealthy.reason.clone()),
            _ => None,
        });
        assert_eq!(returned, unhealthy);
        assert_eq!(events.len(), usize::from(!own) + usize::from(unhealthy.is_some()));
        unhealthy
    }

    fn fault(pool: u64, kind: FailureKind, message: &str) -> Event {
        let failure = Failure { kind: kind.into(), message: message.to_owned(), ..Failure::default() };
        Event::PoolFault(Box::new(PoolFault { pool, failure: Some(failure) }))
    }

    #[test]
    fn a_host_is_unhealthy_until_a_pool_starts() {
        let mut health = Health::default();
        assert_eq!(reported(&mut health, fault(1, FailureKind::ProgramRejected, "no program")), None);
        assert_eq!(
            reported(&mut health, fault(2, FailureKind::Unavailable, "the disk is full")),
            Some("the disk is full".into())
        );
        assert_eq!(reported(&mut health, fault(3, FailureKind::Unavailable, "the disk is full")), None);
        assert_eq!(reported(&mut health, Event::PoolStarted(PoolStarted { pool: 4 })), Some(String::new()));
        // One pool's failure does not matter while others run.
        assert_eq!(reported(&mut health, fault(5, FailureKind::Unavailable, "too large")), None);
        assert_eq!(reported(&mut health, Event::PoolStopped(PoolStopped { pool: 4 })), Some("too large".into()));
        let dies = HealthReport { reason: "killed by SIGKILL".into(), pool: 0 };
        assert_eq!(reported(&mut health, Event::HealthReport(dies)), Some("killed by SIGKILL".into()));
        assert_eq!(reported(&mut health, Event::HealthReport(HealthReport::default())), Some("too large".into()));
    }

    #[test]
    fn failures_that_are_not_the_hosts_fault_do_not_count() {
        let mut health = Health::default();
        health.ignore_failure(1);
        assert_eq!(reported(&mut health, fault(1, FailureKind::Unavailable, "no client sent it")), None);
        reported(&mut health, Event::PoolStopped(PoolStopped { pool: 1 }));
        assert!(health.ignored.is_empty());
    }
}
