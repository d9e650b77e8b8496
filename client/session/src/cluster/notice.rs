use std::time::Duration;

use tokio::time::Instant;

use super::Address;

/// Shorter waits are not reported.
const PATIENCE: Duration = Duration::from_secs(1);

/// Notices for the user while nothing can run: one line when that has lasted a moment with a job open, another when the
/// reason changes, and one when the pool resumes.
#[derive(Debug, Default)]
pub(super) struct Notice {
    reason: Option<String>,
    /// When to report the reason.
    due: Option<Instant>,
    reported: bool,
}

impl Notice {
    /// Notes that nothing can run. `busy`: a job is open.
    pub(super) fn wait(&mut self, reason: String, busy: bool, now: Instant) {
        if self.reason.as_ref() != Some(&reason) {
            self.reason = Some(reason);
            self.due = busy.then(|| now + PATIENCE);
        }
    }

    /// Notes that a job may have been opened. The reason, if there is one, may have been reported before.
    pub(super) fn begin_job(&mut self, now: Instant) {
        if self.reason.is_some() && !self.reported {
            self.due.get_or_insert(now + PATIENCE);
        }
    }

    /// Notes that this many slots are available again. Returns the line to show.
    pub(super) fn resume(&mut self, slots: u32) -> Option<String> {
        self.reason = None;
        self.due = None;
        let slots_are = if slots == 1 { "slot is" } else { "slots are" };
        std::mem::take(&mut self.reported).then(|| format!("{slots} {slots_are} available; resuming"))
    }

    /// Notes that the coordinator is connected again. Returns the line to show.
    pub(super) fn reconnected(&mut self, address: &Address) -> Option<String> {
        self.reason = None;
        self.due = None;
        std::mem::take(&mut self.reported).then(|| format!("reconnected to {address}"))
    }

    /// Returns when to call [`Notice::report`].
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Returns the line to show once the wait is [due](Self::due), if a job is still open.
    pub(super) fn report(&mut self, busy: bool) -> Option<String> {
        self.due = None;
        let reason = self.reason.as_ref().filter(|_| busy)?;
        self.reported = true;
        Some(format!("waiting: {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_and_its_end_are_reported_once() {
        let (mut notice, now) = (Notice::default(), Instant::now());
        notice.wait("no agent".to_owned(), true, now);
        assert_eq!(notice.due(), Some(now + PATIENCE));
        assert_eq!(notice.report(true).unwrap(), "waiting: no agent");
        notice.wait("no agent".to_owned(), true, now);
        notice.begin_job(now);
        assert_eq!(notice.due(), None);
        notice.wait("none matches".to_owned(), true, now);
        assert_eq!(notice.due(), Some(now + PATIENCE));
        assert_eq!(notice.report(true).unwrap(), "waiting: none matches");
        assert_eq!(notice.resume(3).unwrap(), "3 slots are available; resuming");
        assert_eq!(notice.resume(4), None);
    }

    #[test]
    fn an_outage_that_lasts_and_its_end_are_reported() {
        let (mut notice, now) = (Notice::default(), Instant::now());
        let address = Address::parse("node7:7070").unwrap();
        notice.wait("the connection was lost".to_owned(), true, now);
        assert_eq!(notice.reconnected(&address), None);
        assert_eq!(notice.due(), None);
        notice.wait("the connection was lost".to_owned(), true, now);
        assert!(notice.report(true).is_some());
        assert_eq!(notice.reconnected(&address).unwrap(), "reconnected to http://node7:7070");
        assert_eq!(notice.reconnected(&address), None);
    }

    #[test]
    fn a_short_wait_and_one_without_a_job_are_not_reported() {
        let (mut notice, now) = (Notice::default(), Instant::now());
        notice.wait("no agent".to_owned(), true, now);
        assert_eq!(notice.resume(1), None);
        assert_eq!(notice.due(), None);
        notice.wait("no agent".to_owned(), false, now);
        assert_eq!(notice.due(), None);
        notice.begin_job(now);
        assert!(notice.due().is_some());
        assert_eq!(notice.report(false), None);
        notice.begin_job(now);
        assert!(notice.report(true).is_some());
        assert_eq!(notice.resume(1).unwrap(), "1 slot is available; resuming");
    }
}
