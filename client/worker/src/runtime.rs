//! The main loop of a worker that runs one item at a time.

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use farpool_link::clock;
use farpool_link::fork;
use farpool_link::record::Kind;
use farpool_link::{MAX_THREADS, Memory};
use farpool_proto::v1::{Failure, FailureKind, WorkerSettings};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use prost::Message;

use crate::bell::Bell;
use crate::input::{FoundTask, Input, Order, Run};
use crate::items::{Encoded, Items, end_of, rejected};
use crate::language::Language;
use crate::leave::{broken_link, leave};
use crate::output::Output;
use crate::{item_token, lend, panics, role, slot, threads};

/// Runs the agent's orders until it stops the worker.
pub(crate) fn run(memory: Arc<Memory>, socket: OwnedFd, language: &'static dyn Language) -> ! {
    fork::watch();
    // Tasks may open pools of their own.
    role::may_open_pools();
    panics::install();
    let bell = Arc::new(Bell::new(Arc::clone(&memory), socket));
    lend::in_worker(&bell);
    item_token::begin(memory.status());
    slot::begin(memory.status());
    let mut input = Input::new(Arc::clone(&memory), Arc::clone(&bell), language);
    let mut output = Output::new(Arc::clone(&memory), bell);
    let Order::Setup(settings) = input.next() else { broken_link() };
    let Ok(settings) = WorkerSettings::decode(settings.as_slice()) else { broken_link() };
    panics::this_thread_runs_tasks(Arc::clone(&memory));
    show_name(&settings.name);
    set_up(&settings, language, &mut output);
    output.control(Kind::Ready, &std::process::id().to_le_bytes());
    match settings.threads as usize {
        0 | 1 => one_at_a_time(&memory, input, output),
        count => threads::run(&memory, input, output, count.min(MAX_THREADS), language.stack_bytes()),
    }
}

/// Sets the process name to the pool's name, if it has one, for ps and top (the first 15 bytes).
fn show_name(name: &str) {
    if let Ok(name) = std::ffi::CString::new(name)
        && !name.is_empty()
    {
        let _ = nix::sys::prctl::set_name(&name);
    }
}

fn set_up(settings: &WorkerSettings, language: &dyn Language, output: &mut Output) {
    output.set_payload_limit(settings.payload_limit, language.advice_on_large_results());
    if let Err(failure) = limit_memory(settings.memory_limit).and_then(|()| initialise(settings, language)) {
        output.init_failed(failure);
        // The agent closes the pool, so the worker can exit.
        leave()
    }
}

fn limit_memory(bytes: u64) -> Result<(), Failure> {
    if bytes == 0 {
        return Ok(());
    }
    // A process cannot raise its own hard limit, so a lower one stays.
    let (_, most) = getrlimit(Resource::RLIMIT_AS).unwrap_or((RLIM_INFINITY, RLIM_INFINITY));
    let limit = bytes.min(most);
    setrlimit(Resource::RLIMIT_AS, limit, limit).map_err(|error| Failure {
        kind: FailureKind::InitializerFailed.into(),
        message: format!("cannot set the worker's memory limit of {bytes} bytes: {error}"),
        ..Failure::default()
    })
}

fn initialise(settings: &WorkerSettings, language: &dyn Language) -> Result<(), Failure> {
    if settings.initializer.is_empty() {
        return Ok(());
    }
    let mut io = InitializerItem { args: Some(&settings.initializer_args), scratch: Vec::new(), failure: None };
    let outcome = match language.find(settings.initializer.clone()) {
        Ok(task) => match catch_unwind(AssertUnwindSafe(|| task(&mut io))) {
            Ok(()) => io.failure.map_or(Ok(()), Err),
            Err(payload) => Err(panics::failure(payload)),
        },
        Err(message) => Err(Failure { message, ..Failure::default() }),
    };
    outcome.map_err(|failure| Failure { kind: FailureKind::InitializerFailed.into(), ..failure })
}

/// The single item of an initializer, whose result is dropped.
struct InitializerItem<'a> {
    args: Option<&'a [u8]>,
    scratch: Vec<u8>,
    failure: Option<Failure>,
}

impl Items for InitializerItem<'_> {
    fn next(&mut self) -> Option<&[u8]> {
        self.args.take()
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        self.next().map(<[u8]>::to_vec)
    }

    fn room(&mut self) -> &mut [u8] {
        &mut []
    }

    fn scratch(&mut self) -> &mut Vec<u8> {
        &mut self.scratch
    }

    fn done(&mut self, _: Encoded, _: bool) {}

    fn failed(&mut self, failure: Failure) {
        self.failure = Some(failure);
    }
}

