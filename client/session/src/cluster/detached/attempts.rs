use std::time::Duration;

use farpool_net::dial::reason;
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;

use super::super::backoff::Backoff;
use super::super::connect::is_final;
use super::super::dial::ANSWER_TIMEOUT;
use super::super::subject::Subject;
use crate::error::Error;

/// The attempts at a call to a coordinator that may be restarted meanwhile.
#[derive(Debug)]
pub(super) struct Attempts {
    backoff: Backoff,
    reconnect_timeout: Duration,
    /// When the first attempt failed.
    first_failure: Option<Instant>,
}

impl Attempts {
    /// `seed` seeds the random waits between attempts.
    pub(super) fn new(reconnect_timeout: Duration, seed: u64) -> Self {
        Self { backoff: Backoff::new(seed), reconnect_timeout, first_failure: None }
    }

    /// Handles a failed attempt. Completes when the next one is due.
    ///
    /// # Errors
    /// If another attempt is pointless, or the reconnect timeout has passed.
    pub(super) async fn wait_for_retry(&mut self, status: &Status, subject: &Subject) -> Result<(), Error> {
        if is_final(status) {
            return Err(subject.refused(status));
        }
        let now = Instant::now();
        self.backoff.note_lost(now);
        let spent = now - *self.first_failure.get_or_insert(now);
        let left = self.reconnect_timeout.saturating_sub(spent);
        if left.is_zero() {
            return Err(subject.given_up(self.reconnect_timeout, &reason(status)));
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
