//! The daemon's sessions with its coordinator, and the workers that outlive them.
//!
//! A lost connection does not end a session: another one replaces it, and no message is lost or handled twice
//! ([`Outgoing::resume`]). If the coordinator no longer knows the session, the agent reports what it holds
//! ([`Ledger`]) and begins a new one. Workers do not notice, unless it takes too long: after the orphan timeout they
//! are killed.
//!
//! Everything is one task, which only waits for the next event. Time is tokio's and randomness comes from a seed, so
//! that a simulation can replace everything else.

mod end;
mod leaving;
mod link;
mod parts;
mod wait;

use std::sync::Arc;
use std::time::Duration;

use farpool_common::backoff::Backoff;
use farpool_common::log::{Log, error, info, warn};
use farpool_net::Outgoing;
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{AgentCommand, AgentEvent, AgentHello, Draining};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout_at};

use crate::ledger::{Ledger, Step};
use leaving::Leaving;
use link::{Connected, DRAINED_BYTES, FULL_BYTES, Link, LinkEvent};

pub use end::End;
use end::Failure;
pub use parts::{CommandFrames, Connect, Connecting, Workers};

/// The first and the longest delay before a retry.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// Time for workers to disappear after they were killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// The settings of a session.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// The hello that introduces the agent.
    pub hello: AgentHello,
    /// How long to wait for the coordinator to acknowledge that the agent leaves.
    pub leave_timeout: Duration,
    /// How long workers keep running without a coordinator.
    pub orphan_timeout: Duration,
    /// The seed of random delays.
    pub seed: u64,
    /// The coordinator's address, for messages.
    pub coordinator: String,
    /// The log.
    pub log: Log,
}

/// The daemon's side of its sessions with the coordinator.
#[derive(Debug)]
pub struct Session<C, W> {
    connect: C,
    workers: W,
    settings: SessionSettings,
    ledger: Ledger,
    link: Link,
    /// The current session, with or without a connection.
    outgoing: Option<Outgoing<AgentEvent>>,
    drained: Arc<Notify>,
    /// Whether too many bytes are queued to be sent.
    full: bool,
    events: Vec<AgentEvent>,
    backoff: Backoff,
    /// When the connection was established.
    connected_at: Instant,
    /// When the workers are killed unless a coordinator is reached.
    orphaned_at: Option<Instant>,
    leaving: Leaving,
    /// Reasons logged since the connection was lost.
    logged_reasons: Vec<String>,
}

impl<C: Connect, W: Workers> Session<C, W> {
    /// Creates the daemon's side, without a session yet.
    pub fn new(connect: C, workers: W, settings: SessionSettings) -> Self {
        let now = Instant::now();
        Session {
            connect,
            workers,
            ledger: Ledger::default(),
            link: Link::Waiting(now),
            outgoing: None,
            drained: Arc::new(Notify::new()),
            full: false,
            events: Vec::new(),
            backoff: Backoff::new(FIRST_BACKOFF, MAX_BACKOFF, settings.seed),
            connected_at: now,
            orphaned_at: None,
            leaving: Leaving::No,
            logged_reasons: Vec::new(),
            settings,
        }
    }

    /// Serves until it has left or is rejected. `signals` yields the exit code for a second signal. On return all
    /// workers have ended, unless there was a second signal.
    pub async fn serve(&mut self, signals: &mut mpsc::Receiver<u8>) -> End {
        let end = loop {
            match self.turn(signals).await {
                Ok(()) => {}
                Err(Interrupt::Ended(end)) => break end,
                Err(Interrupt::Killed(cause)) => {
                    self.log_kill(&cause);
                    if self.kill_all(signals).await || self.leaving != Leaving::No {
                        break End::Left;
                    }
                    self.reset();
                }
            }
        };
        if !matches!(end, End::Killed(_)) {
            self.kill_all(signals).await;
        }
        end
    }

    /// Does one round: handles everything that has arrived.
    async fn turn(&mut self, signals: &mut mpsc::Receiver<u8>) -> Result<(), Interrupt> {
        let busy = self.work();
        self.connect_if_due();
        let wakeup = self.wait(signals, busy).await;
        if let Some(code) = wakeup.exit_code {
            self.leave_requested(code)?;
        }
        if let Err(reason) = wakeup.ready {
            return Err(protocol_error(&reason));
        }
        if let Some(event) = wakeup.link {
            self.handle_link_event(event)?;
        }
        self.check_deadlines()
    }