fn one_at_a_time(memory: &Arc<Memory>, mut input: Input, mut output: Output) -> ! {
    let mut scratch = Vec::new();
    loop {
        match input.next() {
            Order::Run(run) => {
                let began = clock::now();
                let (ends, items) = input.items(&run);
                let mut io = RunItems {
                    memory,
                    run: &run,
                    ends,
                    items,
                    start: run.head.start,
                    next: 0,
                    output: &mut output,
                    scratch: &mut scratch,
                };
                io.run();
                let ran = io.next;
                memory.status().idle(0);
                input.finish(&run);
                if ran > 0 {
                    output.run_ended(run.position + ran - 1, clock::now() - began);
                }
            }
            Order::Large { function, position, timed, item } => {
                let began = clock::now();
                if memory.status().claim(position) {
                    let mut io = LargeItem {
                        memory,
                        position,
                        timed,
                        item: Some(item),
                        current: Vec::new(),
                        output: &mut output,
                        scratch: &mut scratch,
                    };
                    io.run(function);
                    memory.status().idle(0);
                    output.run_ended(position, clock::now() - began);
                }
            }
            Order::Resumed => output.control(Kind::Resumed, &[]),
            Order::Stop => leave(),
            Order::Setup(_) => broken_link(),
        }
        // A large result must not keep its memory forever.
        scratch.shrink_to(1 << 20);
    }
}

/// The items of a run, decoded and encoded in place in the rings.
struct RunItems<'a> {
    memory: &'a Memory,
    run: &'a Run,
    ends: &'a [u8],
    items: &'a [u8],
    /// The start of the next item, in the same unit as the `ends`.
    start: u32,
    /// Number of items begun so far.
    next: u32,
    output: &'a mut Output,
    scratch: &'a mut Vec<u8>,
}

impl RunItems<'_> {
    fn run(&mut self) {
        match &self.run.function {
            Ok(task) => task(self),
            Err(message) => {
                while self.next().is_some() {
                    self.failed(rejected(message));
                }
            }
        }
    }

    fn position(&self) -> u32 {
        self.run.position + self.next - 1
    }

    /// Wakes the agent if it asked for that. The last item is reported with the run's end.
    fn item_finished(&mut self) {
        if self.next < self.run.head.count {
            self.output.progress();
        }
    }
}

impl Items for RunItems<'_> {
    fn next(&mut self) -> Option<&[u8]> {
        let at = self.next as usize;
        let position = self.run.position + self.next;
        let status = self.memory.status();
        if self.next == self.run.head.count || !status.claim(position) {
            return None;
        }
        status.begin(0, position, if self.run.head.timed { clock::now() } else { 0 });
        item_token::set_position(position);
        self.next += 1;
        if self.next == self.run.head.count {
            self.output.hold();
        }
        let Some(end) = end_of(self.ends, at) else { broken_link() };
        let range = (self.start - self.run.head.start) as usize..end.wrapping_sub(self.run.head.start) as usize;
        self.start = end;
        let Some(item) = self.items.get(range) else { broken_link() };
        Some(item)
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        self.next().map(<[u8]>::to_vec)
    }

    fn room(&mut self) -> &mut [u8] {
        self.output.room()
    }

    fn scratch(&mut self) -> &mut Vec<u8> {
        self.scratch.clear();
        self.scratch
    }

    fn done(&mut self, result: Encoded, failed: bool) {
        match result {
            Encoded::InRoom(length) => self.output.done_in_room(self.position(), length, failed),
            Encoded::InScratch => self.output.done(self.position(), self.scratch, failed),
        }
        self.item_finished();
    }

    fn failed(&mut self, failure: Failure) {
        self.output.failed(self.position(), failure);
        self.item_finished();
    }
}

/// One large item in a buffer of its own.
struct LargeItem<'a> {
    memory: &'a Memory,
    position: u32,
    timed: bool,
    item: Option<Vec<u8>>,
    current: Vec<u8>,
    output: &'a mut Output,
    scratch: &'a mut Vec<u8>,
}

impl LargeItem<'_> {
    fn run(&mut self, function: FoundTask) {
        match function {
            Ok(task) => task(self),
            Err(message) => self.failed(rejected(&message)),
        }
    }
}

impl Items for LargeItem<'_> {
    fn next(&mut self) -> Option<&[u8]> {
        self.current = self.take()?;
        Some(&self.current)
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let item = self.item.take()?;
        self.memory.status().begin(0, self.position, if self.timed { clock::now() } else { 0 });
        item_token::set_position(self.position);
        Some(item)
    }

    fn room(&mut self) -> &mut [u8] {
        self.output.room()
    }

    fn scratch(&mut self) -> &mut Vec<u8> {
        self.scratch.clear();
        self.scratch
    }

    fn done(&mut self, result: Encoded, failed: bool) {
        match result {
            Encoded::InRoom(length) => self.output.done_in_room(self.position, length, failed),
            Encoded::InScratch => self.output.done(self.position, self.scratch, failed),
        }
    }

    fn failed(&mut self, failure: Failure) {
        self.output.failed(self.position, failure);
    }
}
