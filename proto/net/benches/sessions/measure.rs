//! The figures.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use farpool_net::{Frames, Incoming, Outgoing, http2, outgoing};
use farpool_proto::v1::agents_client::AgentsClient;
use farpool_proto::v1::{AgentCommand, AgentEvent, AgentHello, CommandFrame, RunDone, agent_event};
use futures_core::Stream;
use tokio::sync::Notify;
use tonic::Status;
use tonic::transport::Endpoint;

use crate::cost::Cost;
use crate::peer::{self, Child};
use crate::spinner;
use crate::tcp::{MIB, Tcp};

pub(crate) const FIGURES: [&str; 8] = ["push", "take", "give", "cycle", "round", "awake", "out", "in"];

/// Measures these figures, or all if there are none, with the work divided by `less`.
pub(crate) fn run(chosen: &[&str], less: usize) {
    let mut tcp = Tcp::new();
    let runtime = peer::runtime();
    let mut session = runtime.block_on(Session::open());
    runtime.block_on(session.warm_up());
    for figure in FIGURES.iter().filter(|figure| chosen.is_empty() || chosen.contains(figure)) {
        match *figure {
            "push" => push_from_another_thread(10_000_000 / less),
            "take" => runtime.block_on(session.take("session: small messages out", 4_000_000 / less, &[7; 8])),
            "give" => runtime.block_on(session.give("session: small messages in", peer::GIVE, 4_000_000 / less)),
            "cycle" => {
                for ahead in [16, 256] {
                    runtime.block_on(session.cycle(ahead, 1_000_000 / less));
                }
            }
            "round" => round_trips(&runtime, &mut session, &mut tcp, 10_000 / less),
            "awake" => {
                let _awake = spinner::one_on_each_core();
                round_trips(&runtime, &mut session, &mut tcp, 10_000 / less);
            }
            "out" => {
                tcp.bandwidth(false, 4000 / less);
                runtime.block_on(session.take("session: 1 MiB out", 4000 / less, &vec![1; MIB]));
            }
            _ => {
                tcp.bandwidth(true, 4000 / less);
                runtime.block_on(session.give("session: 1 MiB in", peer::GIVE_MIB, 4000 / less));
            }
        }
    }
}

fn round_trips(runtime: &tokio::runtime::Runtime, session: &mut Session, tcp: &mut Tcp, count: usize) {
    tcp.round_trips(count);
    runtime.block_on(session.cycle(1, count));
}

/// What a push costs while another thread takes frames.
fn push_from_another_thread(count: usize) {
    let drained = Arc::new(Notify::new());
    let (queue, frames) = outgoing::<AgentEvent>(0, Arc::clone(&drained));
    let taken = Arc::new(AtomicUsize::new(0));
    let taker = Taker { frames, messages: 0, taken: Arc::clone(&taken) };
    let mut incoming = queue.incoming::<AgentCommand>(taker, peer::LIMIT);
    let taker = std::thread::spawn(move || {
        peer::runtime().block_on(async { while incoming.next().await.expect("nothing goes wrong").is_some() {} });
    });
    let cost = Cost::new(std::process::id());
    let data = Bytes::from_static(&[7; 8]);
    for chunk in 0..count {
        queue.push(done(chunk as u64, data.clone()));
    }
    cost.print("queue: push while another thread takes", count, "pushes");
    queue.finish();
    taker.join().expect("the taker ends without an error");
    println!("    {count} messages in {} frames", taken.load(Ordering::Relaxed));
}

/// Takes frames, and acknowledges each.
struct Taker {
    frames: Frames<AgentEvent>,
    messages: u64,
    taken: Arc<AtomicUsize>,
}

impl Stream for Taker {
    type Item = Result<CommandFrame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let frame = ready!(Pin::new(&mut self.frames).poll_next(context));
        Poll::Ready(frame.map(|frame| {
            self.taken.fetch_add(1, Ordering::Relaxed);
            self.messages += frame.messages.len() as u64;
            Ok(CommandFrame { received: self.messages, ..CommandFrame::default() })
        }))
    }
}

