//! Fake clients and agents around a real coordinator. Every message that they receive must be expected.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use farpool_coordinator::{AgentId, ClientId, Config, Coordinator, Outbox, Principal, Refused};
use farpool_proto::v1::{
    AgentCommand, AgentEvent, AgentHello, Assign, CancelJob, ClientEvent, ClientMessage, ClosePool, Credit, EndItems,
    Failure, FailureKind, HeldChunk, HeldPool, ItemFault, Items, Label, OpenJob, OpenPool, PoolFault, PoolStarted,
    PoolStopped, Returned, RunDone, StopRetries, WorkerSettings, agent_command, agent_event, client_event,
    client_message,
};

pub(crate) use agent_event::Body as Report;
pub(crate) use client_message::Body as Request;

/// The most bytes of an item of the pools here.
pub(crate) const PAYLOAD_LIMIT: u64 = 1000;

/// Numbers from the test's input, repeated, and changed in each repetition. A sequence that only repeats might never do
/// what a test waits for.
pub(crate) struct Dice {
    numbers: Vec<u32>,
    at: usize,
}

impl Dice {
    pub(crate) fn new(numbers: Vec<u32>) -> Self {
        Self { numbers, at: 0 }
    }

    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.at += 1;
        let number = self.numbers[self.at % self.numbers.len()];
        match (self.at / self.numbers.len()) as u64 {
            0 => number as usize % sides,
            around => {
                let mixed = (u64::from(number) ^ (around << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16) as usize % sides
            }
        }
    }
}

/// A coordinator and all its connections, by number.
pub(crate) struct Wire {
    pub(crate) coordinator: Coordinator,
    pub(crate) clients: Vec<ClientId>,
    pub(crate) agents: Vec<AgentId>,
    pub(crate) to_clients: Vec<VecDeque<client_event::Body>>,
    pub(crate) to_agents: Vec<VecDeque<agent_command::Body>>,
    /// Whether agents answer at once that a pool has started; otherwise the test decides when.
    pub(crate) starts_at_once: bool,
    /// Whether clients acknowledge at once where their pools run; otherwise the test decides when.
    pub(crate) acks_at_once: bool,
    out: Outbox,
    now: u64,
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(crate) fn with(mut config: Config) -> Self {
        config.core.check = true;
        Self {
            coordinator: Coordinator::new(config),
            clients: Vec::new(),
            agents: Vec::new(),
            to_clients: Vec::new(),
            to_agents: Vec::new(),
            starts_at_once: true,
            acks_at_once: true,
            out: Outbox::default(),
            now: 0,
        }
    }

    /// Adds an agent that has said hello and given credit.
    pub(crate) fn agent(&mut self, slots: u32, credit: u32) -> usize {
        let number = self.silent_agent();
        self.report(
            number,
            Report::Hello(Box::new(AgentHello { host: format!("host{number}"), slots, ..AgentHello::default() })),
        );
        self.report(number, Report::Credit(Credit { chunks: credit, bytes: 0 }));
        number
    }

    /// Adds an agent with labels, each as `key=value`, and a credit of as many chunks as it has slots.
    pub(crate) fn agent_with(&mut self, slots: u32, with: &[&str]) -> usize {
        let number = self.silent_agent();
        let hello = AgentHello { host: format!("host{number}"), slots, labels: labels(with), ..AgentHello::default() };
        self.report(number, Report::Hello(Box::new(hello)));
        self.report(number, Report::Credit(Credit { chunks: slots, bytes: 0 }));
        number
    }

    /// Adds an agent with this id, which holds this and has a credit of as many chunks as it has slots.
    pub(crate) fn agent_as(&mut self, id: u8, slots: u32, held: Vec<HeldPool>) -> usize {
        let number = self.silent_agent();
        self.report(number, hello_as(id, slots, held));
        self.report(number, Report::Credit(Credit { chunks: slots, bytes: 0 }));
        number
    }

    pub(crate) fn silent_agent(&mut self) -> usize {
        self.agents.push(self.coordinator.connect_agent());
        self.to_agents.push(VecDeque::new());
        self.agents.len() - 1
    }

