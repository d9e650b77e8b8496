use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::Status;

use super::super::backoff::Backoff;
use super::super::connect::{is_final, told};
use super::super::dial::ANSWER_TIMEOUT;
use super::refusal::Subject;
use crate::error::Error;

/// A connection that lasted this long counts as a success.
const LASTING: Duration = Duration::from_secs(2);

/// Why an attempt has ended.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A retry may succeed.
    Lost(Status),
    /// A retry would fail, too.
    Final(Error),
}

/// The attempts at a call to a coordinator that may be restarted meanwhile.
#[derive(Debug)]
pub(super) struct Attempts {
    backoff: Backoff,
    patience: Duration,
    /// Since when there was no progress.
    vain: Option<Instant>,
    connected: Option<Instant>,
}

impl Attempts {
    /// `chance` varies the waits between attempts.
    pub(super) fn new(patience: Duration, chance: u64) -> Self {
        Self { backoff: Backoff::new(chance), patience, vain: None, connected: None }
    }

    /// Notes that the coordinator has answered.
    pub(super) fn note_answer(&mut self) {
        let now = Instant::now();
        self.connected = Some(now);
        self.backoff.note_connected(now);
    }

    /// Notes progress.
    pub(super) fn note_progress(&mut self) {
        self.vain = None;
    }

    /// Handles a failed attempt. Completes when the next one is due.
    ///
    /// # Errors
    /// If another attempt makes no sense.
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

    /// Waits for an answer, up to the time that an answer may take.
    pub(super) async fn answer<T>(&self, answer: impl Future<Output = Result<T, Status>>) -> Result<T, Trouble> {
        let late = |_| Status::deadline_exceeded(format!("it did not answer within {ANSWER_TIMEOUT:?}"));
        timeout(ANSWER_TIMEOUT, answer).await.map_err(late).and_then(|answer| answer).map_err(Trouble::Lost)
    }
}
