//! A session with a coordinator.

use std::sync::Arc;
use std::time::Duration;

use farpool_net::{Incoming, Outgoing};
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{AgentCommand, AgentEvent, Failure, PoolStopped};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};

use super::connection::{Connection, DRAINED_BYTES, FULL_BYTES};
use super::disk::Disk;
use super::log::log;
use super::pools::{Pools, Prepared, Refusal};
use super::reactor::Reactor;
use super::settings::Settings;
use super::signals::Signals;
use crate::{Agent, ProtocolError};

/// Time for workers to be gone after they were killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// How a session ended, or why there is none.
#[derive(Debug)]
pub(super) enum End {
    /// As it should: the daemon was told to leave.
    Left,
    /// It was told to leave at once, and exits with this.
    Killed(u8),
    /// There may be another one.
    Lost(String),
    /// There will be none.
    Refused(String),
}

/// A session, and the agent that lives as long as it does.
#[derive(Debug)]
pub(super) struct Session {
    agent: Agent,
    reactor: Reactor,
    pools: Pools,
    outgoing: Outgoing<AgentEvent>,
    incoming: Incoming<AgentCommand>,
    drained: Arc<Notify>,
    /// Too much waits to be sent.
    full: bool,
    commands: Vec<AgentCommand>,
    events: Vec<AgentEvent>,
    leaving: Leaving,
    /// Time for the coordinator to see that the agent leaves.
    patience: Duration,
}

/// How far the agent has come on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    No,
    /// What runs finishes.
    Draining,
    /// Everything was said; the coordinator ends its side of the session, until then.
    Gone(Instant),
}

impl Session {
    pub(super) fn new(settings: &Settings, disk: Arc<Disk>, connection: Connection) -> Result<Session, String> {
        let Connection { client, outgoing, incoming, drained, first, .. } = connection;
        let failed = |error: std::io::Error| format!("starting an agent: {error}");
        let agent = settings.agent().map_err(|errno| failed(errno.into()))?;
        let reactor = Reactor::new(&agent).map_err(failed)?;
        Ok(Session {
            agent,
            reactor,
            pools: Pools::new(disk, client, settings),
            outgoing,
            incoming,
            drained,
            full: false,
            commands: first,
            events: Vec::new(),
            leaving: Leaving::No,
            patience: settings.heartbeat_timeout,
        })
    }

    /// Does what the coordinator says until the session ends.
    pub(super) async fn serve(&mut self, signals: &mut Signals) -> End {
        match self.serve_to_the_end(signals).await {
            End::Lost(reason) | End::Refused(reason) if self.leaving != Leaving::No => {
                log(format_args!("the session ended before all was done: {reason}"));
                End::Left
            }
            end => end,
        }
    }

    async fn serve_to_the_end(&mut self, signals: &mut Signals) -> End {
        loop {
            for command in std::mem::take(&mut self.commands) {
                if let Err(error) = self.command(command) {
                    return End::Lost(format!("it does not keep the protocol: {error}"));
                }
            }
            let busy = self.work();
            let until = self.gone_until();
            tokio::select! {
                heard = self.incoming.next() => match heard {
                    Ok(Some(commands)) => self.commands = commands,
                    _ if self.gone_until().is_some() => return End::Left,
                    Ok(None) => return End::Lost("it ended the session".to_owned()),
                    Err(status) => return End::of_incoming(&self.incoming, &status),
                },
                () = self.reactor.ready() => self.reactor.hear(&mut self.agent),
                () = yield_now(), if busy => {}
                () = self.drained.notified(), if self.full => {}
                prepared = self.pools.next(), if self.pools.is_preparing() => if let Err(error) = self.start(prepared) {
                    return End::Lost(format!("it does not keep the protocol: {error}"));
                },
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => return End::Left,
                code = signals.next() => match self.leaving {
                    Leaving::No => self.drain("a signal came"),
                    _ => return End::Killed(code),
                },
            }
        }
    }