    pub(crate) fn client(&mut self) -> usize {
        self.clients.push(self.coordinator.connect_client(Principal::local()));
        self.to_clients.push(VecDeque::new());
        self.clients.len() - 1
    }

    pub(crate) fn send(&mut self, client: usize, body: Request) {
        self.try_send(client, body).expect("the coordinator takes the message");
    }

    pub(crate) fn try_send(&mut self, client: usize, body: Request) -> Result<(), Refused> {
        self.now += 1000;
        let message = ClientMessage { body: Some(body) };
        let result = self.coordinator.client_message(self.clients[client], message, self.now, &mut self.out);
        self.sort();
        result
    }

    pub(crate) fn report(&mut self, agent: usize, body: Report) {
        self.try_report(agent, body).expect("the coordinator takes the message");
    }

    pub(crate) fn try_report(&mut self, agent: usize, body: Report) -> Result<(), Refused> {
        self.now += 1000;
        let event = AgentEvent { body: Some(body) };
        let result = self.coordinator.agent_event(self.agents[agent], event, self.now, &mut self.out);
        self.sort();
        result
    }

    pub(crate) fn client_gone(&mut self, client: usize) {
        self.coordinator.client_gone(self.clients[client], self.now, &mut self.out);
        self.sort();
    }

    pub(crate) fn agent_gone(&mut self, agent: usize) {
        self.coordinator.agent_gone(self.agents[agent], self.now, &mut self.out);
        self.to_agents[agent].clear();
        self.sort();
    }

    /// Calls the coordinator as a server does.
    pub(crate) fn serve<R>(&mut self, serve: impl FnOnce(&mut Coordinator, u64, &mut Outbox) -> R) -> R {
        let result = serve(&mut self.coordinator, self.now, &mut self.out);
        self.sort();
        result
    }

    /// The client acknowledges its messages up to this one.
    pub(crate) fn acknowledge(&mut self, client: usize, last: u64) {
        let client = self.clients[client];
        self.serve(|coordinator, now, out| coordinator.client_acknowledged(client, last, now, out));
    }

    /// Lets time pass.
    pub(crate) fn wait(&mut self, ns: u64) {
        self.now += ns;
    }

    pub(crate) fn schedule(&mut self) {
        self.coordinator.schedule(self.now, &mut self.out);
        self.sort();
    }

    /// Checks that exactly this has arrived since the last call, client by client and then agent by agent.
    #[track_caller]
    pub(crate) fn expect(&mut self, expected: &[&str]) {
        let mut found = Vec::new();
        for (number, inbox) in self.to_clients.iter_mut().enumerate() {
            found.extend(inbox.drain(..).map(|body| format!("client{number}: {}", event_text(&body))));
        }
        for (number, inbox) in self.to_agents.iter_mut().enumerate() {
            found.extend(inbox.drain(..).map(|body| format!("agent{number}: {}", command_text(&body))));
        }
        assert_eq!(found, expected);
    }

    fn sort(&mut self) {
        let (mut started, mut received) = (Vec::new(), BTreeSet::new());
        for (to, ClientEvent { body }) in self.out.to_clients.drain(..) {
            let number = self.clients.iter().position(|&id| id == to).expect("the receiver is connected");
            let body = body.expect("the message has a body");
            if matches!(&body, client_event::Body::PoolAt(at) if !at.gone) {
                received.insert(number);
            }
            self.to_clients[number].push_back(body);
        }
        for (to, AgentCommand { body }) in self.out.to_agents.drain(..) {
            let number = self.agents.iter().position(|&id| id == to).expect("the receiver is connected");
            let body = body.expect("the message has a body");
            if let agent_command::Body::StartPool(start) = &body {
                started.push((number, start.pool));
            }
            self.to_agents[number].push_back(body);
        }
        if self.starts_at_once {
            started.into_iter().for_each(|(agent, pool)| self.report(agent, pool_started(pool)));
        }
        if !self.acks_at_once {
            return;
        }
        for client in received {
            // Earlier messages have no number yet, and stay as they are.
            self.coordinator.client_numbered(self.clients[client], 0);
            self.acknowledge(client, 0);
        }
    }
}

