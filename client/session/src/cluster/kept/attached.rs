use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{Attach, DetachedJob};

use super::Violation;

/// The detached job that a session reads.
pub(in crate::cluster) struct Attached {
    /// Requests the outcomes from the first missing one on.
    attach: Box<Attach>,
    /// The coordinator's last description.
    job: Option<DetachedJob>,
}

impl Attached {
    pub(super) fn new(attach: Attach) -> Self {
        Self { attach: Box::new(attach), job: None }
    }

    /// Returns the first message of a session.
    pub(super) fn opening(&self) -> Body {
        Body::Attach(self.attach.clone())
    }

    /// Returns the number by which events name the job.
    pub(in crate::cluster) fn number(&self) -> u64 {
        self.attach.job
    }

    /// Returns whether the session also waits for outcomes that do not exist yet.
    pub(in crate::cluster) fn waits(&self) -> bool {
        self.attach.wait
    }

    /// Returns whether a slot is lent while the client waits.
    pub(in crate::cluster) fn borrows(&self) -> bool {
        self.attach.ticket.is_some()
    }

    /// Returns the first item whose outcome has not arrived.
    pub(super) fn next(&self) -> u64 {
        self.attach.first
    }

    /// Notes a description, which must be of the same job as before.
    pub(in crate::cluster) fn describe(&mut self, job: &DetachedJob) -> Result<(), Violation> {
        if let Some(before) = &self.job
            && before.detached_ms != 0
            && before.detached_ms != job.detached_ms
        {
            return Err(Violation::JobReplaced);
        }
        self.job = Some(job.clone());
        Ok(())
    }

    /// Checks that the job was described before anything else.
    pub(in crate::cluster) fn check_described(&self) -> Result<&DetachedJob, Violation> {
        let what = || Violation::Invalid("did not start with the job's description".to_owned());
        self.job.as_ref().ok_or_else(what)
    }

    /// Notes that these outcomes have arrived, in the order of the items.
    pub(in crate::cluster) fn advance(&mut self, first: u64, count: u64) -> Result<(), Violation> {
        let (next, items) = (self.next(), self.check_described()?.items);
        match first.checked_add(count) {
            Some(end) if first >= next && end <= items => {
                self.attach.first = end;
                Ok(())
            }
            _ => Err(Violation::Invalid(format!(
                "sent outcomes of {count} items from item {first} on, but item {next} of {items} is the next"
            ))),
        }
    }
}
