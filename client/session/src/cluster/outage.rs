//! Reconnects after an outage: retries until there is a connection, the session is no longer wanted, or the reconnect
//! timeout has passed. Sessions for one job also connect for the first time in this way.

use std::pin::pin;
use std::time::Duration;

use farpool_net::dial;
use tokio::time::{Instant, sleep};
use tonic::Status;

use super::connect::Connect;
use super::conversation::{Conversation, Next, at};
use super::dial::NewConnection;
use super::state::Link;
use crate::error::Error;

/// How an attempt has ended.
enum Attempt<C: Connect> {
    Made(Result<NewConnection<C>, Status>),
    /// The session is no longer wanted.
    Unwanted,
    /// The time is up.
    TimedOut,
}

impl<C: Connect> Conversation<'_, C> {
    /// Connects for the first time, with as many attempts as after an outage.
    pub(super) async fn connect_with_retries(&mut self) -> Result<Next, Error> {
        match self.attempt(Duration::ZERO, None).await {
            Attempt::Made(Ok(new)) => self.use_connection(new),
            Attempt::Made(Err(status)) if self.purpose.is_final(&status) => Err(self.purpose.refused(&status)),
            Attempt::Made(Err(status)) => self.reconnect(&dial::reason(&status)).await,
            Attempt::Unwanted | Attempt::TimedOut => Ok(self.leave()),
        }
    }

    /// Reconnects after the connection was lost.
    pub(super) async fn reconnect(&mut self, what: &str) -> Result<Next, Error> {
        let (shared, now) = (self.shared, Instant::now());
        if !self.purpose.is_job() {
            self.opening.succeed();
        }
        let upload = self.upload.lose();
        self.backoff.note_lost(now);
        let reason = format!("the connection to {} was lost ({what}); trying again", shared.address);
        shared.change(|state| state.lose_connection(reason.clone()));
        self.notice.wait(reason, shared.open_jobs() > 0, now);
        let (end, mut last) = (self.reconnect_deadline.lose(now), what.to_owned());
        loop {
            let wait = self.backoff.wait();
            match self.attempt(wait, end).await {
                Attempt::Made(Ok(new)) => {
                    let resumed = new.first.is_none();
                    let next = self.use_connection(new)?;
                    // In a new session the coordinator asks if it needs the program.
                    if upload && resumed {
                        shared.change(|state| self.send_program(state));
                    }
                    return Ok(next);
                }
                Attempt::Made(Err(status)) if self.purpose.is_final(&status) => {
                    return Err(self.purpose.refused(&status));
                }
                Attempt::Made(Err(status)) => last = dial::reason(&status),
                Attempt::Unwanted => return Ok(self.leave()),
                Attempt::TimedOut => {
                    return Err(self.purpose.given_up(shared.open_jobs(), what, self.reconnect_deadline.limit, &last));
                }
            }
        }
    }

    /// Ends the session, which is no longer wanted.
    fn leave(&self) -> Next {
        self.shared.change(|state| state.inboxes.cancel_all());
        Next::End
    }

    /// Tries to connect once, after this wait.
    async fn attempt(&mut self, wait: Duration, end: Option<Instant>) -> Attempt<C> {
        let Conversation { shared, dialer, notice, front, .. } = self;
        let mut attempt = pin!(async {
            if !wait.is_zero() {
                sleep(wait).await;
            }
            dialer.reconnect(shared).await
        });
        loop {
            let now = Instant::now();
            if !shared.is_wanted() {
                return Attempt::Unwanted;
            }
            if end.is_some_and(|end| end <= now) {
                return Attempt::TimedOut;
            }
            if notice.due().is_some_and(|due| due <= now) {
                notice.report(shared.open_jobs() > 0).iter().for_each(|line| front.notice(line));
            }
            let time = [notice.due(), end].into_iter().flatten().min();
            tokio::select! {
                biased;
                () = shared.wake_up.notified() => notice.begin_job(Instant::now()),
                () = at(time) => {}
                made = &mut attempt => return Attempt::Made(made),
            }
        }
    }

    /// Continues on the new connection.
    fn use_connection(&mut self, new: NewConnection<C>) -> Result<Next, Error> {
        let (shared, now) = (self.shared, Instant::now());
        self.connected = Some((new.connection, new.incoming));
        self.reconnect_deadline.note_connected(now);
        match new.first {
            Some(_) => self.backoff.note_connected(now),
            None => self.backoff.note_resumed(now),
        }
        self.notice.reconnected(&shared.address).iter().for_each(|line| self.front.notice(line));
        let next = match new.first {
            Some(first) => self.handle_messages(Ok(Some(first))),
            None => {
                shared.change(|state| state.resume());
                Ok(Next::Listen)
            }
        };
        let (waiting, busy) = (shared.waiting(), shared.open_jobs() > 0);
        if let Some(reason) = waiting.filter(|_| shared.state().link == Link::Up) {
            self.notice.wait(reason, busy, now);
        }
        next
    }
}
