//! The coordinator's side of sessions with clients, and of calls about detached jobs, controlled by a test.
//!
//! It is a real gRPC server. Sessions outlive their connections, as at a real coordinator; tests of clients that must begin
//! again call [`Server::forget`] or [`Server::forget_lost_sessions`].

mod detached;
mod peer;
mod service;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use farpool_net::http2;
use farpool_proto::v1::clients_server::ClientsServer;
use farpool_proto::v1::detached_jobs_server::DetachedJobsServer;
use farpool_proto::v1::{DetachedJob, ProgramPiece};
use tonic::Status;

use crate::served::Served;
use crate::waiting;
pub use peer::{Peer, done, items_in};
pub use service::Service;
use service::ServiceState;

/// How long the test waits for a client. Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A coordinator that listens on a port of its own.
pub struct Server {
    state: Arc<ServiceState>,
    sessions: Receiver<Peer>,
    programs: Receiver<Vec<ProgramPiece>>,
    requests: Receiver<String>,
    served: Served,
}

impl Server {
    /// Starts on a free port.
    pub fn start() -> Server {
        Server::start_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Starts at this address.
    pub fn start_at(address: SocketAddr) -> Server {
        let (session_sender, sessions) = mpsc::channel();
        let (program_sender, programs) = mpsc::channel();
        let (request_sender, requests) = mpsc::channel();
        let begun = move |peer| drop(session_sender.send(peer));
        let state = Arc::new(ServiceState::new(Box::new(begun), program_sender, request_sender));
        let service = Service::new(&state);
        let services = http2::server(Duration::from_secs(5), http2::STREAM_WINDOW)
            .add_service(DetachedJobsServer::new(service.clone()))
            .add_service(ClientsServer::new(service));
        Server { state, sessions, programs, requests, served: Served::start_at(address, services) }
    }

    /// Returns the address for clients.
    pub fn url(&self) -> String {
        self.served.url()
    }

    /// Refuses all sessions from now on, or accepts them again.
    pub fn refuse(&self, refusal: Option<Status>) {
        self.state.refuse(refusal);
    }

    /// Refuses the next session or call.
    pub fn refuse_next(&self, status: Status) {
        self.state.refuse_next(status);
    }

    /// Forgets all sessions, as if the coordinator had restarted.
    pub fn forget(&self) {
        self.state.forget();
    }

    /// From now on, a session ends with its connection.
    pub fn forget_lost_sessions(&self) {
        self.state.forget_lost_sessions();
    }

    /// Returns the number of connections that resumed a session.
    pub fn resumed(&self) -> u32 {
        self.state.resumed()
    }

    /// Waits until this many connections have resumed a session.
    pub fn wait_until_resumed(&self, times: u32) {
        waiting::until(|| self.resumed() == times);
    }

    /// Waits for the next session that a client begins.
    pub fn next_session(&self) -> Peer {
        self.sessions.recv_timeout(PATIENCE).expect("no client connected")
    }

    /// Returns the next session, if one begins soon.
    pub fn try_next_session(&self) -> Option<Peer> {
        self.sessions.recv_timeout(Duration::from_millis(10)).ok()
    }

    /// Waits for the next program that a client sends.
    pub fn next_program(&self) -> Vec<ProgramPiece> {
        self.programs.recv_timeout(PATIENCE).expect("no client sent its program")
    }

    /// Holds the upload of the next program: it never completes.
    pub fn hold_next_program(&self) {
        self.state.hold_next_program();
    }

    /// Waits until a client uploads that program.
    pub fn wait_for_held_program(&self) {
        waiting::until(|| self.state.holds_program());
    }

    /// Answers that no agent has requested that program.
    pub fn refuse_held_program(&self) {
        self.state.refuse_held_program();
    }

    /// Describes the detached job like this.
    pub fn describe(&self, job: DetachedJob) {
        self.state.describe(job);
    }

    /// Waits for the next call about a detached job, in words.
    pub fn next_request(&self) -> String {
        self.requests.recv_timeout(PATIENCE).expect("no client sent a request")
    }

    /// Asserts that no other session has begun, and that there was no other call and no other program.
    pub fn assert_no_requests(&self) {
        assert!(self.sessions.try_recv().is_err());
        assert!(self.programs.try_recv().is_err());
        assert_eq!(self.requests.try_recv().ok(), None);
    }

    /// Stops at once and ends all connections. Returns its address.
    pub fn stop(mut self) -> SocketAddr {
        self.served.stop();
        self.served.address()
    }
}
