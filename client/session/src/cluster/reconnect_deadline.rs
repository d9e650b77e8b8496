use std::time::Duration;

use tokio::time::Instant;

/// How long to try to reconnect, over one or several outages.
#[derive(Debug)]
pub(super) struct ReconnectDeadline {
    pub(super) limit: Duration,
    /// A connection that lasted this long counts as progress.
    stable_after: Duration,
    /// When the first outage since the last progress began.
    first_failure: Option<Instant>,
    connected: Option<Instant>,
}

impl ReconnectDeadline {
    pub(super) fn new(limit: Duration, stable_after: Duration) -> Self {
        Self { limit, stable_after, first_failure: None, connected: None }
    }

    /// Notes that the coordinator has accepted the session, or has resumed it.
    pub(super) fn note_connected(&mut self, now: Instant) {
        self.connected = Some(now);
    }

    pub(super) fn note_progress(&mut self) {
        self.first_failure = None;
    }

    /// Notes that the connection was lost, or could not be made. Returns when to give up; `None`: never.
    pub(super) fn lose(&mut self, now: Instant) -> Option<Instant> {
        if self.connected.take().is_some_and(|since| now - since >= self.stable_after) {
            self.first_failure = None;
        }
        self.first_failure.get_or_insert(now).checked_add(self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn short_connections_without_progress_are_one_outage() {
        let (mut deadline, start) = (ReconnectDeadline::new(10 * SECOND, 2 * SECOND), Instant::now());
        let end = start + 10 * SECOND;
        assert_eq!(deadline.lose(start), Some(end));
        deadline.note_connected(start + SECOND);
        assert_eq!(deadline.lose(start + 2 * SECOND), Some(end));
        assert_eq!(deadline.lose(start + 3 * SECOND), Some(end));
        deadline.note_connected(start + 4 * SECOND);
        deadline.note_progress();
        assert_eq!(deadline.lose(start + 5 * SECOND), Some(start + 15 * SECOND));
        deadline.note_connected(start + 6 * SECOND);
        assert_eq!(deadline.lose(start + 8 * SECOND), Some(start + 18 * SECOND));
    }

    #[test]
    fn each_outage_may_count_alone() {
        let (mut deadline, start) = (ReconnectDeadline::new(SECOND, Duration::ZERO), Instant::now());
        deadline.lose(start);
        deadline.note_connected(start + SECOND);
        assert_eq!(deadline.lose(start + SECOND), Some(start + 2 * SECOND));
        assert_eq!(ReconnectDeadline::new(Duration::MAX, SECOND).lose(start), None);
    }
}