    fn handle_link_event(&mut self, event: LinkEvent) -> Result<(), Interrupt> {
        match event {
            LinkEvent::Commands(commands) => self.commands(commands),
            LinkEvent::Connected(Connected::Resumed(incoming)) => {
                self.connected(Link::Up(incoming));
                // The coordinator waits for this session only briefly, so the next delay must be short.
                self.backoff.reset();
                info!(self.settings.log, coordinator = self.settings.coordinator, "reconnected to the coordinator");
                Ok(())
            }
            LinkEvent::Connected(Connected::New { outgoing, incoming, first, release }) => {
                self.connected(Link::Up(incoming));
                info!(
                    self.settings.log,
                    coordinator = self.settings.coordinator,
                    release,
                    "connected to the coordinator"
                );
                self.outgoing = Some(outgoing);
                self.ledger.welcomed();
                if self.leaving != Leaving::No {
                    self.send(Event::Draining(Draining {}));
                }
                self.execute_steps()?;
                self.commands(first)
            }
            LinkEvent::Ended if self.leaving.is_finished() => Err(Interrupt::Ended(End::Left)),
            LinkEvent::Ended => self.handle_failure(Failure::Lost("the coordinator ended the session".to_owned())),
            LinkEvent::Failed(failure) => self.handle_failure(failure),
        }
    }

    fn handle_failure(&mut self, failure: Failure) -> Result<(), Interrupt> {
        match failure {
            Failure::Lost(_) if self.may_leave_unconnected() => return Err(Interrupt::Ended(End::Left)),
            Failure::Lost(reason) => self.connection_lost(reason),
            Failure::NotResumed(reason) => {
                self.begin_new_session(&reason);
                self.leaving.restart_draining();
                if self.may_leave_unconnected() {
                    return Err(Interrupt::Ended(End::Left));
                }
            }
            // Before a session has begun, its messages cannot have affected anything.
            Failure::Malformed(reason) if self.link.is_up() => return Err(protocol_error(&reason)),
            Failure::Malformed(reason) => self.connection_lost(format!("the coordinator broke the protocol: {reason}")),
            Failure::Refused(reason) if self.leaving != Leaving::No => {
                warn!(self.settings.log, reason, "session rejected before draining was complete");
                return Err(Interrupt::Ended(End::Left));
            }
            Failure::Refused(reason) => return Err(Interrupt::Ended(End::Refused(reason))),
        }
        Ok(())
    }

    fn connected(&mut self, link: Link) {
        self.link = link;
        self.connected_at = Instant::now();
        self.orphaned_at = None;
        self.logged_reasons.clear();
    }

    /// Handles a lost connection or a failed attempt: schedules the next attempt.
    fn connection_lost(&mut self, reason: String) {
        let now = Instant::now();
        // A connection that ended soon does not reset the backoff.
        if self.link.is_up() && now - self.connected_at >= MAX_BACKOFF {
            self.backoff.reset();
        }
        self.link = Link::Waiting(now + self.backoff.wait());
        if self.orphaned_at.is_none() && !self.ledger.is_empty() {
            self.orphaned_at = Some(now + self.settings.orphan_timeout);
        }
        if !self.logged_reasons.contains(&reason) {
            let SessionSettings { coordinator, log, .. } = &self.settings;
            match self.outgoing {
                Some(_) => warn!(log, coordinator, reason, "no connection to the coordinator; retrying"),
                None => warn!(log, coordinator, reason, "no session with the coordinator; retrying"),
            }
            self.logged_reasons.push(reason);
        }
    }

    /// Begins a new session: the coordinator does not know this one. Its pools are held.
    fn begin_new_session(&mut self, reason: &str) {
        let SessionSettings { coordinator, log, .. } = &self.settings;
        warn!(log, coordinator, reason, "the coordinator does not resume the session; starting a new one");
        self.outgoing = None;
        self.ledger.session_lost();
        // These steps only stop pools, which cannot fail.
        let _ = self.execute_steps();
        self.link = Link::Waiting(Instant::now());
    }

    fn log_kill(&self, cause: &Cause) {
        let SessionSettings { log, orphan_timeout, .. } = &self.settings;
        match cause {
            Cause::Orphaned => {
                error!(log, "orphan-timeout" = ?orphan_timeout, "orphan timeout expired; killing all running items");
            }
            Cause::ProtocolError(reason) => error!(log, reason, "coordinator broke the protocol; killing all items"),
        }
    }

    /// Forgets everything after all workers were killed.
    fn reset(&mut self) {
        self.outgoing = None;
        self.ledger.clear();
        self.orphaned_at = None;
        self.link = Link::Waiting(Instant::now() + self.backoff.wait());
    }

    /// Begins the next attempt, if it is due.
    fn connect_if_due(&mut self) {
        if self.link.due().is_none_or(|due| Instant::now() < due) {
            return;
        }
        let hello = &self.settings.hello;
        self.link = match &self.outgoing {
            Some(outgoing) => Link::resume(&mut self.connect, outgoing, hello.secret.clone()),
            None => {
                let (held, wasted) = self.ledger.hello();
                let hello = AgentHello { held, wasted, ..hello.clone() };
                Link::hello(&mut self.connect, hello, &self.drained)
            }
        };
    }

