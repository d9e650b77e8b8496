//! Values that are shared with the tasks of a pool.

use std::sync::Arc;

use bytes::Bytes;
use farpool_proto::limits;
use farpool_proto::v1::OpenJob;
use farpool_worker::shared::Key;

use crate::call::Call;
use crate::error::{Error, ErrorKind};
use crate::inbox::{Inbox, Interest};
use crate::session::Session;

/// A value that every worker of a pool can read. Dropping this frees it, once the calls that were begun before have ended.
pub struct SharedValue {
    key: Key,
    /// The job that it is for the coordinator.
    call: Option<Call>,
}

impl SharedValue {
    /// Shares a value with all workers of the session's pool. `bytes` begins with the
    /// [header](farpool_worker::shared::new_header) of this key.
    ///
    /// # Errors
    /// If the value is too large, if the pool was closed or has failed, and in a fork of the process that has opened it.
    pub fn share(session: &Session, key: Key, bytes: Bytes) -> Result<Self, Error> {
        let carrier = session.here()?;
        limits::shared(bytes.len()).map_err(|beyond| Error::new(ErrorKind::PayloadTooLarge, beyond.to_string()))?;
        let open = OpenJob { job: session.next_job(), function: bytes, shared: true, ..OpenJob::default() };
        let inbox = Inbox::new(open.job, "share", "", Interest::Nothing).in_session(carrier.window(), carrier.gate());
        let limit = session.item_limit(u64::MAX).check_shared(open.function.len());
        limit.map_err(|error| inbox.add_context::<Error>(error))?;
        session.dropped_values().note_use();
        let mut call = Call::new(session.clone(), inbox, open);
        call.flush()?;
        Ok(Self { key, call: Some(call) })
    }

    /// Returns the key by which tasks find it.
    pub fn key(&self) -> Key {
        self.key
    }
}

impl Drop for SharedValue {
    fn drop(&mut self) {
        let call = self.call.take().filter(|call| call.session.owner().is_here());
        if let Some(call) = call {
            Arc::clone(call.session.dropped_values()).add(Box::new(call));
        }
    }
}
