//! The work of this host: an agent, and everything that its pools need before they start.

use std::io;
use std::sync::Arc;

use farpool_agent::Agent;
use farpool_common::log::{Log, info, warn};
use farpool_link::clock;
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{AgentCommand, AgentEvent, Failure, HealthReport, PoolStopped};

use super::connector::Coordinator;
use super::disk::Disk;
use super::health::Health;
use super::pools::{Pools, Prepared, Refusal};
use super::reactor::Reactor;
use super::session::Workers;
use super::settings::Settings;

/// The agent of this host, its pools and its health.
#[derive(Debug)]
pub(super) struct Host {
    agent: Agent,
    reactor: Reactor,
    pools: Pools,
    draining: bool,
    health: Health,
    log: Log,
    /// Events for the next round.
    events: Vec<AgentEvent>,
}

impl Host {
    pub(super) fn new(settings: &Settings, disk: Arc<Disk>, coordinator: Coordinator) -> Result<Host, String> {
        let failed = |error: io::Error| format!("cannot start the agent: {error}");
        let agent = settings.agent().map_err(failed)?;
        let reactor = Reactor::new(&agent).map_err(failed)?;
        let pools = Pools::new(disk, coordinator, settings);
        let log = settings.log.clone();
        Ok(Host { agent, reactor, pools, draining: false, health: Health::default(), log, events: Vec::new() })
    }

    fn start(&mut self, prepared: Prepared) -> Result<(), String> {
        match prepared {
            Prepared::Ready(start, program, jobs) => {
                self.agent.start_pool(*start, program).map_err(|error| error.to_string())?;
                jobs.into_iter().try_for_each(|job| self.send_to_agent(Command::StartJob(job)))
            }
            Prepared::Refused(pool, Refusal { kind, message, host_fault }) => {
                if !host_fault {
                    self.health.ignore_failure(pool);
                }
                let host = self.agent.host().to_owned();
                let failure = Failure { kind: kind.into(), message, host, ..Failure::default() };
                self.agent.refuse_pool(pool, failure);
                Ok(())
            }
        }
    }

    fn send_to_agent(&mut self, command: Command) -> Result<(), String> {
        self.agent.command(AgentCommand { body: Some(command) }).map_err(|error| error.to_string())
    }
}

impl Workers for Host {
    fn command(&mut self, command: Command) -> Result<(), String> {
        let mut command = Some(command);
        if let Some(pool) = self.pools.intercept(&mut command) {
            self.events.push(AgentEvent { body: Some(Event::PoolStopped(PoolStopped { pool })) });
        }
        match command {
            None => Ok(()),
            // It was sent before the coordinator knew that the agent is draining.
            Some(Command::StartPool(start)) if self.draining => {
                self.agent.skip_pool(start.pool);
                Ok(())
            }
            Some(Command::StartPool(start)) => self.pools.prepare(*start),
            Some(command) => self.send_to_agent(command),
        }
    }

    fn work(&mut self, events: &mut Vec<AgentEvent>) -> bool {
        events.append(&mut self.events);
        self.agent.pump(clock::now(), events);
        match self.health.update(events) {
            None => {}
            Some("") => info!(self.log, "host healthy"),
            Some(reason) => warn!(self.log, reason, "host unhealthy; nothing can run here"),
        }
        for event in &*events {
            match &event.body {
                Some(Event::PoolStopped(stopped)) => self.pools.stopped(stopped.pool),
                Some(Event::HealthReport(HealthReport { reason, pool: 1.. })) => {
                    warn!(self.log, reason, "pool unhealthy; its workers die at startup");
                }
                _ => {}
            }
        }
        self.reactor.arm(&mut self.agent)
    }

    async fn ready(&mut self) -> Result<(), String> {
        tokio::select! {
            biased;
            prepared = self.pools.next(), if self.pools.is_preparing() => self.start(prepared),
            () = self.reactor.ready() => {
                self.reactor.dispatch(&mut self.agent);
                Ok(())
            }
        }
    }

    fn hold(&mut self, hold: bool) {
        self.agent.hold(hold);
    }

    fn hold_pool(&mut self, pool: u64, hold: bool) {
        self.agent.hold_pool(pool, hold);
    }

    fn cancel_pool_stop(&mut self, pool: u64) {
        self.agent.cancel_pool_stop(pool);
    }

    fn drain(&mut self) {
        self.draining = true;
        self.agent.drain();
        self.pools.abort_all().into_iter().for_each(|pool| self.agent.skip_pool(pool));
    }

    fn is_drained(&self) -> bool {
        self.events.is_empty() && self.agent.is_drained()
    }

    fn stop_all(&mut self) {
        self.pools.abort_all();
        self.agent.stop_all();
    }

    fn is_empty(&self) -> bool {
        self.agent.is_empty()
    }
}