    fn commands(&mut self, commands: Vec<AgentCommand>) -> Result<(), Interrupt> {
        for command in commands {
            match command.body {
                // A command of a later release.
                None => {}
                Some(Command::Welcome(_)) => return Err(protocol_error("it sent Welcome twice")),
                Some(Command::Drain(_)) => {
                    self.drain("requested by the coordinator");
                    self.leaving.confirm();
                }
                Some(command) => {
                    self.ledger.command(command).map_err(|error| protocol_error(&error.to_string()))?;
                    self.execute_steps()?;
                }
            }
        }
        Ok(())
    }

    /// Executes the ledger's steps.
    fn execute_steps(&mut self) -> Result<(), Interrupt> {
        for step in self.ledger.steps() {
            match step {
                Step::Command(command) => self.workers.command(command).map_err(|error| protocol_error(&error))?,
                Step::Hold { pool, hold } => self.workers.hold_pool(pool, hold),
                Step::CancelStop(pool) => self.workers.cancel_pool_stop(pool),
                Step::Send(event) => self.send(event),
            }
        }
        self.send_wasted();
        Ok(())
    }

    /// Reports late outcomes. Without a session, the next hello does.
    fn send_wasted(&mut self) {
        if self.outgoing.is_some()
            && let Some(wasted) = self.ledger.take_wasted()
        {
            self.send(Event::WastedOutcomes(wasted));
        }
    }

    fn send(&self, body: Event) {
        if let Some(outgoing) = &self.outgoing {
            outgoing.push(AgentEvent { body: Some(body) });
        }
    }

    /// Does one round of work. Returns whether there is more to do.
    fn work(&mut self) -> bool {
        self.apply_backpressure();
        let busy = self.workers.work(&mut self.events);
        let Session { ledger, events, .. } = self;
        let reported = events.drain(..).filter_map(|event| ledger.event(event.body?));
        let reported = reported.map(|body| AgentEvent { body: Some(body) });
        match &self.outgoing {
            Some(outgoing) => outgoing.extend(reported),
            None => reported.for_each(drop),
        }
        if self.ledger.has_steps() {
            // Events of the agent only hold or resume pools, which cannot fail.
            let _ = self.execute_steps();
        }
        self.send_wasted();
        self.finish_if_drained();
        busy
    }

    /// While the coordinator does not read, outcomes stay with the workers, which then wait.
    fn apply_backpressure(&mut self) {
        let most = if self.full { DRAINED_BYTES } else { FULL_BYTES };
        let full = self.outgoing.as_ref().is_some_and(|outgoing| outgoing.bytes() > most);
        if std::mem::replace(&mut self.full, full) != full {
            self.workers.hold(full);
        }
    }

    /// Checks the orphan timeout and the time to leave.
    fn check_deadlines(&mut self) -> Result<(), Interrupt> {
        let now = Instant::now();
        if self.orphaned_at.is_some_and(|at| now >= at) {
            return Err(Interrupt::Killed(Cause::Orphaned));
        }
        if self.leaving.is_expired(now) {
            return Err(Interrupt::Ended(End::Left));
        }
        Ok(())
    }

    /// Kills all workers and waits until they have ended. Returns whether a signal arrived meanwhile.
    async fn kill_all(&mut self, signals: &mut mpsc::Receiver<u8>) -> bool {
        // Closing the connection first tells the coordinator at once.
        self.link = Link::Waiting(Instant::now());
        self.outgoing = None;
        self.full = false;
        self.workers.hold(false);
        self.workers.stop_all();
        let until = Instant::now() + KILL_TIMEOUT;
        loop {
            let busy = self.workers.work(&mut self.events);
            self.events.clear();
            if self.workers.is_empty() {
                return false;
            }
            // Workers that have not ended by then are killed again on drop.
            tokio::select! {
                biased;
                Some(_) = signals.recv() => return true,
                waited = timeout_at(until, self.workers.ready()), if !busy => if waited.is_err() {
                    return false;
                },
                () = tokio::task::yield_now(), if busy => {}
            }
        }
    }
}

/// Why the loop of rounds is interrupted.
enum Interrupt {
    Ended(End),
    /// All workers must be killed.
    Killed(Cause),
}

/// Why all workers are killed.
enum Cause {
    /// The orphan timeout expired.
    Orphaned,
    /// The coordinator broke the protocol.
    ProtocolError(String),
}

fn protocol_error(what: &str) -> Interrupt {
    Interrupt::Killed(Cause::ProtocolError(what.to_owned()))
}

#[cfg(test)]
mod tests;
