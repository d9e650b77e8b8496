//! Begins a session at the coordinator, resumes it, or begins it again.

use std::sync::Arc;
use std::time::Duration;

use farpool_net::{Incoming, Secret, outgoing};
use farpool_proto::v1::ClientEvent;
use tokio::time::timeout;
use tonic::{Code, Status};

use super::connect::{Connect, Connection};
use super::shared::Shared;
use super::state::{Link, message};

/// How long the coordinator may take to accept the pool, and then to report where it runs.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything needed to reach the coordinator.
pub(super) struct Dialer<C> {
    pub(super) connect: C,
    pub(super) secret: Secret,
    /// The largest message that is accepted.
    pub(super) message_limit: u64,
}

/// A connection, and the session on it.
pub(super) struct NewConnection<C: Connect> {
    pub(super) connection: C::Connection,
    pub(super) incoming: Incoming<ClientEvent>,
    /// The first messages, if the session began again.
    pub(super) first: Option<Vec<ClientEvent>>,
}

impl<C: Connect> Dialer<C> {
    /// Begins the session for the first time.
    pub(super) async fn open(&self, shared: &Shared) -> Result<NewConnection<C>, Status> {
        let mut connection = self.connect.connect().await?;
        let incoming = self.begin(&mut connection, shared).await?;
        Ok(NewConnection { connection, incoming, first: None })
    }

    /// Resumes the session. Begins it instead if the coordinator does not know it, or if no coordinator has accepted it
    /// yet.
    pub(super) async fn reconnect(&self, shared: &Shared) -> Result<NewConnection<C>, Status> {
        let mut connection = self.connect.connect().await?;
        // No coordinator can know a session that none has accepted.
        if shared.state().link == Link::Lost {
            match self.resume(&mut connection, shared).await {
                Ok(incoming) => return Ok(NewConnection { connection, incoming, first: None }),
                Err(status) if status.code() == Code::NotFound => {}
                // The two sides disagree on what was sent: the coordinator has another session of this pool, which began on a
                // connection that was abandoned.
                Err(status) if status.code() == Code::InvalidArgument => {}
                Err(status) => return Err(status),
            }
        }
        let mut incoming = self.begin(&mut connection, shared).await?;
        let first = in_time(async {
            loop {
                match incoming.next().await? {
                    Some(messages) if messages.is_empty() => {}
                    Some(messages) => return Ok(messages),
                    None => return Err(Status::unavailable("it ended the session")),
                }
            }
        })
        .await?;
        Ok(NewConnection { connection, incoming, first: Some(first) })
    }

    async fn resume(&self, connection: &mut C::Connection, shared: &Shared) -> Result<Incoming<ClientEvent>, Status> {
        let outgoing = shared.state().outgoing.clone();
        let frames = outgoing.resume(self.secret.to_bytes());
        in_time(async {
            let events = connection.session(frames).await?;
            outgoing.resumed(events, self.message_limit).await
        })
        .await
    }

    async fn begin(&self, connection: &mut C::Connection, shared: &Shared) -> Result<Incoming<ClientEvent>, Status> {
        // Each job's window bounds the queue, so no sender waits for the queue to drain.
        let (outgoing, frames) = outgoing(0, Arc::default());
        shared.change(|state| {
            outgoing.push(message(state.kept.opening(state.welcomed)));
            state.begin(outgoing.clone());
        });
        let events = in_time(connection.session(frames)).await?;
        Ok(outgoing.incoming(events, self.message_limit))
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_| Status::deadline_exceeded(format!("it did not answer within {ANSWER_TIMEOUT:?}"));
    timeout(ANSWER_TIMEOUT, answer).await.map_err(late)?
}
