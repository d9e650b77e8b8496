//! Drives a real agent, and checks its events.

use std::ffi::OsString;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use farpool_agent::fork_server::Program;
use farpool_agent::{Agent, Armed, ProtocolError, Settings};
use farpool_link::clock;
use farpool_proto::v1::agent_command::Body as Command;
pub(crate) use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{
    AgentCommand, AgentEvent, Assign, Chunk, Failure, OutputStream, Segment, StartJob, StartPool, WorkerSettings,
};
use nix::sys::epoll::{EpollEvent, EpollTimeout};

/// Far longer than any case takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// An agent and all of its events.
pub(crate) struct Host {
    pub(crate) agent: Agent,
    pub(crate) events: Vec<Event>,
    chunks: u64,
}

impl Host {
    pub(crate) fn new(slots: u32) -> Host {
        Host::with(Settings::host(slots))
    }

    pub(crate) fn with(settings: Settings) -> Host {
        Host { agent: Agent::with(settings).expect("an agent can be made"), events: Vec::new(), chunks: 100 }
    }

    /// Starts a pool with a worker for each slot, and a job of the same number.
    pub(crate) fn pool(&mut self, pool: u64) {
        self.pool_of(StartPool { pool, ..start() });
    }

    pub(crate) fn pool_of(&mut self, start: StartPool) {
        self.pool_with(start, "serves");
    }

    pub(crate) fn pool_with(&mut self, start: StartPool, does: &str) {
        self.pool_of_program(start, program(does));
    }

    pub(crate) fn pool_of_program(&mut self, start: StartPool, program: Program) {
        let pool = start.pool;
        self.agent.start_pool(start, program).expect("the pool is new");
        self.wait_for_event(|event| matches!(event, Event::PoolStarted(started) if started.pool == pool));
        self.send(Command::StartJob(StartJob { pool, job: pool, function: vec![1].into(), ..StartJob::default() }));
    }

    pub(crate) fn try_send(&mut self, body: Command) -> Result<(), ProtocolError> {
        self.agent.command(AgentCommand { body: Some(body) })
    }

    pub(crate) fn send(&mut self, body: Command) {
        self.try_send(body).expect("the command is valid");
    }

    /// Assigns items to the only job of a pool, one per chunk. Returns the chunks' numbers.
    pub(crate) fn assign<const N: usize>(&mut self, pool: u64, items: [&str; N]) -> [u64; N] {
        let mut assign = Assign::default();
        let chunks = items.map(|item| {
            self.chunks += 1;
            assign.segments.push(segment(item));
            assign.chunks.push(Chunk { chunk: self.chunks, job: pool, first: self.chunks, attempt: 1, segments: 1 });
            self.chunks
        });
        self.send(Command::Assign(assign));
        chunks
    }

    /// Assigns one item and waits for its result.
    pub(crate) fn run(&mut self, pool: u64, item: &str) -> String {
        let [chunk] = self.assign(pool, [item]);
        self.result(chunk)
    }

    /// Waits for the result of a chunk of one item.
    pub(crate) fn result(&mut self, chunk: u64) -> String {
        match self.outcome(chunk) {
            Ok(result) => result,
            Err(failure) => panic!("{failure:?}"),
        }
    }

    pub(crate) fn outcome(&mut self, chunk: u64) -> Result<String, Failure> {
        self.wait(|events| events.iter().find_map(|event| outcome_of(event, chunk)))
    }

    pub(crate) fn pool_fault(&mut self, pool: u64) -> Failure {
        self.wait(|events| {
            events.iter().find_map(|event| match event {
                Event::PoolFault(fault) if fault.pool == pool => fault.failure.clone(),
                _ => None,
            })
        })
    }

    pub(crate) fn wait_for_event(&mut self, is_it: impl Fn(&Event) -> bool) -> usize {
        self.wait(|events| events.iter().position(&is_it))
    }

    /// Waits until a pool's workers have written this.
    pub(crate) fn wait_for_output(&mut self, pool: u64, text: &str) {
        self.wait(|events| output_of(events, pool, OutputStream::Stdout).contains(text).then_some(()));
    }

    /// Returns what a pool's workers have written so far.
    pub(crate) fn output(&self, pool: u64, stream: OutputStream) -> String {
        output_of(&self.events, pool, stream)
    }

    pub(crate) fn credit(&self) -> Option<u32> {
        self.events.iter().rev().find_map(|event| match event {
            Event::Credit(credit) => Some(credit.chunks),
            _ => None,
        })
    }

    /// Returns the position of a chunk's outcome among the events.
    pub(crate) fn position_of(&self, chunk: u64) -> usize {
        self.events.iter().position(|event| outcome_of(event, chunk).is_some()).expect("the outcome was reported")
    }

    /// Drives the agent until `look` finds something in its events.
    pub(crate) fn wait<T>(&mut self, mut look: impl FnMut(&[Event]) -> Option<T>) -> T {
        self.drive(Instant::now() + PATIENCE, |_, events| look(events)).unwrap_or_else(|| {
            panic!("the agent is still waiting for something; it reported {:?}", self.events);
        })
    }

