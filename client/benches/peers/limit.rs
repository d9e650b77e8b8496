//! The limit of the machine: the least code for a workload, over socketpairs or TCP between forked processes.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};

use crate::side::{Measures, Values};
use crate::stream;
use crate::tasks::{self, MIB};

/// Bytes of a task, and of a result.
const MESSAGE: usize = 32;
/// Bytes that are read or written at once.
const BUFFER: usize = 64 << 10;
const ROUND_TRIPS: usize = 5000;
/// Round trips before the measured ones.
const WARM_UP: usize = 500;
const ROUND_TRIP_BYTES: usize = 100;

/// The transport between processes.
#[derive(Clone, Copy)]
pub(crate) enum Transport {
    Socketpair,
    Tcp,
}

impl Transport {
    fn pair(self) -> [File; 2] {
        let pair: [OwnedFd; 2] = match self {
            Transport::Socketpair => {
                <[UnixStream; 2]>::from(UnixStream::pair().expect("cannot create a socketpair")).map(OwnedFd::from)
            }
            Transport::Tcp => tcp_pair().expect("cannot connect on loopback").map(OwnedFd::from),
        };
        pair.map(File::from)
    }
}

fn tcp_pair() -> std::io::Result<[TcpStream; 2]> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let ours = TcpStream::connect(listener.local_addr()?)?;
    let (theirs, _) = listener.accept()?;
    ours.set_nodelay(true)?;
    theirs.set_nodelay(true)?;
    Ok([ours, theirs])
}

pub(crate) struct Side {
    workload: String,
    transport: Transport,
}

impl Side {
    pub(crate) fn new(workload: &str, transport: Transport) -> Side {
        Side { workload: workload.to_owned(), transport }
    }
}

impl Measures for Side {
    fn prepare(&mut self) {
        drop(self.run());
    }

    fn run(&mut self) -> Values {
        let over = self.transport;
        match self.workload.as_str() {
            "W1" => vec![least_pool(over, 200_000, 16)],
            "W2" | "W2c" => vec![least_pool(over, 1_000_000, 256)],
            "W3" | "W3awake" => match over {
                Transport::Socketpair => {
                    let (apart, together) = (round_trips(over, 0, 1), round_trips(over, 0, 0));
                    vec![apart[ROUND_TRIPS / 2], apart[ROUND_TRIPS * 99 / 100], together[ROUND_TRIPS / 2]]
                }
                Transport::Tcp => way_of_a_call(),
            },
            "W5a" | "W5r" => vec![bandwidth(over, 2000)],
            "W6" => vec![greedy(false)],
            "W6s" => vec![greedy(true)],
            // Its memory use is meaningless.
            "W8" => vec![first_result(over), f64::NAN],
            unknown => panic!("{unknown} has no limit"),
        }
    }
}

/// Pins this process to a core, if that core exists, until the returned value is dropped.
pub(crate) fn pin(core: usize) -> Pinned {
    // SAFETY: a set of cores is an array of bits, for which zero is valid.
    let (mut before, mut set): (libc::cpu_set_t, libc::cpu_set_t) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    // SAFETY: CPU_SET checks that the bit lies in the set.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the kernel writes and reads sets of the given size. An error means that there is no such core.
    unsafe {
        libc::sched_getaffinity(0, size_of_val(&before), &raw mut before);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
    }
    Pinned { before }
}

pub(crate) struct Pinned {
    before: libc::cpu_set_t,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: the kernel reads a set of the given size, which it has filled itself.
        unsafe { libc::sched_setaffinity(0, size_of_val(&self.before), &raw const self.before) };
    }
}

/// A forked process at the other end of a socket. Dropping this kills it.
struct Forked {
    socket: File,
    pid: Pid,
}

impl Forked {
    fn new(over: Transport, run: impl FnOnce(File)) -> Forked {
        let [ours, theirs] = over.pair();
        // SAFETY: this process has only one thread here, so its child may do everything that it may.
        match unsafe { fork() }.expect("cannot fork a process") {
            ForkResult::Parent { child } => Forked { socket: ours, pid: child },
            ForkResult::Child => {
                drop(ours);
                run(theirs);
                // SAFETY: _exit(2) may be called at any time. The parent's exit handlers and buffers must not run or be written
                // twice.
                unsafe { libc::_exit(0) }
            }
        }
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        // Processes forked later may hold copies of its socket, so closing is not enough.
        let _ = nix::sys::signal::kill(self.pid, nix::sys::signal::Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}

/// Sends back all complete messages.
fn echo(mut socket: File) {
    let mut buffer = vec![0; BUFFER];
    let mut held = 0;
    while let Ok(read) = socket.read(&mut buffer[held..]) {
        held += read;
        let whole = held / MESSAGE * MESSAGE;
        if read == 0 || socket.write_all(&buffer[..whole]).is_err() {
            return;
        }
        buffer.copy_within(whole..held, 0);
        held -= whole;
    }
}

/// Measures two workers with this many tasks in flight each, where everything available is read and written at once. Returns
/// tasks per second.
fn least_pool(over: Transport, tasks: usize, in_flight: usize) -> f64 {
    let mut workers = [Worker::new(over), Worker::new(over)];
    let (mut given, mut done) = (0, 0);
    let mut buffer = vec![0; BUFFER];
    let start = Instant::now();
    for worker in &mut workers {
        given += worker.give(in_flight.min(tasks - given));
    }
    while done < tasks {
        let mut ready = workers.each_ref().map(|worker| PollFd::new(worker.process.socket.as_fd(), PollFlags::POLLIN));
        poll(&mut ready, PollTimeout::NONE).expect("cannot wait for sockets");
        let ready = ready.map(|fd| fd.any().unwrap_or(false));
        for (worker, _) in workers.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            let finished = worker.collect(&mut buffer);
            done += finished;
            given += worker.give(finished.min(tasks - given));
        }
    }
    tasks as f64 / start.elapsed().as_secs_f64()
}

struct Worker {
    process: Forked,
    /// Bytes of an incomplete result.
    partial: usize,
    tasks: Vec<u8>,
}

impl Worker {
    fn new(over: Transport) -> Worker {
        Worker { process: Forked::new(over, echo), partial: 0, tasks: Vec::new() }
    }