    /// Kills what is left of the session's pools, and waits until it is gone. Returns whether a signal came meanwhile.
    pub(super) async fn stop_everything(&mut self, signals: &mut Signals) -> bool {
        self.pools.give_up();
        self.agent.hold(false);
        self.agent.stop_all();
        let gone = async {
            loop {
                let busy = self.pump();
                self.events.clear();
                if self.agent.is_empty() {
                    return;
                }
                tokio::select! {
                    () = self.reactor.ready() => self.reactor.hear(&mut self.agent),
                    () = yield_now(), if busy => {}
                }
            }
        };
        // Whatever has not gone is killed once more when the agent is dropped.
        tokio::select! {
            _ = timeout(KILL_TIMEOUT, gone) => false,
            _ = signals.next() => true,
        }
    }

    fn command(&mut self, command: AgentCommand) -> Result<(), String> {
        let mut body = command.body;
        if let Some(pool) = self.pools.hear(&mut body) {
            self.events.push(AgentEvent { body: Some(Event::PoolStopped(PoolStopped { pool })) });
        }
        match body {
            None => Ok(()),
            Some(Command::StartPool(start)) if self.leaving == Leaving::No => self.pools.prepare(*start),
            // It was on its way when the agent said that it leaves.
            Some(Command::StartPool(start)) => {
                self.agent.forgo_pool(start.pool);
                Ok(())
            }
            Some(Command::Drain(_)) => {
                self.drain("the coordinator says so");
                Ok(())
            }
            Some(Command::Welcome(_)) => Err("it welcomes the agent twice".to_owned()),
            body => self.agent.command(AgentCommand { body }).map_err(|error| error.to_string()),
        }
    }

    /// # Errors
    /// If the coordinator has said something about the pool that makes no sense.
    fn start(&mut self, prepared: Prepared) -> Result<(), ProtocolError> {
        match prepared {
            Prepared::Ready(start, program, jobs) => {
                self.agent.start_pool(*start, program)?;
                let command = |job| AgentCommand { body: Some(Command::StartJob(job)) };
                jobs.into_iter().try_for_each(|job| self.agent.command(command(job)))
            }
            Prepared::Refused(pool, Refusal { kind, message }) => {
                let host = self.agent.host().to_owned();
                let failure = Failure { kind: kind.into(), message, host, ..Failure::default() };
                self.agent.refuse_pool(pool, failure);
                Ok(())
            }
        }
    }

    fn drain(&mut self, why: &str) {
        if self.leaving == Leaving::No {
            log(format_args!("leaving, since {why}: what runs is finished, the rest goes back"));
            self.leaving = Leaving::Draining;
            self.agent.drain();
            self.pools.give_up().into_iter().for_each(|pool| self.agent.forgo_pool(pool));
        }
    }

    /// Everything was said. How long the coordinator has to end its side of the session.
    fn gone_until(&self) -> Option<Instant> {
        match self.leaving {
            Leaving::Gone(until) => Some(until),
            _ => None,
        }
    }

    /// One round of the agent's work; true if it has more to do.
    fn work(&mut self) -> bool {
        self.mind_the_queue();
        let busy = self.pump();
        self.outgoing.extend(self.events.drain(..));
        if self.leaving == Leaving::Draining && self.agent.is_drained() {
            self.outgoing.finish();
            self.leaving = Leaving::Gone(Instant::now() + self.patience);
        }
        busy
    }

    /// While the coordinator does not take what it was sent, outcomes stay with the workers, which then wait.
    fn mind_the_queue(&mut self) {
        let most = if self.full { DRAINED_BYTES } else { FULL_BYTES };
        let full = self.outgoing.bytes() > most;
        if std::mem::replace(&mut self.full, full) != full {
            self.agent.hold(full);
        }
    }

    /// Lets the agent work; true if it has more to do.
    fn pump(&mut self) -> bool {
        self.agent.pump(&mut self.events);
        for event in &self.events {
            if let Some(Event::PoolStopped(stopped)) = &event.body {
                self.pools.stopped(stopped.pool);
            }
        }
        self.reactor.arm(&mut self.agent)
    }
}
