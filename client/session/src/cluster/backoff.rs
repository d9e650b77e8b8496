use std::time::Duration;

use farpool_common::backoff;
use tokio::time::Instant;

const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// The wait before the next attempt to connect. It grows, and is random, so that not all clients reconnect to a restarted
/// coordinator at the same moment.
#[derive(Debug)]
pub(super) struct Backoff {
    waits: backoff::Backoff,
    /// When the current connection began.
    connected: Option<Instant>,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Self {
        Self { waits: backoff::Backoff::new(SHORTEST, LONGEST, seed), connected: None }
    }

    /// Notes that an attempt succeeded.
    pub(super) fn note_connected(&mut self, now: Instant) {
        self.connected = Some(now);
    }

    /// Notes that an attempt succeeded and the session has resumed. The coordinator waits only briefly for a session,
    /// so the next wait is short, even if the connection is soon lost again.
    pub(super) fn note_resumed(&mut self, now: Instant) {
        self.note_connected(now);
        self.waits.reset();
    }

    /// Notes that the connection was lost. A short connection counts as a failed attempt.
    pub(super) fn note_lost(&mut self, now: Instant) {
        if self.connected.take().is_none_or(|since| now - since > LONGEST) {
            self.waits.reset();
        }
    }

    /// Returns how long to wait now.
    pub(super) fn wait(&mut self) -> Duration {
        self.waits.wait()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lasting_or_resumed_connection_resets_the_backoff() {
        let (mut backoff, start) = (Backoff::new(1), Instant::now());
        for _ in 0..10 {
            backoff.wait();
        }
        backoff.note_connected(start);
        backoff.note_lost(start + Duration::from_secs(1));
        assert!(backoff.wait() >= LONGEST / 2);
        backoff.note_resumed(start);
        backoff.note_lost(start + Duration::from_secs(1));
        assert!(backoff.wait() <= SHORTEST);
        (0..10).for_each(|_| _ = backoff.wait());
        backoff.note_connected(start);
        backoff.note_lost(start + Duration::from_secs(3));
        assert!(backoff.wait() <= SHORTEST);
    }
}
