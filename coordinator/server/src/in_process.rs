//! The server without a network: its loop, and sessions over any streams of frames. For simulations.

use std::future::Future;
use std::io;
use std::sync::Arc;

use farpool_common::log::warn;
use farpool_net::Replies;
use farpool_proto::v1::{
    AgentCommand, AgentFrame, CancelDetachedRequest, ClientEvent, ClientFrame, DiscardDetachedRequest, StatusReply,
};
use farpool_store::log::{Simulated, open_simulated};
use futures_core::Stream;
use tokio::sync::{Notify, mpsc};
use tonic::Status;

use super::INPUTS;
use super::blocking::Blocking;
use super::driver::{Driver, Opened};
use super::link::{Input, Link, Question};
use super::origin::Caller;
use super::published;
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
        let (server, received) = Self::without_loop(settings, Blocking::Threads);
        let driver = Driver::new(&server.settings, server.link.clone(), received, Health::new().0, None);
        (server, driver.run(shutdown))
    }

    /// The same with a journal on this disk, started so many milliseconds after 1970. Programs are looked for in the directory
    /// that the settings name.
    ///
    /// # Errors
    /// If the journal cannot be opened, or the directory of programs cannot.
    pub fn with_journal(
        settings: Settings,
        disk: Arc<Simulated>,
        now_ms: u64,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<(Self, impl Future<Output = ()>)> {
        let (server, received) = Self::without_loop(settings, Blocking::InTime(Arc::clone(&disk)));
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

    /// No address, and a meter that nothing passes.
    fn caller(&self) -> Caller {
        let principal = (self.settings.limits.principal)(None);
        Caller { principal, address: None, meter: self.link.meters.meter() }
    }

    /// An agent connects. That a connection was lost is said by an error of the code UNAVAILABLE; any other one ends the
    /// session, as does the stream's end.
    pub fn agent_session(
        &self,
        stream: impl Stream<Item = Result<AgentFrame, Status>> + Send + 'static,
    ) -> Replies<AgentCommand> {
        open(stream, self.caller(), &self.link, Kind::agent(&self.settings))
    }

    /// A client connects; the same goes for its stream.
    pub fn client_session(
        &self,
        stream: impl Stream<Item = Result<ClientFrame, Status>> + Send + 'static,
    ) -> Replies<ClientEvent> {
        open(stream, self.caller(), &self.link, Kind::client(&self.settings))
    }

    /// A client detaches a job.
    pub fn detach(
        &self,
        stream: impl Stream<Item = Result<ClientFrame, Status>> + Send + 'static,
    ) -> Replies<ClientEvent> {
        open(stream, self.caller(), &self.link, Kind::detach(&self.settings))
    }

    /// A client attaches to a detached job.
    pub fn attach(
        &self,
        stream: impl Stream<Item = Result<ClientFrame, Status>> + Send + 'static,
    ) -> Replies<ClientEvent> {
        open(stream, self.caller(), &self.link, Kind::attach(&self.settings))
    }

    /// Cancels a detached job.
    ///
    /// # Errors
    /// If there is none of this name, or the server does not run any more.
    pub async fn cancel_detached(&self, request: CancelDetachedRequest) -> Result<(), Status> {
        self.link.ask(|reply| Input::Asked(Question::CancelDetached(self.caller().principal, request, reply))).await?
    }

    /// Drops all of a detached job.
    ///
    /// # Errors
    /// If there is none of this name, or the server does not run any more.
    pub async fn discard_detached(&self, request: DiscardDetachedRequest) -> Result<(), Status> {
        self.link.ask(|reply| Input::Asked(Question::DiscardDetached(self.caller().principal, request, reply))).await?
    }

    /// What operators see.
    ///
    /// # Errors
    /// If the server does not run any more.
    pub async fn status(&self) -> Result<StatusReply, Status> {
        published::decode(self.link.ask(|asker| Input::Asked(Question::Status(asker))).await??)
    }
}
