//! The checks at the end: nothing may be left.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::World;
use crate::client::{self, Client};
use crate::network::Host;
use crate::trace;
use crate::workers::Workers;

/// How long everything may take after the last fault.
const BOUND: Duration = Duration::from_secs(600);
/// The host of the client that checks all slots.
const PROBE: Host = 2000;

impl World {
    /// After the last fault: waits until everything that was begun has ended, and checks that nothing is left.
    pub(super) async fn come_to_rest(mut self) {
        trace::log(format_args!("the faults are over"));
        self.coordinator.disk.iter().for_each(|disk| disk.expect_hangs(0));
        self.hosts().into_iter().for_each(|host| self.network.heal(host));
        self.agents.retain(|agent| !agent.is_over());
        if self.agents.is_empty() {
            self.start_agent(2);
        }
        let deadline = Instant::now() + BOUND;
        while !self.clients.iter().all(Client::is_done) {
            if trace::is_violated() {
                return;
            }
            if Instant::now() >= deadline {
                let hosts: Vec<Host> =
                    self.clients.iter().filter(|client| !client.is_done()).map(|client| client.host).collect();
                let status = self.coordinator.status().await;
                return trace::violation(format_args!("clients {hosts:?} are not done after {BOUND:?}: {status:?}"));
            }
            if let Some(client) = self.clients.iter().find(|client| client.has_crashed()) {
                return trace::violation(format_args!("client {} has crashed", client.host));
            }
            sleep(Duration::from_millis(500)).await;
        }
        trace::log(format_args!("all clients are done"));
        self.check_detached_jobs().await;
        // Disconnected sessions and killed workers get time to end; then nothing may be left.
        sleep(Duration::from_secs(90)).await;
        self.check_nothing_is_left().await;
        self.check_every_slot_works().await;
        self.check_nothing_is_held().await;
    }

    /// Checks that detached jobs exist, end, and can be discarded.
    async fn check_detached_jobs(&mut self) {
        let Some(detached) = &mut self.detached else { return };
        let (late, detach_timeout) = (Instant::now() + BOUND, self.coordinator.detach_timeout());
        let swept = timeout_at(late, detached.come_to_rest(&self.network, &self.address, detach_timeout)).await;
        if swept.is_err() {
            let status = self.coordinator.status().await;
            trace::violation(format_args!("detached jobs are not done after {BOUND:?}: {status:?}"));
        }
    }

    /// Checks with a job for all slots that no slot was lost.
    async fn check_every_slot_works(&mut self) {
        self.hosts().into_iter().for_each(|host| self.slow_down(host, 1, 500));
        self.agents.iter().for_each(|agent| agent.with_workers(Workers::reset_peak));
        let slots: usize = self.agents.iter().map(|agent| agent.with_workers(|workers| workers.slots())).sum();
        let done = client::fill(PROBE, &self.network, &self.address, &self.plan, slots as u64, &mut self.random);
        let late = Instant::now() + Duration::from_secs(60);
        if !timeout_at(late, done).await.unwrap_or(false) {
            return trace::violation(format_args!("a job for all slots did not succeed"));
        }
        for agent in &self.agents {
            let (peak, slots) = agent.with_workers(|workers| (workers.peak(), workers.slots()));
            if peak != slots {
                trace::violation(format_args!(
                    "of the {slots} slots of host {} no more than {peak} were ever busy",
                    agent.host
                ));
            }
        }
        // Give pools time to stop, and reports time to be settled.
        sleep(Duration::from_secs(10)).await;
    }

    async fn check_nothing_is_left(&mut self) {
        let late = Instant::now() + Duration::from_secs(5);
        let Ok(status) = timeout_at(late, self.coordinator.status()).await else {
            return trace::violation(format_args!("the coordinator does not answer"));
        };
        let busy = status.agents.iter().any(|agent| agent.chunks > 0 || agent.busy > 0 || agent.away);
        if status.pools.len() + status.jobs.len() > 0 || busy || status.held_bytes > 0 {
            trace::violation(format_args!("something is left at the coordinator: {status:?}"));
        }
        if let Some(journal) = &status.journal
            && (journal.jobs > 0 || !journal.failing.is_empty() || journal.bytes > self.coordinator.journal_rest())
        {
            trace::violation(format_args!("something is left in the journal: {journal:?}"));
        }
        self.agents.retain(|agent| !agent.is_over());
        if status.agents.len() != self.agents.len() {
            let count = self.agents.len();
            trace::violation(format_args!("there are {count} agents, but the coordinator reports others: {status:?}"));
        }
        for agent in &self.agents {
            if let Some(remains) = agent.remains() {
                trace::violation(format_args!("something is left at the agent of host {}: {remains}", agent.host));
            }
        }
    }

    /// Checks, with a new coordinator, that agents hold nothing.
    async fn check_nothing_is_held(&mut self) {
        self.coordinator.kill(&self.network).await;
        self.coordinator.start(&mut self.random);
        sleep(Duration::from_secs(10)).await;
        for agent in self.agents.iter().filter(|agent| agent.held() > 0) {
            trace::violation(format_args!("the agent of host {} still holds {} pools", agent.host, agent.held()));
        }
        let status = self.coordinator.status().await;
        if status.agents.len() != self.agents.len() {
            trace::violation(format_args!("not all agents have reconnected: {status:?}"));
        }
        if status.journal.as_ref().is_some_and(|journal| journal.jobs > 0) {
            trace::violation(format_args!("discarded jobs have come back: {status:?}"));
        }
    }
}
