use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::Status;

use super::super::backoff::Backoff;
use super::super::connect::{is_final, told};
use super::super::dial::ANSWER_TIMEOUT;
use super::refusal::Subject;
use crate::error::Error;

/// A connection that has lasted this long was a good one.
const LASTING: Duration = Duration::from_secs(2);

/// Why an attempt has ended.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Another attempt may go better.
    Lost(Status),
    /// It would not.
    Final(Error),
}

/// The attempts to get something done by a coordinator that may be restarted meanwhile.
#[derive(Debug)]
pub(super) struct Attempts {
    backoff: Backoff,
    patience: Duration,
    /// Since when nothing has come of it.
    vain: Option<Instant>,
    connected: Option<Instant>,
}

impl Attempts {
    /// How long it waits is scattered by `chance`.
    pub(super) fn new(patience: Duration, chance: u64) -> Self {
        Self { backoff: Backoff::new(chance), patience, vain: None, connected: None }
    }

    /// The coordinator has answered.
    pub(super) fn note_answer(&mut self) {
        let now = Instant::now();
        self.connected = Some(now);
        self.backoff.note_connected(now);
    }

    /// It has got something done.
    pub(super) fn note_progress(&mut self) {
        self.vain = None;
    }

    /// An attempt has ended. Ready when the next one is due.
    ///
    /// # Errors
    /// If there is no sense in another one.
    pub(super) async fn again(&mut self, trouble: Trouble, subject: &Subject) -> Result<(), Error> {
        let status = match trouble {
            Trouble::Lost(status) if is_final(&status) => return Err(subject.refused(&status)),
            Trouble::Lost(status) => status,
            Trouble::Final(error) => return Err(error),
        };
        let now = Instant::now();
        self.backoff.note_lost(now);
        if self.connected.take().is_some_and(|since| now - since > LASTING) {
            self.vain = None;
        }
        let spent = now - *self.vain.get_or_insert(now);
        let left = self.patience.saturating_sub(spent);
        if left.is_zero() {
            return Err(subject.given_up(self.patience, &told(&status)));
        }
        sleep(self.backoff.wait().min(left)).await;
        Ok(())
    }

    /// Waits for an answer, no longer than that may take.
    pub(super) async fn answer<T>(&self, answer: impl Future<Output = Result<T, Status>>) -> Result<T, Trouble> {
        let late = |_| Status::deadline_exceeded(format!("it did not answer within {ANSWER_TIMEOUT:?}"));
        timeout(ANSWER_TIMEOUT, answer).await.map_err(late).and_then(|answer| answer).map_err(Trouble::Lost)
    }
}
