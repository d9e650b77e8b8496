//! The server without a network: its loop, and sessions over any streams of frames. For simulations.

use std::future::Future;
use std::sync::Arc;

use farpool_net::Replies;
use farpool_proto::v1::{AgentCommand, AgentFrame, ClientEvent, ClientFrame, StatusReply};
use futures_core::Stream;
use tokio::sync::{Notify, mpsc};
use tonic::Status;

use super::INPUTS;
use super::driver::Driver;
use super::link::{Input, Link, Question};
use super::log::Log;
use super::services::Health;
use super::sessions::{Kind, open};
use super::settings::Settings;

/// A server's doors.
#[derive(Clone, Debug)]
pub struct Server {
    settings: Settings,
    link: Link,
}

impl Server {
    /// A server, and what runs it: on the thread that sessions are opened on, until `shutdown` has come about and all pools
    /// have ended. To drop it is to kill the server; its sessions end then like those of a process that was killed, except
    /// that it is their streams' end and no error.
    pub fn new(settings: Settings, shutdown: impl Future<Output = ()>) -> (Self, impl Future<Output = ()>) {
        let (inputs, received) = mpsc::channel(INPUTS);
        let log = Log::new(settings.log);
        let link = Link { inputs, drained: Arc::new(Notify::new()), log, limits: settings.limits.clone() };
        let driver = Driver::new(&settings, link.clone(), received, Health::new().0, None);
        (Self { settings, link }, driver.run(shutdown))
    }

    /// An agent connects. That a connection was lost is said by an error of the code UNAVAILABLE; any other one ends the
    /// session, as does the stream's end.
    pub fn agent_session(
        &self,
        stream: impl Stream<Item = Result<AgentFrame, Status>> + Send + 'static,
    ) -> Replies<AgentCommand> {
        open(stream, None, &self.link, Kind::agent())
    }

    /// A client connects; the same goes for its stream.
    pub fn client_session(
        &self,
        stream: impl Stream<Item = Result<ClientFrame, Status>> + Send + 'static,
    ) -> Replies<ClientEvent> {
        open(stream, None, &self.link, Kind::client(&self.settings))
    }

    /// What operators see.
    ///
    /// # Errors
    /// If the server does not run any more.
    pub async fn status(&self) -> Result<StatusReply, Status> {
        self.link.ask(|reply| Input::Asked(Question::Status(reply))).await
    }
}
