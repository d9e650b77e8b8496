//! A daemon's sessions with its coordinator: one after the other, and the workers that outlive them.
//!
//! A connection that is lost is not the end of a session: another one takes its place, and nothing that was said is lost
//! or heard twice ([`Outgoing::resume`]). A coordinator that does not know the session any more, or has given it up, is
//! told what is held ([`Ledger`]) and begins another one. The workers know nothing of all that, unless it
//! takes too long: those that nobody has asked for within the orphan timeout are killed.
//!
//! Everything is one task, which never does anything else than to wait for what comes next; time is tokio's, and chance
//! comes from a seed, so that a simulation can play the rest of the world.

mod end;
mod leaving;
mod link;
mod news;
mod parts;

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
use link::{Connected, DRAINED_BYTES, FULL_BYTES, Heard, Link};

pub use end::End;
use end::Failure;
pub use parts::{CommandFrames, Connect, Connecting, Workers};

/// The first wait before another try, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Time for workers to be gone after they were killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// How a session behaves.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Who says hello, as what.
    pub hello: AgentHello,
    /// Time for the coordinator to see that the agent has left.
    pub patience: Duration,
    /// How long workers go on that no coordinator has asked for.
    pub orphan_timeout: Duration,
    /// Decides on waits.
    pub seed: u64,
    /// Where the coordinator is, for messages.
    pub coordinator: String,
    /// Where it is told what happens.
    pub log: Log,
}

/// A daemon's affairs with its coordinator.
#[derive(Debug)]
pub struct Session<C, W> {
    connect: C,
    workers: W,
    manner: Manner,
    ledger: Ledger,
    link: Link,
    /// The session, whether or not it has a connection.
    outgoing: Option<Outgoing<AgentEvent>>,
    drained: Arc<Notify>,
    /// Too much waits to be sent.
    full: bool,
    events: Vec<AgentEvent>,
    backoff: Backoff,
    /// When the connection came about.
    since: Instant,
    /// Those who work are killed then.
    orphaned_at: Option<Instant>,
    leaving: Leaving,
    /// What was said of the connection since it was there last.
    complaints: Vec<String>,
}