/// Describes an event for a client. Ids from the coordinator are shown by their index.
pub(crate) fn event_text(event: &client_event::Body) -> String {
    use client_event::Body::*;
    let failure = |failure: &Option<Failure>| {
        let failure = failure.as_ref().expect("a failure says what it was");
        let kind = FailureKind::try_from(failure.kind).expect("of a known kind");
        format!("{kind:?} on {}, attempts {}", failure.host, failure.attempts)
    };
    match event {
        Welcome(_) => "welcome".to_owned(),
        Waiting(waiting) => format!("waiting: {}", waiting.reason),
        ProgramWanted(wanted) => format!("wanted {:?}", wanted.digest),
        Output(output) => {
            format!("output of {} on {}: {}", output.pid, output.host, String::from_utf8_lossy(&output.data))
        }
        PoolOpened(opened) => format!("opened with {} slots", opened.slots),
        ItemsDone(done) => {
            let results = payloads(&done.data, 0, &done.ends);
            let failed = if done.failed { ", failed" } else { "" };
            let attempts = if done.attempts > 0 { format!(", attempts {}", done.attempts) } else { String::new() };
            format!("job {} done {}: {results:?}{failed}{attempts}", done.job, done.first)
        }
        ItemsFailed(failed) => {
            let (first, last) = (failed.first, failed.first + failed.count - 1);
            let items = if first == last { first.to_string() } else { format!("{first} to {last}") };
            format!("job {} failed {items}: {}", failed.job, failure(&failed.failure))
        }
        JobEnded(ended) => format!("job {} {}", ended.job, if ended.cancelled { "cancelled" } else { "ended" }),
        PoolFailed(failed) => format!("pool failed: {}", failure(&failed.failure)),
        PoolClosed(_) => "closed".to_owned(),
        Window(window) => format!("job {} window {}", window.job, window.limit),
        PoolAt(at) => format!("{} at {}", if at.gone { "no more" } else { "runs" }, at.agent[0]),
        Durable(_) | DetachedJob(_) => panic!("{event:?} in a pool's session"),
    }
}

/// Describes a command for an agent.
pub(crate) fn command_text(command: &agent_command::Body) -> String {
    use agent_command::Body::*;
    match command {
        StartPool(start) => match start.processes {
            0 => format!("start pool {}", start.pool as u32),
            workers => format!("start pool {} with {workers}", start.pool as u32),
        },
        ResizePool(resize) => format!("resize pool {} to {}", resize.pool as u32, resize.processes),
        Drain(_) => "drain".to_owned(),
        Welcome(_) => "welcome".to_owned(),
        StopPool(stop) => {
            let held = if stop.pool >= HELD { "held " } else { "" };
            format!("stop {held}pool {}{}", stop.pool as u32, if stop.now { " now" } else { "" })
        }
        StartJob(start) => format!("start job {}{}", start.job as u32, if start.whole_chunks { " whole" } else { "" }),
        EndJob(end) => format!("end job {}{}", end.job as u32, if end.kill { " kill" } else { "" }),
        Assign(assign) => {
            let chunks = held(assign).into_iter().map(|chunk| {
                format!("job {} attempt {} from {} {:?}", chunk.job as u32, chunk.attempt, chunk.first, chunk.items)
            });
            format!("run {}", chunks.collect::<Vec<_>>().join(", "))
        }
        Retract(retract) => format!("give back {}", retract.chunks.len()),
        Settled(settled) => format!("settled {} of pool {}", settled.report, settled.pool as u32),
        AdoptPool(adopt) => {
            let jobs = adopt.jobs.iter().map(|job| format!(" job {} as {}", job.number, job.job as u32));
            let chunks = adopt.chunks.iter().map(|chunk| format!(" chunk {} attempt {}", chunk.held, chunk.attempt));
            let parts: String = jobs.chain(chunks).collect();
            let workers = match adopt.processes {
                0 => String::new(),
                workers => format!(" with {workers}"),
            };
            format!("adopt held pool {} as {}{workers}{parts}", adopt.held as u32, adopt.pool as u32)
        }
        CancelChunks(cancel) => format!("cancel {}", cancel.chunks.len()),
        LendSlot(lend) => format!("lend {} {}", lend.ticket[0], lend.lend),
    }
}

