//! Reconnects after an outage: retries until there is a connection or the session is no longer wanted. Sessions for one job also
//! connect for the first time in this way.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::Status;

use super::connect::{self, Connect};
use super::conversation::{Conversation, Next, at};
use super::dial::Line;
use super::state::Link;
use crate::error::Error;

/// How an attempt has ended.
enum Attempt<C: Connect> {
    Made(Result<Line<C>, Status>),
    /// The session is no longer wanted.
    Unwanted,
    /// The time is up.
    Late,
}

impl<C: Connect> Conversation<'_, C> {
    /// Connects for the first time, with as many attempts as after an outage.
    pub(super) async fn connect_patiently(&mut self) -> Result<Next, Error> {
        match self.attempt(Duration::ZERO, None).await {
            Attempt::Made(Ok(line)) => self.take_over(line),
            Attempt::Made(Err(status)) if self.errand.is_final(&status) => Err(self.errand.refused(&status)),
            Attempt::Made(Err(status)) => self.come_back(&connect::told(&status)).await,
            Attempt::Unwanted | Attempt::Late => Ok(self.leave()),
        }
    }

    /// Reconnects after the connection was lost.
    pub(super) async fn come_back(&mut self, what: &str) -> Result<Next, Error> {
        let (shared, now) = (self.shared, Instant::now());
        if !self.errand.is_job() {
            self.opening.succeed();
        }
        let upload = self.upload.lose();
        self.backoff.note_lost(now);
        let reason = format!("the connection to {} was lost ({what}); trying again", shared.address);
        shared.change(|state| state.lose_connection(reason.clone()));
        self.notice.wait(reason, shared.open_jobs() > 0, now);
        let (end, mut last) = (self.patience.lose(now), what.to_owned());
        loop {
            let wait = self.backoff.wait();
            match self.attempt(wait, end).await {
                Attempt::Made(Ok(line)) => {
                    let resumed = line.first.is_none();
                    let next = self.take_over(line)?;
                    // In a new session the coordinator asks if it needs the program.
                    if upload && resumed {
                        shared.change(|state| self.send_program(state));
                    }
                    return Ok(next);
                }
                Attempt::Made(Err(status)) if self.errand.is_final(&status) => {
                    return Err(self.errand.refused(&status));
                }
                Attempt::Made(Err(status)) => last = connect::told(&status),
                Attempt::Unwanted => return Ok(self.leave()),
                Attempt::Late => {
                    return Err(self.errand.given_up(shared.open_jobs(), what, self.patience.limit, &last));
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
            dialer.come_back(shared).await
        });
        loop {
            let now = Instant::now();
            if !shared.is_wanted() {
                return Attempt::Unwanted;
            }
            if end.is_some_and(|end| end <= now) {
                return Attempt::Late;
            }
            if notice.due().is_some_and(|due| due <= now) {
                notice.ring(shared.open_jobs() > 0).iter().for_each(|line| front.notice(line));
            }
            let time = [notice.due(), end].into_iter().flatten().min();
            tokio::select! {
                biased;
                () = shared.bell.notified() => notice.begin_job(Instant::now()),
                () = at(time) => {}
                line = &mut attempt => return Attempt::Made(line),
            }
        }
    }

    /// Notes that there is a connection again.
    fn take_over(&mut self, line: Line<C>) -> Result<Next, Error> {
        let (shared, now) = (self.shared, Instant::now());
        self.place = Some((line.connection, line.incoming));
        self.patience.note_connected(now);
        match line.first {
            Some(_) => self.backoff.note_connected(now),
            None => self.backoff.note_resumed(now),
        }
        self.notice.come_back(&shared.address).iter().for_each(|line| self.front.notice(line));
        let next = match line.first {
            Some(first) => self.hear(Ok(Some(first))),
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
