//! Stubs until the library has them.
use farpool_core::JobId;
use farpool_proto::v1::StatusReply;

use crate::{AgentId, ClientId, Coordinator, Outbox};

// from the core helper
impl Coordinator {
    pub(crate) fn pause_client(&mut self, _: ClientId, _: bool, _: u64, _: &mut Outbox) {}
    pub(crate) fn drain_agent(&mut self, _: AgentId, _: u64, _: &mut Outbox) -> bool {
        false
    }
    pub(crate) fn cancel_any_job(&mut self, _: JobId, _: u64, _: &mut Outbox) -> bool {
        false
    }
    pub(crate) fn stored_bytes_of(&self, _: ClientId) -> u64 {
        0
    }
    pub(crate) fn status(&self, _: u64) -> StatusReply {
        StatusReply::default()
    }
    pub(crate) fn find_agent(&self, text: &str) -> Result<AgentId, String> {
        Err(format!("there is no agent {text}"))
    }
    pub(crate) fn find_job(&self, text: &str) -> Result<JobId, String> {
        Err(format!("there is no job {text}"))
    }
    pub(crate) fn next_look(&self) -> Option<u64> {
        None
    }
}