/// The bit that agents' own numbers for pools have set.
pub(crate) const HELD: u64 = 1 << 63;

/// A pool whose id is this byte, 16 times; `again`: where it ran before, if it is opened again.
pub(crate) fn open_pool_as(id: u8, processes: u32, again: Option<&[u8]>) -> Request {
    let settings = WorkerSettings { payload_limit: PAYLOAD_LIMIT, ..WorkerSettings::default() };
    let agents = again.unwrap_or_default().iter().map(|&agent| vec![agent; 16].into()).collect();
    let id = vec![id; 16].into();
    let open =
        OpenPool { processes, settings: Some(settings), id, again: again.is_some(), agents, ..OpenPool::default() };
    Request::OpenPool(Box::new(open))
}

/// An agent whose id is this byte, 16 times, and what it holds.
pub(crate) fn hello_as(id: u8, slots: u32, held: Vec<HeldPool>) -> Report {
    let host = format!("host{id}");
    Report::Hello(Box::new(AgentHello { host, slots, id: vec![id; 16].into(), held, ..AgentHello::default() }))
}

/// A pool that an agent holds under a number of its own.
pub(crate) fn held_pool(number: u64, id: u8, chunks: Vec<HeldChunk>) -> HeldPool {
    HeldPool { pool: HELD | number, id: vec![id; 16].into(), processes: 0, chunks, ..HeldPool::default() }
}

/// Runs, each by first item and count, of a chunk that an agent holds.
pub(crate) fn held_chunk(chunk: u64, job: u64, first: u64, attempt: u32, runs: &[(u64, u64)]) -> HeldChunk {
    let runs = runs.iter().flat_map(|&(first, count)| [first, count]).collect();
    HeldChunk { chunk, job, first, attempt, runs }
}

/// A chunk as an agent has it.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) chunk: u64,
    pub(crate) job: u64,
    pub(crate) first: u64,
    pub(crate) attempt: u32,
    pub(crate) items: Vec<String>,
}

/// The chunks of a message.
pub(crate) fn held(assign: &Assign) -> Vec<Held> {
    let mut segments = assign.segments.iter();
    let chunks = assign.chunks.iter().map(|chunk| {
        let own = segments.by_ref().take(chunk.segments as usize);
        let items: Vec<_> = own.flat_map(|part| payloads(&part.data, part.start, &part.ends)).collect();
        assert!(!items.is_empty(), "a chunk without items");
        Held { chunk: chunk.chunk, job: chunk.job, first: chunk.first, attempt: chunk.attempt, items }
    });
    let chunks: Vec<_> = chunks.collect();
    assert!(segments.next().is_none(), "a segment that is no chunk's");
    chunks
}

pub(crate) fn payloads(data: &[u8], start: u32, ends: &[u8]) -> Vec<String> {
    let ends = ends.chunks_exact(4).map(|end| (u32::from_le_bytes(end.try_into().expect("four")) - start) as usize);
    let mut from = 0;
    let items = ends.map(|end| {
        let item = String::from_utf8(data[std::mem::replace(&mut from, end)..end].to_vec());
        item.expect("the test sends text")
    });
    let items: Vec<_> = items.collect();
    assert_eq!(from, data.len(), "bytes that are no item's");
    items
}

pub(crate) fn encode(items: &[impl AsRef<str>]) -> (Bytes, Bytes) {
    let (mut data, mut ends) = (Vec::new(), Vec::new());
    for item in items {
        data.extend(item.as_ref().as_bytes());
        ends.extend((data.len() as u32).to_le_bytes());
    }
    (data.into(), ends.into())
}

pub(crate) fn open_pool(processes: u32) -> Request {
    let settings = WorkerSettings { payload_limit: PAYLOAD_LIMIT, ..WorkerSettings::default() };
    Request::OpenPool(Box::new(OpenPool { processes, settings: Some(settings), ..OpenPool::default() }))
}

