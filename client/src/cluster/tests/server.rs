//! A coordinator whose every word a test chooses, behind a real gRPC server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use farpool_net::{Outgoing, Replies, http2, outgoing};
use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::clients_server::{Clients, ClientsServer};
use farpool_proto::v1::{
    ClientEvent, ClientFrame, ClientMessage, ItemsDone, JobEnded, OpenPool, PoolClosed, PoolOpened, ProgramPiece,
    PutProgramReply, Welcome,
};
use tokio::sync::Notify;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::cluster::Address;

/// Longer than anything here takes.
const SOON: Duration = Duration::from_secs(20);

/// A server that listens on a port of its own.
pub(super) struct Server {
    pub(super) address: Address,
    sessions: Receiver<Peer>,
    programs: Receiver<Vec<ProgramPiece>>,
    quit: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

/// The other end of a client's session.
pub(super) struct Peer {
    heard: Receiver<Body>,
    out: Outgoing<ClientEvent>,
    /// It says that a pool that is terminated has ended.
    lets_go: Arc<AtomicBool>,
}

impl Server {
    pub(super) fn start() -> Server {
        Self::refusing(None)
    }

    /// One that refuses every session.
    pub(super) fn refusing(refusal: Option<Status>) -> Server {
        let (tell_address, address) = mpsc::channel();
        let (tell_session, sessions) = mpsc::channel();
        let (tell_program, programs) = mpsc::channel();
        let quit = Arc::new(Notify::new());
        let until = Arc::clone(&quit);
        let service = Service { refusal, sessions: tell_session, programs: tell_program };
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
                tell_address.send(listener.local_addr().unwrap()).unwrap();
                let server = http2::server(Duration::from_secs(5));
                tokio::select! {
                    served = server.serve_with_incoming(ClientsServer::new(service), listener) => served.unwrap(),
                    () = until.notified() => {}
                }
            });
        });
        let address = Address::parse(&address.recv().unwrap().to_string()).unwrap();
        Server { address, sessions, programs, quit, thread: Some(thread) }
    }

    /// The next session that a client begins.
    pub(super) fn session(&self) -> Peer {
        self.sessions.recv_timeout(SOON).expect("a client connects")
    }

    /// The next program that a client sends.
    pub(super) fn program(&self) -> Vec<ProgramPiece> {
        self.programs.recv_timeout(SOON).expect("a client sends its program")
    }

    /// Ends at once, and all connections with it.
    pub(super) fn stop(&mut self) {
        self.quit.notify_one();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Peer {
    /// Accepts the pool, with so many slots.
    pub(super) fn welcome(&self, slots: u32) -> OpenPool {
        let Body::OpenPool(open) = self.hear() else { panic!("the first message opens the pool") };
        self.say(Event::Welcome(Welcome {
            version: Some(farpool_proto::version()),
            window: 1 << 20,
            ..Welcome::default()
        }));
        self.say(Event::PoolOpened(PoolOpened { slots }));
        *open
    }

    /// The next message of the client.
    pub(super) fn hear(&self) -> Body {
        self.heard.recv_timeout(SOON).expect("the client says something")
    }

    /// Waits until the client's stream has ended.
    pub(super) fn hear_the_end(&self) {
        loop {
            match self.heard.recv_timeout(SOON) {
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("the client goes on"),
            }
        }
    }

    /// Waits for a job with all its input; returns its number and how many items it has.
    pub(super) fn hear_job(&self) -> (u64, u64) {
        let (mut job, mut items) = (0, 0);
        loop {
            match self.hear() {
                Body::OpenJob(open) => job = open.job,
                Body::Items(more) => items += more.ends.len() as u64 / 4,
                Body::EndItems(_) => return (job, items),
                other => panic!("{other:?} has no place in a job's input"),
            }
        }
    }

    /// From now on nothing at all is said that the test does not say.
    pub(super) fn hold_on(&self) {
        self.lets_go.store(false, Ordering::SeqCst);
    }

    pub(super) fn say(&self, event: Event) {
        self.out.push(ClientEvent { body: Some(event) });
    }

    /// The result of one item, which is `bytes`.
    pub(super) fn say_done(&self, job: u64, item: u64, bytes: &[u8]) {
        let ends = (bytes.len() as u32).to_le_bytes().to_vec().into();
        self.say(Event::ItemsDone(ItemsDone { job, first: item, data: bytes.to_vec().into(), ends }));
    }

    pub(super) fn say_ended(&self, job: u64, cancelled: bool) {
        self.say(Event::JobEnded(JobEnded { job, cancelled }));
    }

    pub(super) fn say_closed(&self) {
        self.say(Event::PoolClosed(PoolClosed {}));
        self.out.finish();
    }

    /// Ends the session with an error.
    pub(super) fn refuse(&self, status: Status) {
        self.out.fail(status);
    }

    /// Bytes that the client has not read and that wait here.
    pub(super) fn unread(&self) -> usize {
        self.out.waiting()
    }
}

struct Service {
    refusal: Option<Status>,
    sessions: Sender<Peer>,
    programs: Sender<Vec<ProgramPiece>>,
}

#[tonic::async_trait]
impl Clients for Service {
    type SessionStream = Replies<ClientEvent>;

    async fn session(&self, request: Request<Streaming<ClientFrame>>) -> Result<Response<Self::SessionStream>, Status> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        let (out, frames) = outgoing(0, Default::default());
        let (tell, heard) = mpsc::channel();
        let lets_go = Arc::new(AtomicBool::new(true));
        let (lets, closed) = (Arc::clone(&lets_go), out.clone());
        let mut incoming = out.incoming::<ClientMessage>(request.into_inner(), 1 << 30);
        tokio::spawn(async move {
            while let Ok(Some(messages)) = incoming.next().await {
                for body in messages.into_iter().filter_map(|message| message.body) {
                    let terminated = matches!(&body, Body::ClosePool(close) if close.now);
                    if terminated && lets.load(Ordering::SeqCst) {
                        closed.push(ClientEvent { body: Some(Event::PoolClosed(PoolClosed {})) });
                    }
                    let _ = tell.send(body);
                }
            }
        });
        let _ = self.sessions.send(Peer { heard, out, lets_go });
        Ok(Response::new(frames.replies()))
    }

    async fn put_program(
        &self,
        request: Request<Streaming<ProgramPiece>>,
    ) -> Result<Response<PutProgramReply>, Status> {
        let (mut stream, mut pieces) = (request.into_inner(), Vec::new());
        while let Some(piece) = stream.message().await? {
            pieces.push(piece);
        }
        let _ = self.programs.send(pieces);
        Ok(Response::new(PutProgramReply {}))
    }
}
