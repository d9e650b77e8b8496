use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::Status;

use super::super::backoff::Backoff;
use super::super::connect::{is_final, told};
use super::super::dial::ANSWER_TIMEOUT;
use super::super::subject::Subject;
use crate::error::Error;

/// The attempts at a call to a coordinator that may be restarted meanwhile.
#[derive(Debug)]
pub(super) struct Attempts {
    backoff: Backoff,
    patience: Duration,
    /// When the first attempt failed.
    vain: Option<Instant>,
}

impl Attempts {
    /// `chance` varies the waits between attempts.
    pub(super) fn new(patience: Duration, chance: u64) -> Self {
        Self { backoff: Backoff::new(chance), patience, vain: None }
    }

    /// Handles a failed attempt. Completes when the next one is due.
    ///
    /// # Errors
    /// If another attempt makes no sense.
    pub(super) async fn again(&mut self, status: &Status, subject: &Subject) -> Result<(), Error> {
        if is_final(status) {
            return Err(subject.refused(status));
        }
        let now = Instant::now();
        self.backoff.note_lost(now);
        let spent = now - *self.vain.get_or_insert(now);
        let left = self.patience.saturating_sub(spent);
        if left.is_zero() {
            return Err(subject.given_up(self.patience, &told(status)));
        }
        sleep(self.backoff.wait().min(left)).await;
        Ok(())
    }

    /// Waits for an answer, up to the time that an answer may take.
    pub(super) async fn answer<T>(&self, answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let late = |_| Status::deadline_exceeded(format!("it did not answer within {ANSWER_TIMEOUT:?}"));
        timeout(ANSWER_TIMEOUT, answer).await.map_err(late)?
    }
}