    fn give(&mut self, count: usize) -> usize {
        self.tasks.clear();
        for task in 0..count {
            let mut message = [0; MESSAGE];
            message[..8].copy_from_slice(&task.to_le_bytes());
            self.tasks.extend_from_slice(&message);
        }
        self.process.socket.write_all(&self.tasks).expect("the worker has closed its connection");
        count
    }

    fn collect(&mut self, buffer: &mut [u8]) -> usize {
        let bytes = self.process.socket.read(buffer).expect("the worker did not answer") + self.partial;
        self.partial = bytes % MESSAGE;
        bytes / MESSAGE
    }
}

/// Measures the least time that a call on a cluster can take: two round trips of a stream (from client to coordinator to agent,
/// and back), and one over a socketpair (from agent to worker, and back). Returns p50 and p99 on two cores, p50 on one core, and
/// the parts.
fn way_of_a_call() -> Values {
    let [stream, socketpair] = [streamed(0, 1), round_trips(Transport::Socketpair, 0, 1)];
    let [stream_on_one, socketpair_on_one] = [streamed(0, 0), round_trips(Transport::Socketpair, 0, 0)];
    let at = |share: usize| (stream[ROUND_TRIPS * share / 100], socketpair[ROUND_TRIPS * share / 100]);
    let sum = |(stream, socketpair): (f64, f64)| 2.0 * stream + socketpair;
    let on_one_core = sum((stream_on_one[ROUND_TRIPS / 2], socketpair_on_one[ROUND_TRIPS / 2]));
    vec![sum(at(50)), sum(at(99)), on_one_core, f64::NAN, at(50).0, at(50).1]
}

/// Measures round trips of [`ROUND_TRIP_BYTES`] over a bare gRPC stream between two processes on these cores. Returns sorted
/// microseconds.
fn streamed(ours: usize, theirs: usize) -> Vec<f64> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("no free port");
    let port = listener.local_addr().expect("the listener has no address").port();
    let _server = Forked::new(Transport::Socketpair, |_| {
        let _pinned = pin(theirs);
        stream::serve(listener);
    });
    let _pinned = pin(ours);
    let mut times = stream::round_trips(port, ROUND_TRIP_BYTES, WARM_UP, ROUND_TRIPS);
    times.sort_by(f64::total_cmp);
    times
}

/// Measures round trips of [`ROUND_TRIP_BYTES`] between two processes on these cores. Returns sorted microseconds.
fn round_trips(over: Transport, ours: usize, theirs: usize) -> Vec<f64> {
    let mut other = Forked::new(over, |mut socket| {
        let _pinned = pin(theirs);
        let mut message = [0; ROUND_TRIP_BYTES];
        while socket.read_exact(&mut message).and_then(|()| socket.write_all(&message)).is_ok() {}
    });
    let _pinned = pin(ours);
    let mut message = [7; ROUND_TRIP_BYTES];
    let mut one = || {
        let start = Instant::now();
        other.socket.write_all(&message).expect("the other end has closed its connection");
        other.socket.read_exact(&mut message).expect("the other end did not answer");
        start.elapsed().as_secs_f64() * 1e6
    };
    for _ in 0..WARM_UP {
        one();
    }
    let mut times: Vec<f64> = (0..ROUND_TRIPS).map(|_| one()).collect();
    times.sort_by(f64::total_cmp);
    times
}

/// Returns how many messages of 1 MiB pass in one direction per second.
fn bandwidth(over: Transport, messages: usize) -> f64 {
    let mut other = Forked::new(over, move |mut socket| {
        let mut buffer = vec![0; MIB];
        (0..messages).for_each(|_| socket.read_exact(&mut buffer).expect("no message arrived"));
        socket.write_all(&[0]).expect("the sender has closed its connection");
    });
    let message = vec![1; MIB];
    let start = Instant::now();
    for _ in 0..messages {
        other.socket.write_all(&message).expect("the other end has closed its connection");
    }
    other.socket.read_exact(&mut [0]).expect("the other end did not answer");
    messages as f64 / start.elapsed().as_secs_f64()
}

/// Eight threads each take the next sleep as soon as they are free. Returns milliseconds. No pool that starts items in order can
/// be faster.
fn greedy(ascending: bool) -> f64 {
    let sleeps = tasks::sleeps(ascending);
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(sleep) = sleeps.get(next.fetch_add(1, Ordering::Relaxed)) {
                    std::thread::sleep(Duration::from_secs_f64(*sleep));
                }
            });
        }
    });
    start.elapsed().as_secs_f64() * 1e3
}

/// Returns the milliseconds from forking two workers to the first one's answer.
fn first_result(over: Transport) -> f64 {
    let start = Instant::now();
    let mut workers = [Forked::new(over, echo), Forked::new(over, echo)];
    let mut message = [0; MESSAGE];
    workers[0].socket.write_all(&message).expect("the worker has closed its connection");
    workers[0].socket.read_exact(&mut message).expect("the worker did not answer");
    start.elapsed().as_secs_f64() * 1e3
}