/// A pool that requires labels, each as `key=value`.
pub(crate) fn open_pool_for(processes: u32, require: &[&str]) -> Request {
    let settings = WorkerSettings { payload_limit: PAYLOAD_LIMIT, ..WorkerSettings::default() };
    Request::OpenPool(Box::new(OpenPool {
        processes,
        settings: Some(settings),
        require: labels(require),
        ..OpenPool::default()
    }))
}

pub(crate) fn labels(all: &[&str]) -> Vec<Label> {
    let label = |text: &&str| {
        let (key, value) = text.split_once('=').expect("a label has a key and a value");
        Label { key: key.to_owned(), value: value.to_owned() }
    };
    all.iter().map(label).collect()
}

/// A job with chunks of one item that requires labels.
pub(crate) fn open_job_for(job: u64, require: &[&str]) -> Request {
    Request::OpenJob(Box::new(OpenJob { job, chunksize: 1, require: labels(require), ..OpenJob::default() }))
}

pub(crate) fn open_job(job: u64, chunksize: u64, retries: u32) -> Request {
    Request::OpenJob(Box::new(OpenJob { job, chunksize, retries, ..OpenJob::default() }))
}

/// Opens a job that retries items that count as failed.
pub(crate) fn open_job_retrying(job: u64, chunksize: u64, retries: u32) -> Request {
    let Request::OpenJob(mut open) = open_job(job, chunksize, retries) else {
        unreachable!("open_job returns OpenJob")
    };
    open.retry_failed = true;
    Request::OpenJob(open)
}

pub(crate) fn stop_retries(job: u64) -> Request {
    Request::StopRetries(StopRetries { job })
}

pub(crate) fn items(job: u64, first: u64, items: &[impl AsRef<str>]) -> Request {
    let (data, ends) = encode(items);
    Request::Items(Items { job, first, data, ends })
}

pub(crate) fn end_items(job: u64) -> Request {
    Request::EndItems(EndItems { job })
}

pub(crate) fn cancel(job: u64) -> Request {
    Request::CancelJob(CancelJob { job })
}

pub(crate) fn close(now: bool) -> Request {
    Request::ClosePool(ClosePool { now })
}

/// The results of some items of a chunk: the items in capitals.
pub(crate) fn done(chunk: &Held, from: usize, count: usize) -> Report {
    let results: Vec<_> = chunk.items[from..from + count].iter().map(|item| item.to_uppercase()).collect();
    let (data, ends) = encode(&results);
    let first = chunk.first + from as u64;
    Report::RunDone(RunDone {
        chunk: chunk.chunk,
        attempt: chunk.attempt,
        first,
        data,
        ends,
        busy_ns: 1000,
        failed: false,
    })
}

/// Reports results that count as failed.
pub(crate) fn failed(chunk: &Held, from: usize, count: usize) -> Report {
    let Report::RunDone(run) = done(chunk, from, count) else { unreachable!("done returns RunDone") };
    Report::RunDone(RunDone { failed: true, ..run })
}

pub(crate) fn fault(chunk: &Held, item: u64, kind: FailureKind) -> Report {
    let failure = Some(Failure { kind: kind.into(), ..Failure::default() });
    Report::ItemFault(Box::new(ItemFault { chunk: chunk.chunk, attempt: chunk.attempt, item, failure }))
}

pub(crate) fn give_back(chunk: &Held, from: usize, count: usize) -> Report {
    let first = chunk.first + from as u64;
    Report::Returned(Returned { chunk: chunk.chunk, attempt: chunk.attempt, first, count: count as u64 })
}

pub(crate) fn pool_started(pool: u64) -> Report {
    Report::PoolStarted(PoolStarted { pool })
}

pub(crate) fn pool_stopped(pool: u64) -> Report {
    Report::PoolStopped(PoolStopped { pool })
}

pub(crate) fn pool_fault(pool: u64, kind: FailureKind) -> Report {
    let message = "it has no libc".to_owned();
    let failure = Failure { kind: kind.into(), message, host: "there".to_owned(), ..Failure::default() };
    Report::PoolFault(Box::new(PoolFault { pool, failure: Some(failure) }))
}
