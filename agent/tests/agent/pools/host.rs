//! Drives a real agent, and looks at what it tells.

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

/// Far beyond what any case takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// An agent and all that it has told.
pub(crate) struct Host {
    pub(crate) agent: Agent,
    pub(crate) told: Vec<Event>,
    chunks: u64,
}

impl Host {
    pub(crate) fn new(slots: u32) -> Host {
        Host::with(Settings::host(slots))
    }

    pub(crate) fn with(settings: Settings) -> Host {
        Host { agent: Agent::with(settings).expect("an agent can be made"), told: Vec::new(), chunks: 100 }
    }

    /// A pool with as many workers as there are slots; its only job has its number.
    pub(crate) fn pool(&mut self, pool: u64) {
        self.pool_of(StartPool { pool, ..start() });
    }

    pub(crate) fn pool_of(&mut self, start: StartPool) {
        self.pool_that(start, "serves");
    }

    pub(crate) fn pool_that(&mut self, start: StartPool, does: &str) {
        let pool = start.pool;
        self.agent.start_pool(start, program(does)).expect("it is a new pool");
        self.wait_for_event(|event| matches!(event, Event::PoolStarted(started) if started.pool == pool));
        self.say(Command::StartJob(StartJob { pool, job: pool, function: vec![1].into(), ..StartJob::default() }));
    }

    pub(crate) fn try_to_say(&mut self, body: Command) -> Result<(), ProtocolError> {
        self.agent.command(AgentCommand { body: Some(body) })
    }

    pub(crate) fn say(&mut self, body: Command) {
        self.try_to_say(body).expect("it makes sense");
    }

    /// Assigns items to the only job of a pool, each in a chunk of its own; returns the chunks' numbers.
    pub(crate) fn assign<const N: usize>(&mut self, pool: u64, items: [&str; N]) -> [u64; N] {
        let mut assign = Assign::default();
        let chunks = items.map(|item| {
            self.chunks += 1;
            assign.segments.push(segment(item));
            assign.chunks.push(Chunk { chunk: self.chunks, job: pool, first: self.chunks, attempt: 1, segments: 1 });
            self.chunks
        });
        self.say(Command::Assign(assign));
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
        self.wait(|told| told.iter().find_map(|event| outcome_of(event, chunk)))
    }

    pub(crate) fn pool_fault(&mut self, pool: u64) -> Failure {
        self.wait(|told| {
            told.iter().find_map(|event| match event {
                Event::PoolFault(fault) if fault.pool == pool => fault.failure.clone(),
                _ => None,
            })
        })
    }

    pub(crate) fn wait_for_event(&mut self, is_it: impl Fn(&Event) -> bool) -> usize {
        self.wait(|told| told.iter().position(&is_it))
    }

    /// Waits until a pool's workers have written this.
    pub(crate) fn wait_for_output(&mut self, pool: u64, text: &str) {
        self.wait(|told| output_of(told, pool, OutputStream::Stdout).contains(text).then_some(()));
    }

    /// What a pool's workers have written so far.
    pub(crate) fn output(&self, pool: u64, stream: OutputStream) -> String {
        output_of(&self.told, pool, stream)
    }

    pub(crate) fn credit(&self) -> Option<u32> {
        self.told.iter().rev().find_map(|event| match event {
            Event::Credit(credit) => Some(credit.chunks),
            _ => None,
        })
    }

    /// Where the outcome of a chunk was told.
    pub(crate) fn place_of(&self, chunk: u64) -> usize {
        self.told.iter().position(|event| outcome_of(event, chunk).is_some()).expect("it was told")
    }

    /// Drives the agent until `look` finds something in all that was told.
    pub(crate) fn wait<T>(&mut self, mut look: impl FnMut(&[Event]) -> Option<T>) -> T {
        self.drive(Instant::now() + PATIENCE, |_, told| look(told)).unwrap_or_else(|| {
            panic!("the agent is still waiting for something; it has told {:?}", self.told);
        })
    }

    /// Drives the agent until it is so.
    pub(crate) fn wait_until(&mut self, is_so: impl Fn(&Agent) -> bool) {
        let came = self.drive(Instant::now() + PATIENCE, |agent, _| is_so(agent).then_some(()));
        assert!(came.is_some(), "the agent has told {:?}", self.told);
    }

    /// Drives the agent until `look` finds something, which comes of what the agent does.
    pub(crate) fn until<T>(&mut self, mut look: impl FnMut() -> Option<T>) -> T {
        self.wait(|_| look())
    }

    /// Drives the agent for a while in which nothing may happen, which no event tells.
    pub(crate) fn drive_for(&mut self, time: Duration) {
        self.drive(Instant::now() + time, |_, _| None::<()>);
    }

    /// Kills everything, and waits until it is gone.
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
            self.agent.pump(&mut events);
            self.told.extend(events.into_iter().filter_map(|event| event.body));
            if let Some(found) = look(&self.agent, &self.told) {
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
            ready[..count].iter().for_each(|event| self.agent.ready(event.data()));
        }
    }
}

/// A pool's settings that suit most cases.
pub(crate) fn start() -> StartPool {
    let settings = WorkerSettings { payload_limit: 1 << 20, ..WorkerSettings::default() };
    StartPool { settings: Some(settings), ..StartPool::default() }
}

/// This test's own executable, which `does` what it says.
pub(crate) fn program(does: &str) -> Program {
    Program {
        path: std::env::current_exe().expect("there is a /proc"),
        arguments: ["/far/away/worker-program", does].map(OsString::from).to_vec(),
        environment: Some(Vec::new()),
        directory: None,
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

fn output_of(told: &[Event], pool: u64, stream: OutputStream) -> String {
    let parts = told.iter().filter_map(|event| match event {
        Event::Output(output) if output.pool == pool && output.stream() == stream => Some(&output.data[..]),
        _ => None,
    });
    String::from_utf8_lossy(&parts.collect::<Vec<_>>().concat()).into_owned()
}

/// Whether a process is there; those of workers are reaped as soon as they end.
pub(crate) fn is_alive(pid: &str) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// A named pipe through which a worker is told to go on.
pub(crate) struct Word {
    path: PathBuf,
    /// Open for reading too, so that it can be written to before anybody listens.
    pipe: std::fs::File,
}

impl Word {
    pub(crate) fn new(name: &str) -> Word {
        let path = std::env::temp_dir().join(format!("farpool-word-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("named pipes can be made");
        let pipe = std::fs::OpenOptions::new().read(true).write(true).open(&path).expect("it was just made");
        assert!(pipe.as_raw_fd() > 2);
        Word { path, pipe }
    }

    pub(crate) fn path(&self) -> String {
        self.path.display().to_string()
    }

    /// Lets whoever listens go on.
    pub(crate) fn say(&self) {
        use std::io::Write;
        (&self.pipe).write_all(b"go on").expect("a pipe takes a few bytes");
    }
}

impl Drop for Word {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