fn done(chunk: u64, data: Bytes) -> AgentEvent {
    let ends = Bytes::copy_from_slice(&(data.len() as u32).to_le_bytes());
    let done = RunDone { chunk: 7_000_000 + chunk, attempt: 1, first: chunk, data, ends, busy_ns: 1000, failed: false };
    AgentEvent { body: Some(agent_event::Body::RunDone(done)) }
}

/// A session with the other process.
struct Session {
    incoming: Incoming<AgentCommand>,
    queue: Outgoing<AgentEvent>,
    drained: Arc<Notify>,
    child: Child,
}

impl Session {
    async fn open() -> Self {
        let child = Child::start(peer::ROLE);
        let address = format!("http://127.0.0.1:{}", child.port);
        let endpoint = Endpoint::from_shared(address).expect("the address is valid");
        let channel = http2::endpoint(endpoint, peer::HEARTBEAT).connect().await.expect("the other process listens");
        let drained = Arc::new(Notify::new());
        let (queue, frames) = outgoing(peer::QUEUE_BYTES / 2, Arc::clone(&drained));
        let mut client = AgentsClient::new(channel).max_decoding_message_size(http2::MAX_GRPC_MESSAGE);
        let replies = client.session(frames).await.expect("a session can be opened").into_inner();
        Session { incoming: queue.incoming(replies, peer::LIMIT), queue, drained, child }
    }

    async fn warm_up(&mut self) {
        self.ask(peer::TAKE, 1);
        self.queue.push(done(1, Bytes::from_static(&[7; 8])));
        while self.next().await == 0 {}
    }

    fn ask(&self, what: &str, count: usize) {
        let hello = AgentHello { host: what.to_owned(), slots: count as u32, ..AgentHello::default() };
        self.queue.push(AgentEvent { body: Some(agent_event::Body::Hello(Box::new(hello))) });
    }

    async fn next(&mut self) -> usize {
        self.incoming.next().await.expect("the session holds").expect("the session does not end").len()
    }

    async fn take(&mut self, what: &str, count: usize, payload: &[u8]) {
        let small = Bytes::copy_from_slice(&payload[..8]);
        let cost = Cost::new(self.child.pid());
        self.ask(peer::TAKE, count);
        for chunk in 0..count {
            while self.queue.bytes() > peer::QUEUE_BYTES {
                tokio::select! {
                    () = self.drained.notified() => {}
                    early = self.incoming.next() => {
                        let early = early.expect("the session holds").expect("the session does not end");
                        assert!(early.is_empty(), "the peer answers when it has all");
                    }
                }
            }
            // Large ones are allocated each time, like those from a worker.
            let data = if payload.len() < MIB { small.clone() } else { Bytes::copy_from_slice(payload) };
            self.queue.push(done(chunk as u64, data));
        }
        while self.next().await == 0 {}
        cost.print(what, count, if payload.len() < MIB { "messages" } else { "MiB" });
    }

    async fn give(&mut self, what: &str, ask: &str, count: usize) {
        let cost = Cost::new(self.child.pid());
        self.ask(ask, count);
        let mut taken = 0;
        while taken < count {
            taken += self.next().await;
        }
        cost.print(what, count, if ask == peer::GIVE { "messages" } else { "MiB" });
    }

    /// Sends messages back and forth, with `ahead` of them in flight.
    async fn cycle(&mut self, ahead: usize, count: usize) {
        let data = Bytes::from_static(&[7; 8]);
        let (cost, mut times) = (Cost::new(self.child.pid()), Vec::with_capacity(count));
        self.ask(peer::ECHO, count);
        let (mut sent, mut taken, mut start) = (0, 0, Instant::now());
        while taken < count {
            let room = (taken + ahead).min(count) - sent;
            self.queue.extend((sent..sent + room).map(|chunk| done(chunk as u64, data.clone())));
            sent += room;
            taken += self.next().await;
            times.push(start.elapsed());
            start = Instant::now();
        }
        times.sort();
        let what = match ahead {
            1 => format!("session: round trip (p50 {:.1?})", times[times.len() / 2]),
            _ => format!("session: small messages there and back, {ahead} ahead"),
        };
        cost.print(&what, count, "trips");
    }
}
