//! The program that the agent starts: a fork server whose workers are processes that carry out their items'
//! instructions.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farpool_link::message::{ROLE_VARIABLE, ROLE_WORKER, Reply, Request};
use farpool_link::record::{HEADER_BYTES, Header, Kind, LargeHeader, RunHeader};
use farpool_link::sealed::{self, Mapping, Received};
use farpool_link::{Direction, Memory, Reader, Writer};
use nix::sys::signal::{Signal, killpg};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};
use nix::unistd::Pid;

use crate::pools::claims;

/// Serves until the agent closes the connection, or behaves as its first argument says.
pub(crate) fn serve() {
    match std::env::args().nth(1).as_deref() {
        Some(sick) if sick.starts_with("forks-nothing:") => return fork_nothing(&sick["forks-nothing:".len()..]),
        Some("hangs") => loop {
            std::thread::park();
        },
        Some("complains") => {
            eprint!("complains: cannot load libx.so: it is not there");
            std::process::exit(127);
        }
        _ => {}
    }
    fork();
}

/// Runs workers as processes.
fn fork() {
    // As in a real fork server, orphans become children of this process.
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let agent = Arc::new(stdin());
    Reply::Hello.send(agent.as_fd()).expect("the agent listens");
    let workers = Arc::new(Mutex::new(HashMap::<u32, Pid>::new()));
    while let Ok(Some((request, fds))) = Request::receive(agent.as_fd()) {
        match request {
            Request::Spawn { worker } => spawn(&agent, &workers, worker, &fds),
            Request::Kill { worker, signal } => {
                if let Some(pid) = workers.lock().unwrap().get(&worker) {
                    let _ = killpg(*pid, Signal::try_from(signal).expect("a signal"));
                }
            }
            Request::Clear if std::env::args().nth(1).as_deref() == Some("ignores-clear") => {}
            Request::Clear => Reply::Cleared.send(agent.as_fd()).expect("the agent listens"),
        }
    }
    for pid in workers.lock().unwrap().values() {
        let _ = killpg(*pid, Signal::SIGKILL);
    }
    // The threads that wait for them may be cut short: init reaps the rest.
}

/// Ends as soon as a worker is requested, while this file exists.
fn fork_nothing(file: &str) {
    if !fs::exists(file).unwrap() {
        return fork();
    }
    record_try(file);
    let agent = stdin();
    Reply::Hello.send(agent.as_fd()).expect("the agent listens");
    let _ = Request::receive(agent.as_fd());
}

/// Records an attempt in the file.
fn record_try(file: &str) {
    fs::OpenOptions::new().append(true).open(file).and_then(|mut file| file.write_all(b".")).expect("the file exists");
}

fn spawn(agent: &Arc<OwnedFd>, workers: &Arc<Mutex<HashMap<u32, Pid>>>, worker: u32, fds: &[OwnedFd]) {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let mut child = Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .env(ROLE_VARIABLE, ROLE_WORKER)
        .stdin(theirs)
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("this program can be started again");
    let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    Request::Spawn { worker }.send(ours.as_fd(), &raw).expect("the worker has its socket");
    workers.lock().unwrap().insert(worker, Pid::from_raw(child.id().cast_signed()));
    let _ = Reply::Spawned { worker, pid: child.id() }.send(agent.as_fd());
    let (agent, workers) = (Arc::clone(agent), Arc::clone(workers));
    std::thread::spawn(move || {
        let status = child.wait().expect("the process is a child of this one").into_raw();
        workers.lock().unwrap().remove(&worker);
        let _ = Reply::Exited { worker, status }.send(agent.as_fd());
    });
}

