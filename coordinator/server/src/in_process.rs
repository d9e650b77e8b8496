//! The server without a network, for simulations: its loop, and sessions over any streams of frames.

use std::future::Future;
use std::io;
use std::sync::Arc;

use farpool_common::log::warn;
use farpool_net::Replies;
use farpool_proto::v1::{
    AgentCommand, AgentFrame, CancelDetachedRequest, ClientEvent, ClientFrame, DescribeDetachedRequest, DetachedJob,
    DiscardDetachedRequest, StatusReply,
};
use farpool_store::log::{Simulated, open_simulated};
use futures_core::Stream;
use tokio::sync::{Notify, mpsc};
use tonic::Status;

use super::INPUTS;
use super::blocking::Blocking;
use super::driver::{Driver, Opened};
use super::link::{ControlRequest, Input, Link};
use super::origin::Caller;
use super::published;
use super::services::Health;
use super::sessions::{Kind, open};
use super::settings::Settings;

/// The entry points of a server.
#[derive(Clone, Debug)]
pub struct Server {
    settings: Settings,
    link: Link,
}

impl Server {
    /// Creates a server and the future that runs it. Poll it on the thread on which sessions are opened. It ends when
    /// `shutdown` has completed and all pools have ended. Dropping it kills the server: its sessions end like those of
    /// a killed process, except that their streams end without an error.
    pub fn new(settings: Settings, shutdown: impl Future<Output = ()>) -> (Self, impl Future<Output = ()>) {
        let (server, received) = Self::without_loop(settings, Blocking::Threads);
        let driver = Driver::new(&server.settings, server.link.clone(), received, Health::new().0, None);
        (server, driver.run(shutdown))
    }

    /// Creates a server with a journal on this disk, at this time in milliseconds since 1970. Programs are read from the
    /// directory in the settings. See [`new`](Self::new).
    ///
    /// # Errors
    /// If the journal or the directory of programs cannot be opened.
    pub fn with_journal(
        settings: Settings,
        disk: Arc<Simulated>,
        now_ms: u64,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<(Self, impl Future<Output = ()>)> {
        let (server, received) = Self::without_loop(settings, Blocking::SimulatedTime(Arc::clone(&disk)));
        let (settings, link) = (&server.settings, &server.link);
        let journal = settings.journal.clone().ok_or(io::ErrorKind::InvalidInput)?;
        let warn = &mut |warning: String| warn!(link.log, detail = warning, "journal warning");
        let (journal, writes) = open_simulated(&disk, journal, warn).map_err(io::Error::other)?;
        let opened = Opened::with(Box::new(journal), settings, link, now_ms)?;
        let driver = Driver::new(settings, link.clone(), received, Health::new().0, Some(opened));
        let run = async move {
            tokio::select! {
                biased;
                () = driver.run(shutdown) => {}
                () = writes => {}
            }
        };
        Ok((server, run))
    }

    fn without_loop(settings: Settings, blocking: Blocking) -> (Self, mpsc::Receiver<Input>) {
        let (inputs, received) = mpsc::channel(INPUTS);
        let (log, limits) = (settings.log.clone(), settings.limits.clone());
        let (drained, meters) = (Arc::new(Notify::new()), settings.meters());
        let link = Link { inputs, drained, log, limits, blocking, meters };
        (Self { settings, link }, received)
    }

    /// Returns a caller without an address, whose meter counts nothing.
    fn caller(&self) -> Caller {
        let principal = (self.settings.limits.principal)(None);
        Caller { principal, address: None, meter: self.link.meters.meter() }
    }

    /// Connects an agent. An error with the code UNAVAILABLE means that the connection was lost. Any other error, or the
    /// end of the stream, ends the session.
    pub fn agent_session(
        &self,
        stream: impl Stream<Item = Result<AgentFrame, Status>> + Send + 'static,
    ) -> Replies<AgentCommand> {
        open(stream, self.caller(), &self.link, Kind::agent(&self.settings))
    }

    /// Connects a client. Errors and the end of its stream have the same meaning as an agent's.
    pub fn client_session(
        &self,
        stream: impl Stream<Item = Result<ClientFrame, Status>> + Send + 'static,
    ) -> Replies<ClientEvent> {
        open(stream, self.caller(), &self.link, Kind::client(&self.settings))
    }

    /// Describes a detached job.
    ///
    /// # Errors
    /// If there is no job of this name, or the server has stopped.
    pub async fn describe_detached(&self, request: DescribeDetachedRequest) -> Result<DetachedJob, Status> {
        self.link
            .ask(|reply| Input::Control(ControlRequest::DescribeDetached(self.caller().principal, request, reply)))
            .await?
    }

    /// Cancels a detached job.
    ///
    /// # Errors
    /// If there is no job of this name, or the server has stopped.
    pub async fn cancel_detached(&self, request: CancelDetachedRequest) -> Result<(), Status> {
        self.link
            .ask(|reply| Input::Control(ControlRequest::CancelDetached(self.caller().principal, request, reply)))
            .await?
    }

    /// Discards a detached job.
    ///
    /// # Errors
    /// If there is no job of this name, or the server has stopped.
    pub async fn discard_detached(&self, request: DiscardDetachedRequest) -> Result<(), Status> {
        self.link
            .ask(|reply| Input::Control(ControlRequest::DiscardDetached(self.caller().principal, request, reply)))
            .await?
    }

    /// Returns the status that operators see.
    ///
    /// # Errors
    /// If the server has stopped.
    pub async fn status(&self) -> Result<StatusReply, Status> {
        published::decode(self.link.ask(|asker| Input::Control(ControlRequest::Status(asker))).await??)
    }
}
