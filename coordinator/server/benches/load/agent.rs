//! A fake agent: reports items as done without running them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use farpool_net::{Incoming, Outgoing, http2};
use farpool_proto::v1::agents_client::AgentsClient;
use farpool_proto::v1::{
    AgentCommand, AgentEvent, AgentHello, Assign, Credit, Label, PoolStarted, PoolStopped, RunDone, agent_command,
    agent_event,
};

use crate::connect;
use crate::figures::Figures;

pub(crate) struct Agent {
    number: usize,
    slots: u32,
    /// The average duration of a chunk; zero: it is done at once.
    service: Duration,
    figures: Rc<Figures>,
    random: u64,
    /// Running chunks, by the time when they are done.
    running: BinaryHeap<Reverse<(Instant, u64)>>,
    reports: Vec<Option<RunDone>>,
    unused: Vec<u64>,
    /// When the free slots became free.
    free: VecDeque<Instant>,
}

impl Agent {
    pub(crate) fn new(number: usize, slots: u32, service: Duration, figures: Rc<Figures>) -> Self {
        Agent {
            number,
            slots,
            service,
            figures,
            random: number as u64 + 1,
            running: BinaryHeap::new(),
            reports: Vec::new(),
            unused: Vec::new(),
            free: VecDeque::new(),
        }
    }

    /// Opens its session, and runs it in a task.
    pub(crate) async fn open(self, address: &str) {
        let (queue, frames) = connect::queue();
        queue.extend([event(agent_event::Body::Hello(Box::new(self.hello()))), event(self.credit())]);
        let mut client = AgentsClient::new(connect::connect(address).await);
        client = client.max_decoding_message_size(http2::MAX_GRPC_MESSAGE);
        let replies = client.session(frames).await.expect("the coordinator refused the agent").into_inner();
        let mut incoming = queue.incoming(replies, connect::MESSAGE_LIMIT);
        let welcome = incoming.next().await.expect("the coordinator did not answer").expect("the session ended");
        let mut agent = self;
        tokio::task::spawn_local(async move {
            agent.handle(welcome, &queue);
            agent.run(incoming, &queue).await;
        });
    }

    fn hello(&self) -> AgentHello {
        let host = format!("host-{}", self.number);
        let label = |key: &str, value: &str| Label { key: key.to_owned(), value: value.to_owned() };
        let labels =
            vec![label("host", &host), label("arch", std::env::consts::ARCH), label("os", std::env::consts::OS)];
        let mut secret = [7; 32];
        secret[..8].copy_from_slice(&self.number.to_le_bytes());
        AgentHello {
            host,
            slots: self.slots,
            version: Some(farpool_proto::version()),
            secret: Bytes::copy_from_slice(&secret),
            labels,
            ..AgentHello::default()
        }
    }

    /// Returns credit for one chunk a slot: a free slot has waited for each chunk that arrives.
    fn credit(&self) -> agent_event::Body {
        agent_event::Body::Credit(Credit { chunks: self.slots, bytes: 0 })
    }

    async fn run(mut self, mut incoming: Incoming<AgentCommand>, queue: &Outgoing<AgentEvent>) {
        let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
        loop {
            if let Some(Reverse((due, _))) = self.running.peek() {
                timer.as_mut().reset((*due).into());
            }
            tokio::select! {
                biased;
                commands = incoming.next() => match commands.expect("the session was lost") {
                    Some(commands) => self.handle(commands, queue),
                    None => panic!("the coordinator has ended the session of agent {}", self.number),
                },
                () = &mut timer, if !self.running.is_empty() => self.finish(queue),
            }
        }
    }

    fn handle(&mut self, commands: Vec<AgentCommand>, queue: &Outgoing<AgentEvent>) {
        for command in commands {
            match command.body {
                Some(agent_command::Body::Assign(assign)) => self.begin(assign, queue),
                Some(agent_command::Body::StartPool(start)) => {
                    queue.push(event(agent_event::Body::PoolStarted(PoolStarted { pool: start.pool })));
                }
                Some(agent_command::Body::StopPool(stop)) => {
                    queue.push(event(agent_event::Body::PoolStopped(PoolStopped { pool: stop.pool })));
                }
                // All chunks that have arrived run already, so none can be returned.
                _ => {}
            }
        }
    }

    fn begin(&mut self, assign: Assign, queue: &Outgoing<AgentEvent>) {
        let now = Instant::now();
        let mut segments = assign.segments.into_iter();
        for chunk in assign.chunks {
            if let Some(free_since) = self.free.pop_front() {
                self.figures.slot_taken(free_since, now);
            }
            let segment = segments.next().expect("the chunk has no segment left");
            assert_eq!((chunk.segments, segment.ends.len()), (1, 4), "a chunk is one item");
            let ends = Bytes::copy_from_slice(&(segment.data.len() as u32).to_le_bytes());
            let busy_ns = self.service.as_nanos() as u64;
            let (chunk, attempt, first) = (chunk.chunk, chunk.attempt, chunk.first);
            let report = RunDone { chunk, attempt, first, data: segment.data, ends, busy_ns, failed: false };
            let due = now + self.duration();
            let at = self.unused.pop().unwrap_or(self.reports.len() as u64);
            if at == self.reports.len() as u64 {
                self.reports.push(None);
            }
            self.reports[at as usize] = Some(report);
            self.running.push(Reverse((due, at)));
        }
        assert!(self.running.len() <= self.slots as usize, "the coordinator keeps to the credit");
        self.finish(queue);
    }

    /// Reports the chunks that are done by now.
    fn finish(&mut self, queue: &Outgoing<AgentEvent>) {
        let now = Instant::now();
        let mut done = Vec::new();
        while let Some(Reverse((due, at))) = self.running.peek().copied()
            && due <= now
        {
            self.running.pop();
            self.unused.push(at);
            self.free.push_back(now);
            done.extend(self.reports[at as usize].take().map(|report| event(agent_event::Body::RunDone(report))));
        }
        if !done.is_empty() {
            queue.extend(done);
        }
    }

    /// Returns a random duration between 0.5 and 1.5 times the average.
    fn duration(&mut self) -> Duration {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.service.mul_f64(0.5 + (self.random >> 33) as f64 / (1_u64 << 31) as f64)
    }
}

fn event(body: agent_event::Body) -> AgentEvent {
    AgentEvent { body: Some(body) }
}