/// The socket that is this process's stdin.
fn stdin() -> OwnedFd {
    let fd = nix::fcntl::fcntl(std::io::stdin(), nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(3)).unwrap();
    // SAFETY: fcntl has just made this descriptor.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Works until the agent sends Stop or is gone.
pub(crate) fn work() {
    let Ok(Some((_, fds))) = Request::receive(stdin().as_fd()) else { return };
    // Dies at its start while a file exists.
    if let Some(file) = std::env::args().nth(1).as_deref().and_then(|does| does.strip_prefix("sick:"))
        && fs::exists(file).unwrap()
    {
        record_try(file);
        std::process::exit(3);
    }
    let [memory, socket, stdout, stderr] = <[OwnedFd; 4]>::try_from(fds).expect("a worker gets four descriptors");
    nix::unistd::dup2_stdout(&stdout).unwrap();
    nix::unistd::dup2_stderr(&stderr).unwrap();
    drop((stdout, stderr));
    let memory = Arc::new(Memory::open(memory.as_fd()).expect("the memory can be mapped"));
    let input = Reader::new(Arc::clone(&memory), Direction::ToWorker);
    let output = Writer::new(Arc::clone(&memory), Direction::ToAgent);
    Worker {
        memory,
        socket,
        input,
        output,
        finished: 0,
        has_large_function: false,
        files: VecDeque::new(),
        shared: Vec::new(),
    }
    .work();
}

/// Delays its exit if configured to.
fn linger() {
    if std::env::args().nth(1).as_deref() == Some("lingers") {
        std::thread::sleep(Duration::from_secs(10));
    }
}

struct Worker {
    memory: Arc<Memory>,
    socket: OwnedFd,
    input: Reader,
    output: Writer,
    finished: u64,
    has_large_function: bool,
    /// Files that have arrived.
    files: VecDeque<OwnedFd>,
    /// The bytes of all shared values that have arrived.
    shared: Vec<u8>,
}

impl Worker {
    fn work(mut self) {
        while let Some((kind, position, payload)) = self.next() {
            match kind {
                Kind::Setup => self.write(Kind::Ready, 0, &std::process::id().to_le_bytes()),
                Kind::Resume => {
                    self.memory.status().resume();
                    self.write(Kind::Resumed, 0, &[]);
                }
                Kind::Run => self.run(position, &payload),
                Kind::Large => {
                    let item = self.pieces(&payload);
                    self.run_one(position, &String::from_utf8(item).expect("items are text"));
                    self.memory.status().idle(0);
                    self.write(Kind::RunEnd, position, &1_000_000_u64.to_le_bytes());
                }
                Kind::LargeFunction => {
                    print(std::io::stderr(), "learns\n");
                    let function = self.file(&payload);
                    assert!(*function == vec![1; function.len()]);
                    self.has_large_function = true;
                }
                Kind::Shared => {
                    let value = self.file(&payload);
                    self.shared.extend_from_slice(&value);
                }
                Kind::Forget if std::mem::take(&mut self.has_large_function) => {
                    print(std::io::stderr(), "forgets\n");
                }
                Kind::Piece => panic!("the piece of nothing"),
                Kind::Stop => return linger(),
                _ => {}
            }
        }
    }

    /// Reads the pieces of what this header announces.
    fn pieces(&mut self, head: &[u8]) -> Vec<u8> {
        let head = LargeHeader::read(head).expect("the agent writes headers");
        let mut all = Vec::new();
        while (all.len() as u64) < head.length {
            let (kind, _, piece) = self.next().expect("the agent writes all pieces");
            assert_eq!(kind, Kind::Piece, "between the pieces");
            all.extend(piece);
        }
        all
    }

    /// Maps the file that this header announces.
    fn file(&mut self, head: &[u8]) -> Mapping {
        let head = LargeHeader::read(head).expect("the agent writes headers");
        while self.files.is_empty() && self.listen() {}
        let file = self.files.pop_front().expect("one has arrived");
        Mapping::open(file.as_fd(), usize::try_from(head.length).expect("a size")).expect("the file is sealed")
    }

    /// Waits for the agent. Returns false if it has gone.
    fn listen(&mut self) -> bool {
        match sealed::receive(self.socket.as_fd()) {
            Ok(Received::File(file)) => self.files.push_back(file.expect("few files are open")),
            Ok(Received::Wake) => {}
            Ok(Received::End) | Err(_) => return false,
        }
        true
    }

    /// Runs an item, unless it was taken back. Returns whether it ran.
    fn run_one(&mut self, position: u32, item: &str) -> bool {
        if !self.memory.status().claim(position) {
            return false;
        }
        self.memory.status().begin(0, position, 0);
        let result = self.perform(item);
        self.finished += 1;
        self.write(Kind::Ok, position, result.as_bytes());
        true
    }

    fn run(&mut self, position: u32, payload: &[u8]) {
        let (head, rest) = RunHeader::read(payload).expect("the agent writes runs");
        let (ends, items) = rest.split_at(4 * head.count as usize);
        let mut start = 0;
        let mut last = None;
        for at in 0..head.count {
            let end = u32::from_le_bytes(ends[4 * at as usize..][..4].try_into().unwrap()) - head.start;
            let item = String::from_utf8(items[start..end as usize].to_vec()).expect("items are text");
            start = end as usize;
            if !self.run_one(position + at, &item) {
                break;
            }
            last = Some(position + at);
        }
        self.memory.status().idle(0);
        if let Some(last) = last {
            self.write(Kind::RunEnd, last, &1_000_000_u64.to_le_bytes());
        }
    }

    /// Carries out an item's instruction.
    fn perform(&self, item: &str) -> String {
        let (verb, rest) = item.split_once(' ').unwrap_or((item, ""));
        match verb {
            "echo" => rest.to_owned(),
            "length" => rest.len().to_string(),
            "pid" => std::process::id().to_string(),
            "shared" => self.shared.iter().map(|byte| u64::from(*byte)).sum::<u64>().to_string(),
            "parent" => std::os::unix::process::parent_id().to_string(),
            "environment" => std::env::vars().map(|(name, value)| format!("{name}={value}\n")).collect(),
            "directory" => std::env::current_dir().unwrap().display().to_string(),
            "out" => print(std::io::stdout(), rest),
            "err" => print(std::io::stderr(), rest),
            "flood" => print(std::io::stdout(), &"a line of sixteen\n".repeat(rest.parse().unwrap())),
            "sleep" => {
                std::thread::sleep(Duration::from_millis(rest.parse().unwrap()));
                String::new()
            }
            // Prints that it runs, and waits at a gate.
            "hear" => {
                print(std::io::stdout(), "listening\n");
                wait_for_gate(rest)
            }
            // Does the same, but lends its slot.
            "lend" => {
                self.memory.status().begin_waiting();
                self.ring();
                print(std::io::stdout(), "lending\n");
                let read = wait_for_gate(rest);
                self.memory.status().end_waiting();
                self.ring();
                read
            }
            // Carries out the rest as one of two threads. The other one has written the outcome of the first item, and
            // has not recorded yet that it runs nothing.
            "beside" => {
                self.memory.status().begin(1, 0, 0);
                self.perform(rest)
            }
            // From now on, makes its items' tokens from this secret; then carries out the rest of the instruction.
            "secret" => {
                let (secret, then) = rest.split_once(' ').unwrap();
                self.memory.status().set_item_secret(secret.parse().unwrap());
                self.perform(then)
            }
            "both" => {
                let (lends, waits) = rest.split_once(' ').unwrap();
                self.perform(&format!("lend {lends}")) + &self.perform(&format!("hear {waits}"))
            }
            // Waits at a gate first.
            "after" => {
                let (gate, then) = rest.split_once(' ').unwrap();
                self.perform(&format!("hear {gate}")) + &self.perform(then)
            }
            "program" | "programs" => claims::start_all(rest),
            "orphan" => claims::start_orphan(rest),
            "exit" => std::process::exit(rest.parse().unwrap()),
            other => panic!("unknown instruction {other:?}"),
        }
    }

    fn next(&mut self) -> Option<(Kind, u32, Vec<u8>)> {
        loop {
            if self.input.available(HEADER_BYTES).ok()? >= HEADER_BYTES {
                let header = Header::read(&self.input.copy::<HEADER_BYTES>(0)?).expect("the agent writes records");
                let record = HEADER_BYTES + header.length as usize;
                self.input.available(record).ok()?;
                let mut payload = Vec::new();
                self.input.copy_into(HEADER_BYTES, header.length as usize, &mut payload)?;
                self.input.consume(record);
                self.input.publish();
                if self.memory.status().room_to_worker_is_wanted() {
                    self.ring();
                }
                return Some((header.kind, header.position, payload));
            }
            self.memory.status().worker_sleeps();
            if self.input.available(HEADER_BYTES).ok()? < HEADER_BYTES && !self.listen() {
                return None;
            }
        }
    }

    fn write(&mut self, kind: Kind, position: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a small payload");
        let mut record = vec![0; HEADER_BYTES];
        Header { length, kind, tag: 0, position }.write(&mut record);
        record.extend_from_slice(payload);
        while self.output.room(record.len()).expect("the agent keeps the protocol") < record.len() {
            std::thread::yield_now();
        }
        self.output.space()[..record.len()].copy_from_slice(&record);
        self.output.advance(record.len());
        self.output.publish();
        if self.memory.status().take_agent_sleep() {
            self.ring();
        }
    }

    fn ring(&self) {
        let _ = send(self.socket.as_raw_fd(), &[0], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
    }
}

fn print(mut to: impl Write, text: &str) -> String {
    to.write_all(text.as_bytes()).unwrap();
    to.flush().unwrap();
    String::new()
}

/// Waits until the gate with this named pipe opens. Returns what was read.
pub(crate) fn wait_for_gate(path: &str) -> String {
    let mut text = [0; 5];
    fs::File::open(path).and_then(|mut pipe| pipe.read_exact(&mut text)).expect("there is a named pipe");
    String::from_utf8_lossy(&text).into_owned()
}