    /// Drives the agent until the condition holds.
    pub(crate) fn wait_until(&mut self, is_so: impl Fn(&Agent) -> bool) {
        let holds = self.drive(Instant::now() + PATIENCE, |agent, _| is_so(agent).then_some(()));
        assert!(holds.is_some(), "the agent reported {:?}", self.events);
    }

    /// Drives the agent until `look` finds an effect of it.
    pub(crate) fn until<T>(&mut self, mut look: impl FnMut() -> Option<T>) -> T {
        self.wait(|_| look())
    }

    /// Drives the agent for a while, to check that nothing happens.
    pub(crate) fn drive_for(&mut self, time: Duration) {
        self.drive(Instant::now() + time, |_, _| None::<()>);
    }

    /// Kills all processes, and waits until they have ended.
    pub(crate) fn end(mut self) {
        self.agent.stop_all();
        let gone = self.drive(Instant::now() + PATIENCE, |agent, _| agent.is_empty().then_some(()));
        assert!(gone.is_some(), "something is left: {:#?}", self.agent);
    }

    pub(crate) fn drive<T>(
        &mut self,
        until: Instant,
        mut look: impl FnMut(&Agent, &[Event]) -> Option<T>,
    ) -> Option<T> {
        loop {
            let mut events = Vec::<AgentEvent>::new();
            self.agent.pump(clock::now(), &mut events);
            self.events.extend(events.into_iter().filter_map(|event| event.body));
            if let Some(found) = look(&self.agent, &self.events) {
                return Some(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let left = u64::try_from(left.as_millis()).expect("a short time") + 1;
            let timeout = match self.agent.arm() {
                Armed::Busy => continue,
                Armed::Until(None) => left,
                Armed::Until(Some(time)) => time.saturating_sub(clock::now()).div_ceil(1_000_000).min(left),
            };
            let timeout = EpollTimeout::from(u16::try_from(timeout.min(1000)).expect("at most 1000"));
            let mut ready = [EpollEvent::empty(); 8];
            let count = self.agent.epoll().wait(&mut ready, timeout).unwrap_or(0);
            let now = clock::now();
            ready[..count].iter().for_each(|event| self.agent.ready(event.data(), now));
        }
    }
}

/// A pool's settings that suit most cases.
pub(crate) fn start() -> StartPool {
    let settings = WorkerSettings { payload_limit: 1 << 20, ..WorkerSettings::default() };
    StartPool { settings: Some(settings), ..StartPool::default() }
}

/// This test's own executable, which behaves as `does` names.
pub(crate) fn program(does: &str) -> Program {
    Program {
        path: std::env::current_exe().expect("there is a /proc"),
        arguments: ["/far/away/worker-program", does].map(OsString::from).to_vec(),
        environment: Some(Vec::new()),
        directory: None,
        keep: false,
    }
}

pub(crate) fn segment(item: &str) -> Segment {
    let end = u32::try_from(item.len()).expect("a few bytes").to_le_bytes();
    Segment { data: item.as_bytes().to_vec().into(), start: 0, ends: end.to_vec().into() }
}

fn outcome_of(event: &Event, chunk: u64) -> Option<Result<String, Failure>> {
    match event {
        Event::RunDone(done) if done.chunk == chunk => Some(Ok(String::from_utf8_lossy(&done.data).into_owned())),
        Event::ItemFault(fault) if fault.chunk == chunk => Some(Err(fault.failure.clone().unwrap_or_default())),
        _ => None,
    }
}

pub(crate) fn output_of(events: &[Event], pool: u64, stream: OutputStream) -> String {
    let parts = events.iter().filter_map(|event| match event {
        Event::Output(output) if output.pool == pool && output.stream() == stream => Some(&output.data[..]),
        _ => None,
    });
    String::from_utf8_lossy(&parts.collect::<Vec<_>>().concat()).into_owned()
}

/// Returns whether a process exists. Workers are reaped as soon as they end.
pub(crate) fn is_alive(pid: &str) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// A named pipe at which an item waits until the gate opens.
pub(crate) struct Gate {
    path: PathBuf,
    /// Open for reading too, so that it can be written to before there is a reader.
    pipe: std::fs::File,
}

impl Gate {
    pub(crate) fn new(name: &str) -> Gate {
        let path = std::env::temp_dir().join(format!("farpool-word-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("named pipes can be made");
        let pipe = std::fs::OpenOptions::new().read(true).write(true).open(&path).expect("the pipe was just made");
        assert!(pipe.as_raw_fd() > 2);
        Gate { path, pipe }
    }

    pub(crate) fn path(&self) -> String {
        self.path.display().to_string()
    }

    /// Lets the reader continue.
    pub(crate) fn open(&self) {
        use std::io::Write;
        (&self.pipe).write_all(b"go on").expect("a pipe takes a few bytes");
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