impl<C: Connect, W: Workers> Session<C, W> {
    /// A daemon that knows no coordinator yet.
    pub fn new(connect: C, workers: W, manner: Manner) -> Self {
        let now = Instant::now();
        Session {
            connect,
            workers,
            ledger: Ledger::default(),
            link: Link::Waits(now),
            outgoing: None,
            drained: Arc::new(Notify::new()),
            full: false,
            events: Vec::new(),
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT, manner.seed),
            since: now,
            orphaned_at: None,
            leaving: Leaving::No,
            complaints: Vec::new(),
            manner,
        }
    }

    /// Serves until it is asked to leave, or refused. What comes out of `asked` is what a process exits with that was asked
    /// twice. Nothing is left of the workers then, unless they were asked about twice.
    pub async fn serve(&mut self, asked: &mut mpsc::Receiver<u8>) -> End {
        let end = loop {
            match self.turn(asked).await {
                Ok(()) => {}
                Err(Turn::Over(end)) => break end,
                Err(Turn::Killed(cause)) => {
                    self.log_kill(&cause);
                    if self.kill_all(asked).await || self.leaving != Leaving::No {
                        break End::Left;
                    }
                    self.begin_anew();
                }
            }
        };
        if !matches!(end, End::Killed(_)) {
            self.kill_all(asked).await;
        }
        end
    }

    /// One round: all that has come is heard, and what follows from it is done.
    async fn turn(&mut self, asked: &mut mpsc::Receiver<u8>) -> Result<(), Turn> {
        let busy = self.work();
        self.try_to_connect();
        let news = self.news(asked, busy).await;
        if let Some(code) = news.asked {
            self.asked_to_leave(code)?;
        }
        if let Err(reason) = news.ready {
            return Err(nonsense(&reason));
        }
        if let Some(heard) = news.link {
            self.heard(heard)?;
        }
        self.mind_the_time()
    }

    fn heard(&mut self, heard: Heard) -> Result<(), Turn> {
        match heard {
            Heard::Commands(commands) => self.commands(commands),
            Heard::Connected(Connected::Again(incoming)) => {
                self.connected(Link::Up(incoming));
                // The session is waited for, and not for long: the next wait is a short one, however soon it comes.
                self.backoff.reset();
                info!(self.manner.log, coordinator = self.manner.coordinator, "reconnected to the coordinator");
                Ok(())
            }
            Heard::Connected(Connected::Anew { outgoing, incoming, first, release }) => {
                self.connected(Link::Up(incoming));
                info!(self.manner.log, coordinator = self.manner.coordinator, release, "connected to the coordinator");
                self.outgoing = Some(outgoing);
                self.ledger.welcomed();
                if self.leaving != Leaving::No {
                    self.tell(Event::Draining(Draining {}));
                }
                self.follow_steps()?;
                self.commands(first)
            }
            Heard::Ended if self.leaving.is_gone() => Err(Turn::Over(End::Left)),
            Heard::Ended => self.failed(Failure::Lost("it ended the session".to_owned())),
            Heard::Failed(failure) => self.failed(failure),
        }
    }

    fn failed(&mut self, failure: Failure) -> Result<(), Turn> {
        match failure {
            Failure::Lost(_) if self.nobody_misses_it() => return Err(Turn::Over(End::Left)),
            Failure::Lost(reason) => self.lost(reason),
            Failure::GivenUp => {
                self.given_up();
                self.leaving.has_more_to_say();
                if self.nobody_misses_it() {
                    return Err(Turn::Over(End::Left));
                }
            }
            // Of a session that was not there yet nothing can be wrong.
            Failure::Nonsense(reason) if self.link.is_up() => return Err(nonsense(&reason)),
            Failure::Nonsense(reason) => self.lost(format!("it broke the protocol: {reason}")),
            Failure::Refused(reason) if self.leaving != Leaving::No => {
                warn!(self.manner.log, reason, "the coordinator refused the session before draining was complete");
                return Err(Turn::Over(End::Left));
            }
            Failure::Refused(reason) => return Err(Turn::Over(End::Refused(reason))),
        }
        Ok(())
    }

    fn connected(&mut self, link: Link) {
        self.link = link;
        self.since = Instant::now();
        self.orphaned_at = None;
        self.complaints.clear();
    }

    /// There is no connection, or none any more: another one is tried.
    fn lost(&mut self, reason: String) {
        let now = Instant::now();
        // Those that end soon after they have begun do not count.
        if self.link.is_up() && now - self.since >= LONGEST_WAIT {
            self.backoff.reset();
        }
        self.link = Link::Waits(now + self.backoff.wait());
        if self.orphaned_at.is_none() && !self.ledger.is_empty() {
            self.orphaned_at = Some(now + self.manner.orphan_timeout);
        }
        if !self.complaints.contains(&reason) {
            let Manner { coordinator, log, .. } = &self.manner;
            match self.outgoing {
                Some(_) => warn!(log, coordinator, reason, "no connection with the coordinator; retrying"),
                None => warn!(log, coordinator, reason, "no session with the coordinator; retrying"),
            }
            self.complaints.push(reason);
        }
    }

    /// The coordinator does not know the session: what has begun in it is held for the next one.
    fn given_up(&mut self) {
        let Manner { coordinator, log, .. } = &self.manner;
        warn!(log, coordinator, "the coordinator does not know this session: starting a new one");
        self.outgoing = None;
        self.ledger.lost();
        // The commands say what is not wanted any more, which always makes sense.
        let _ = self.follow_steps();
        self.link = Link::Waits(Instant::now());
    }

    fn log_kill(&self, cause: &Cause) {
        let Manner { log, orphan_timeout, .. } = &self.manner;
        match cause {
            Cause::Orphaned => {
                error!(log, "orphan-timeout" = ?orphan_timeout, "no coordinator in time: killing all running items");
            }
            Cause::Nonsense(reason) => error!(log, reason, "the coordinator broke the protocol: killing all items"),
        }
    }

    /// Nothing is held, and nobody knows of this agent.
    fn begin_anew(&mut self) {
        self.outgoing = None;
        self.ledger.clear();
        self.orphaned_at = None;
        self.link = Link::Waits(Instant::now() + self.backoff.wait());
    }

    /// Begins the next try, if it is time to.
    fn try_to_connect(&mut self) {
        if self.link.due().is_none_or(|due| Instant::now() < due) {
            return;
        }
        let hello = &self.manner.hello;
        self.link = match &self.outgoing {
            Some(outgoing) => Link::resume(&mut self.connect, outgoing, hello.secret.clone()),
            None => {
                let (held, in_vain) = self.ledger.hello();
                let hello = AgentHello { held, in_vain, ..hello.clone() };
                Link::hello(&mut self.connect, hello, &self.drained)
            }
        };
    }

    fn commands(&mut self, commands: Vec<AgentCommand>) -> Result<(), Turn> {
        for command in commands {
            match command.body {
                // It is one that a later release has.
                None => {}
                Some(Command::Welcome(_)) => return Err(nonsense("it welcomes the agent twice")),
                Some(Command::Drain(_)) => self.drain("requested by the coordinator"),
                Some(command) => {
                    self.ledger.command(command).map_err(|error| nonsense(&error.to_string()))?;
                    self.follow_steps()?;
                }
            }
        }
        Ok(())
    }

    /// Does what the ledger says.
    fn follow_steps(&mut self) -> Result<(), Turn> {
        for step in self.ledger.steps() {
            match step {
                Step::Command(command) => self.workers.command(command).map_err(|error| nonsense(&error))?,
                Step::Hold { pool, hold } => self.workers.hold_pool(pool, hold),
                Step::KeepOn(pool) => self.workers.keep_pool(pool),
                Step::Tell(event) => self.tell(event),
            }
        }
        self.tell_what_was_in_vain();
        Ok(())
    }

    /// Without a session it waits for the next hello.
    fn tell_what_was_in_vain(&mut self) {
        if self.outgoing.is_some()
            && let Some(in_vain) = self.ledger.take_in_vain()
        {
            self.tell(Event::InVain(in_vain));
        }
    }

    fn tell(&self, body: Event) {
        if let Some(outgoing) = &self.outgoing {
            outgoing.push(AgentEvent { body: Some(body) });
        }
    }

    /// One round of work; true if there is more to do.
    fn work(&mut self) -> bool {
        self.mind_the_queue();
        let busy = self.workers.work(&mut self.events);
        let Session { ledger, events, .. } = self;
        let told = events.drain(..).filter_map(|event| ledger.event(event.body?));
        let told = told.map(|body| AgentEvent { body: Some(body) });
        match &self.outgoing {
            Some(outgoing) => outgoing.extend(told),
            None => told.for_each(drop),
        }
        if self.ledger.has_steps() {
            // What the agent has said only has pools held, or not.
            let _ = self.follow_steps();
        }
        self.tell_what_was_in_vain();
        self.finish_if_drained();
        busy
    }

    /// While the coordinator does not take what it was sent, outcomes stay with the workers, which then wait.
    fn mind_the_queue(&mut self) {
        let most = if self.full { DRAINED_BYTES } else { FULL_BYTES };
        let full = self.outgoing.as_ref().is_some_and(|outgoing| outgoing.bytes() > most);
        if std::mem::replace(&mut self.full, full) != full {
            self.workers.hold(full);
        }
    }

    /// Has the workers killed that nobody has asked for.
    fn mind_the_time(&mut self) -> Result<(), Turn> {
        let now = Instant::now();
        if self.orphaned_at.is_some_and(|at| now >= at) {
            return Err(Turn::Killed(Cause::Orphaned));
        }
        if self.leaving.is_over(now) {
            return Err(Turn::Over(End::Left));
        }
        Ok(())
    }

    /// Kills what is left, and waits until it is gone. Returns whether it was asked to leave meanwhile.
    async fn kill_all(&mut self, asked: &mut mpsc::Receiver<u8>) -> bool {
        // Whoever listens is not kept waiting.
        self.link = Link::Waits(Instant::now());
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
            // Whatever has not gone by then is killed once more when it is dropped.
            tokio::select! {
                biased;
                Some(_) = asked.recv() => return true,
                waited = timeout_at(until, self.workers.ready()), if !busy => if waited.is_err() {
                    return false;
                },
                () = tokio::task::yield_now(), if busy => {}
            }
        }
    }
}

/// Why it does not simply go on.
enum Turn {
    Over(End),
    /// All workers are killed, and why.
    Killed(Cause),
}

/// Why all workers are killed.
enum Cause {
    /// No coordinator has come in time.
    Orphaned,
    /// The coordinator broke the protocol.
    Nonsense(String),
}

fn nonsense(what: &str) -> Turn {
    Turn::Killed(Cause::Nonsense(what.to_owned()))
}

#[cfg(test)]
mod tests;
