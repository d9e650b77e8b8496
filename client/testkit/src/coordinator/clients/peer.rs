//! A session with a client.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use farpool_net::{Frames, Outgoing, outgoing};
use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{
    ClientEvent, ClientFrame, ClientMessage, EventFrame, Items, ItemsDone, JobEnded, OpenPool, PoolClosed, PoolOpened,
    Welcome,
};
use tonic::Status;

use super::PATIENCE;
use crate::cuttable::Cut;
use crate::waiting;

/// The other end of a client's session.
pub struct Peer {
    messages: Receiver<Body>,
    session: Arc<ClientSession>,
}

/// A session, which its connections and the test share.
pub(super) struct ClientSession {
    out: Outgoing<ClientEvent>,
    to_test: Sender<Body>,
    /// Whether it answers that a terminated pool has ended.
    closes_terminated: AtomicBool,
    /// The end and the size of each received message of items.
    received_items: Mutex<Vec<(u64, u64)>>,
    connection: Mutex<Connection>,
}

/// Cuts a connection.
pub(super) struct Connection {
    /// The frames to the client.
    pub(super) sent: Cut<EventFrame>,
    /// The frames of the client.
    pub(super) received: Cut<ClientFrame>,
}

impl ClientSession {
    /// Begins a session on this connection.
    pub(super) fn begin(connection: Connection) -> (Arc<ClientSession>, Frames<ClientEvent>, Peer) {
        let (out, frames) = outgoing(0, Arc::default());
        let (to_test, messages) = mpsc::channel();
        let session = Arc::new(ClientSession {
            out,
            to_test,
            closes_terminated: AtomicBool::new(false),
            received_items: Mutex::default(),
            connection: Mutex::new(connection),
        });
        (Arc::clone(&session), frames, Peer { messages, session })
    }

    /// Resumes the session on another connection.
    pub(super) fn reconnect(
        &self,
        received_by_client: u64,
        connection: Connection,
    ) -> Result<Frames<ClientEvent>, Status> {
        *self.connection() = connection;
        self.out.reconnect(received_by_client)
    }

    pub(super) fn out(&self) -> &Outgoing<ClientEvent> {
        &self.out
    }

    pub(super) fn receive(&self, messages: Vec<ClientMessage>) {
        for body in messages.into_iter().filter_map(|message| message.body) {
            match &body {
                // Terminating the pool of a detached job withdraws the job: the test answers that itself.
                Body::OpenPool(open) => self.closes_terminated.store(!open.detached, Ordering::SeqCst),
                Body::ClosePool(close) if close.now && self.closes_terminated.load(Ordering::SeqCst) => {
                    self.push(Event::PoolClosed(PoolClosed {}));
                }
                Body::Items(items) => {
                    let bytes = (items.data.len() + items.ends.len()) as u64;
                    self.received_items().push((items.first + count(items), bytes));
                }
                _ => {}
            }
            let _ = self.to_test.send(body);
        }
    }

    fn push(&self, event: Event) {
        self.out.push(ClientEvent { body: Some(event) });
    }

    fn received_items(&self) -> MutexGuard<'_, Vec<(u64, u64)>> {
        self.received_items.lock().expect("a thread panicked while it held the lock")
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().expect("a thread panicked while it held the lock")
    }
}

impl Peer {
    /// Receives the client's next message.
    pub fn receive(&self) -> Body {
        self.messages.recv_timeout(PATIENCE).expect("the client sent no message")
    }

    /// Returns whether the client sends nothing for a moment.
    pub fn is_silent(&self) -> bool {
        self.messages.recv_timeout(Duration::from_millis(100)).is_err()
    }

    /// Accepts the pool, with this many slots.
    pub fn welcome(&self, slots: u32) -> OpenPool {
        self.welcome_by("one", 1 << 20, slots)
    }

    /// Accepts the pool, with this many slots, this window for each job, and this coordinator's name.
    pub fn welcome_by(&self, coordinator: &'static str, window: u64, slots: u32) -> OpenPool {
        let Body::OpenPool(open) = self.receive() else { panic!("the first message is not OpenPool") };
        self.send_welcome(coordinator, window);
        self.send(Event::PoolOpened(PoolOpened { slots }));
        *open
    }

    /// Accepts the session, with this coordinator's name and this window for each job.
    pub fn send_welcome(&self, coordinator: &'static str, window: u64) {
        let version = Some(farpool_proto::version());
        self.send(Event::Welcome(Welcome {
            version,
            window,
            coordinator: coordinator.as_bytes().into(),
            ..Welcome::default()
        }));
    }

