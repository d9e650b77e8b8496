//! The main loop of a worker that runs several items at once, each on its own thread.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farpool_link::Memory;
use farpool_link::clock;
use farpool_link::record::Kind;
use farpool_proto::v1::Failure;

use crate::input::{FoundTask, Input, Order};
use crate::items::{Encoded, Items, end_of, rejected};
use crate::leave::{self, leave};
use crate::output::Output;
use crate::{item_token, panics};

/// State that the threads of a worker share. A thread may hold a lock while it waits for the agent: the others have
/// nothing to do then either.
struct Shared {
    memory: Arc<Memory>,
    input: Mutex<Queue>,
    output: Mutex<Output>,
}

struct Queue {
    input: Input,
    /// Items of the last run that no thread has taken yet.
    items: VecDeque<Item>,
    /// Number of threads that run an item.
    busy: usize,
    stopping: bool,
}

struct Item {
    function: FoundTask,
    position: u32,
    timed: bool,
    bytes: Vec<u8>,
}

pub(crate) fn run(memory: &Arc<Memory>, input: Input, output: Output, count: usize, stack: usize) -> ! {
    let queue = Queue { input, items: VecDeque::new(), busy: 0, stopping: false };
    let shared = Arc::new(Shared { memory: Arc::clone(memory), input: Mutex::new(queue), output: Mutex::new(output) });
    for thread in 1..count {
        let shared = Arc::clone(&shared);
        let builder = std::thread::Builder::new().name(format!("farpool-{thread}")).stack_size(stack);
        let started = builder.spawn(move || {
            panics::this_thread_runs_tasks(Arc::clone(&shared.memory));
            work(&shared, thread)
        });
        if let Err(error) = started {
            eprintln!("farpool: a worker could start only {thread} of {count} threads: {error}");
            break;
        }
    }
    work(&shared, 0)
}

fn work(shared: &Shared, thread: usize) -> ! {
    let mut scratch = Vec::new();
    loop {
        let item = next_item(shared, thread);
        let began = clock::now();
        let position = item.position;
        let function = item.function;
        let mut io =
            ThreadItem { shared, position, item: Some(item.bytes), current: Vec::new(), scratch: &mut scratch };
        match function {
            Ok(task) => task(&mut io),
            Err(message) => io.failed(rejected(&message)),
        }
        shared.memory.status().idle(thread);
        lock(&shared.output).run_ended(position, clock::now() - began);
        lock(&shared.input).busy -= 1;
        scratch.shrink_to(1 << 20);
    }
}

/// Waits for an item, claims it and records that this thread begins it.
fn next_item(shared: &Shared, thread: usize) -> Item {
    let mut queue = lock(&shared.input);
    loop {
        if let Some(item) = queue.items.pop_front() {
            let status = shared.memory.status();
            if status.claim(item.position) {
                status.begin(thread, item.position, if item.timed { clock::now() } else { 0 });
                item_token::set_position(item.position);
                queue.busy += 1;
                return item;
            }
            continue;
        }
        if queue.stopping {
            if queue.busy == 0 {
                leave();
            }
            // The last busy thread will find the queue in this state and exit for all.
            drop(queue);
            loop {
                std::thread::park();
            }
        }
        queue.refill(shared);
    }
}

impl Queue {
    fn refill(&mut self, shared: &Shared) {
        match self.input.next() {
            Order::Run(run) => {
                let (ends, items) = self.input.items(&run);
                let mut start = 0;
                for at in 0..run.head.count {
                    let Some(end) = end_of(ends, at as usize).map(|end| end.wrapping_sub(run.head.start)) else {
                        leave::broken_link()
                    };
                    let Some(bytes) = items.get(start as usize..end as usize) else { leave::broken_link() };
                    let item = Item {
                        function: run.function.clone(),
                        position: run.position + at,
                        timed: run.head.timed,
                        bytes: bytes.to_vec(),
                    };
                    self.items.push_back(item);
                    start = end;
                }
                self.input.finish(&run);
            }
            Order::Large { function, position, timed, item } => {
                self.items.push_back(Item { function, position, timed, bytes: item })
            }
            Order::Resumed => lock(&shared.output).control(Kind::Resumed, &[]),
            Order::Stop => self.stopping = true,
            Order::Setup(_) => leave::broken_link(),
        }
    }
}

struct ThreadItem<'a> {
    shared: &'a Shared,
    position: u32,
    item: Option<Vec<u8>>,
    current: Vec<u8>,
    scratch: &'a mut Vec<u8>,
}

impl Items for ThreadItem<'_> {
    fn next(&mut self) -> Option<&[u8]> {
        self.current = self.take()?;
        Some(&self.current)
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        self.item.take()
    }

    fn room(&mut self) -> &mut [u8] {
        // The threads share the ring's room, so results are encoded elsewhere.
        &mut []
    }

    fn scratch(&mut self) -> &mut Vec<u8> {
        self.scratch.clear();
        self.scratch
    }

    fn done(&mut self, result: Encoded, failed: bool) {
        let result: &[u8] = match result {
            // The room has no bytes, so the result is empty, such as `()`.
            Encoded::InRoom(_) => &[],
            Encoded::InScratch => self.scratch,
        };
        lock(&self.shared.output).done(self.position, result, failed);
    }

    fn failed(&mut self, failure: Failure) {
        lock(&self.shared.output).failed(self.position, failure);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