    /// Receives what a client resends when it reopens its pool, up to `PoolReopened`.
    pub fn receive_resent(&self) -> Vec<Body> {
        let mut received = Vec::new();
        loop {
            match self.receive() {
                Body::PoolReopened(_) => return received,
                body => received.push(body),
            }
        }
    }

    /// Receives a job with all its input; returns its number and how many items it has.
    pub fn receive_job(&self) -> (u64, u64) {
        let (mut job, mut items) = (0, 0);
        loop {
            match self.receive() {
                Body::OpenJob(open) => job = open.job,
                Body::Items(more) => items += count(&more),
                Body::EndItems(_) => return (job, items),
                other => panic!("unexpected message in a job's input: {other:?}"),
            }
        }
    }

    /// Sends a message.
    pub fn send(&self, event: Event) {
        self.session.push(event);
    }

    /// Sends the result of one item.
    pub fn send_done(&self, job: u64, item: u64, bytes: &[u8]) {
        self.send(done(job, item, &[bytes]));
    }

    /// Reports that the job has ended.
    pub fn send_job_ended(&self, job: u64, cancelled: bool) {
        self.send(Event::JobEnded(JobEnded { job, cancelled }));
    }

    /// Sends the result of a job's only item and the job's end, in one frame.
    pub fn send_outcome(&self, job: u64, bytes: &[u8]) {
        let both = [done(job, 0, &[bytes]), Event::JobEnded(JobEnded { job, cancelled: false })];
        self.session.out.extend(both.map(|event| ClientEvent { body: Some(event) }));
    }

    /// Reports that the pool has ended, and ends the session.
    pub fn send_closed(&self) {
        self.send(Event::PoolClosed(PoolClosed {}));
        self.end();
    }

    /// Sends a raw frame, after all earlier messages.
    pub fn send_frame(&self, frame: EventFrame) {
        self.wait_until_sent();
        self.session.connection().sent.insert(frame);
    }

    /// Ends the session without an error, after all earlier messages.
    pub fn end(&self) {
        self.session.out.finish();
    }

    /// Ends the session with an error, after all earlier messages.
    pub fn refuse(&self, status: Status) {
        self.session.out.fail(status);
    }

    /// Cuts the connection. The session stays.
    pub fn cut(&self) {
        let connection = self.session.connection();
        connection.sent.now();
        connection.received.now();
    }

    /// Cuts the connection after all earlier messages.
    pub fn cut_when_sent(&self) {
        self.wait_until_sent();
        self.cut();
    }

    /// From now on, a terminated pool ends only when the test sends that.
    pub fn stop_closing_terminated(&self) {
        self.session.closes_terminated.store(false, Ordering::SeqCst);
    }

    /// Waits until the client's connection has ended.
    pub fn wait_for_disconnect(&self) {
        waiting::until(|| self.session.out.is_gone());
    }

    /// Waits until the client has acknowledged everything that was sent.
    pub fn wait_until_acknowledged(&self) {
        waiting::until(|| self.session.out.acknowledged() == self.session.out.pushed());
    }

    /// Returns how many bytes wait here because the client has not read them.
    pub fn unread(&self) -> usize {
        self.session.out.waiting()
    }

    /// Returns the bytes of the received items before this one.
    pub(super) fn bytes_received_before(&self, item: u64) -> u64 {
        self.session.received_items().iter().filter(|(end, _)| *end <= item).map(|(_, bytes)| bytes).sum()
    }

    /// Waits until everything was sent, or the connection is lost.
    fn wait_until_sent(&self) {
        waiting::until(|| self.unread() == 0 || self.session.out.is_gone());
    }
}

fn count(items: &Items) -> u64 {
    items.ends.len() as u64 / 4
}

/// Makes a message with these results of the items from `first` on.
pub fn done(job: u64, first: u64, results: &[&[u8]]) -> Event {
    let (mut data, mut ends) = (Vec::new(), Vec::new());
    for result in results {
        data.extend_from_slice(result);
        ends.extend_from_slice(&(data.len() as u32).to_le_bytes());
    }
    Event::ItemsDone(ItemsDone { job, first, data: data.into(), ends: ends.into(), failed: false, attempts: 0 })
}

/// Returns the items in a message: the index of the first, and the bytes of each.
pub fn items_in(items: &Items) -> (u64, Vec<&[u8]>) {
    let mut start = 0;
    let each = items.ends.chunks_exact(4).map(|end| {
        let end = u32::from_le_bytes(end.try_into().expect("not 4 bytes")) as usize;
        &items.data[std::mem::replace(&mut start, end)..end]
    });
    (items.first, each.collect())
}
