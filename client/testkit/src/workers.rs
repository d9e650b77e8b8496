//! A faulty program for agents: a fork server whose workers are threads, each of which misbehaves once.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use farpool_link::message::{Reply, Request};
use farpool_link::record::{HEADER_BYTES, Header, Kind, PIECE_BYTES, RunHeader};
use farpool_link::{Direction, Memory, RING_BYTES, Reader, Writer};
use farpool_proto::v1::Failure;
use nix::sys::socket::{MsgFlags, recv, send};
use prost::Message;

/// SIGKILL as a wait status.
const KILLED: i32 = 9;
/// Offset of the ring to the agent in the shared memory: after the status page and the other ring.
const TO_AGENT: u64 = (64 << 10) + RING_BYTES as u64;

/// Serves until the agent closes the connection.
pub fn serve(misbehaviour: &str) {
    let agent = std::io::stdin();
    if misbehaviour == "no-hello" {
        return;
    }
    Reply::Hello.send(agent.as_fd()).expect("the agent has closed its connection");
    let flood = match misbehaviour {
        "hello-flood" => Some(Reply::Hello),
        "unknown-workers-end-flood" => Some(Reply::Exited { worker: 4711, status: KILLED }),
        "cleared-flood" => Some(Reply::Cleared),
        "spawn-flood" => Some(Reply::Spawned { worker: 0, pid: 0 }),
        _ => None,
    };
    if let Some(reply) = flood {
        return std::thread::scope(|scope| {
            // More than the agent can read at once.
            for _ in 0..4 {
                scope.spawn(|| while reply.send(agent.as_fd()).is_ok() {});
            }
        });
    }
    let mut workers: HashMap<u32, Arc<AtomicBool>> = HashMap::new();
    let mut first = true;
    while let Ok(Some((request, fds))) = Request::receive(agent.as_fd()) {
        let replies = match request {
            Request::Spawn { worker } if misbehaviour == "spawn-fails" => {
                vec![Reply::SpawnFailed { worker, errno: 11 }]
            }
            Request::Spawn { worker } if misbehaviour == "exits-at-once" => {
                vec![Reply::Spawned { worker, pid: 1 }, Reply::Exited { worker, status: 3 << 8 }]
            }
            // The agent may kill only this process, not the pid that was reported.
            Request::Kill { .. } if misbehaviour.starts_with("names:") => return,
            Request::Kill { .. } if misbehaviour.starts_with("spares:") => Vec::new(),
            Request::Spawn { worker } => {
                let killed = Arc::new(AtomicBool::new(false));
                workers.insert(worker, Arc::clone(&killed));
                // In these cases only the first worker misbehaves, and the others finish the job.
                let every_time =
                    ["unbegun-then-unknown-record", "init-failed-garbled", "scribbles"].contains(&misbehaviour);
                let misbehaviour = if first || every_time { misbehaviour.to_owned() } else { "none".to_owned() };
                first = false;
                let spawned = Reply::Spawned { worker, pid: process_of(&misbehaviour) };
                std::thread::spawn(move || Worker::new(fds, killed).work(&misbehaviour));
                let nobody = Reply::Exited { worker: 4711, status: KILLED };
                if workers.len() == 1 { vec![nobody, spawned, nobody] } else { vec![spawned] }
            }
            Request::Kill { worker, .. } => match workers.remove(&worker) {
                Some(killed) => {
                    killed.store(true, Ordering::SeqCst);
                    vec![Reply::Exited { worker, status: KILLED }, Reply::Exited { worker, status: KILLED }]
                }
                None => Vec::new(),
            },
            Request::Clear => vec![Reply::Cleared],
        };
        for reply in replies {
            reply.send(agent.as_fd()).expect("the agent has closed its connection");
        }
    }
}

/// Returns the pid that is reported for a worker, which is really a thread.
fn process_of(misbehaviour: &str) -> u32 {
    match misbehaviour.split_once(':') {
        Some(("names", pid)) => pid.parse().expect("not a process id"),
        Some(("spares", seconds)) => Command::new("sleep").arg(seconds).spawn().expect("cannot run sleep").id(),
        _ => std::process::id(),
    }
}

struct Worker {
    memory: Arc<Memory>,
    file: Arc<OwnedFd>,
    socket: OwnedFd,
    input: Reader,
    output: Writer,
    finished: u64,
    killed: Arc<AtomicBool>,
}

impl Worker {
    fn new(fds: Vec<OwnedFd>, killed: Arc<AtomicBool>) -> Worker {
        let [file, socket, _stdout, _stderr] = <[OwnedFd; 4]>::try_from(fds).expect("not four descriptors");
        let memory = Arc::new(Memory::open(file.as_fd()).expect("cannot map the memory"));
        let input = Reader::new(Arc::clone(&memory), Direction::ToWorker);
        let output = Writer::new(Arc::clone(&memory), Direction::ToAgent);
        Worker { memory, file: Arc::new(file), socket, input, output, finished: 0, killed }
    }

    fn work(mut self, misbehaviour: &str) {
        let Some((Kind::Setup, ..)) = self.next() else { return };
        if misbehaviour == "init-failed-garbled" {
            return self.write(Kind::InitFailed, 0, &[0xff; 9]);
        }
        self.write(Kind::Ready, 0, &[]);
        while let Some((kind, position, payload)) = self.next() {
            if kind == Kind::Resume {
                self.memory.status().resume();
                self.write(Kind::Resumed, 0, &[]);
            }
            let Some((head, items)) = RunHeader::read(&payload).filter(|_| kind == Kind::Run) else { continue };
            if misbehaviour == "unbegun-then-unknown-record" {
                return self.raw(&[0xee; HEADER_BYTES]);
            }
            let before = self.finished;
            for item in 0..head.count {
                if !self.memory.status().claim(position + item) {
                    break;
                }
                self.memory.status().begin(0, position + item, 0);
                if self.misbehave(misbehaviour, position + item) {
                    return;
                }
                // The very first item, which has one byte.
                if misbehaviour.starts_with("spares:") && payload.len() == RunHeader::BYTES + 4 + 1 {
                    return self.raw(&[0xee; HEADER_BYTES]);
                }
                self.finished += 1;
                match misbehaviour.strip_prefix("results-of:") {
                    Some(bytes) => {
                        self.write(Kind::Ok, position + item, &vec![7; bytes.parse().expect("not a number")])
                    }
                    None => self.write(Kind::Ok, position + item, &items[4 * head.count as usize..]),
                }
            }
            self.memory.status().idle(0);
            if self.finished > before {
                self.write(Kind::RunEnd, position, &7_u64.to_le_bytes());
            }
        }
    }

    /// Misbehaves as named while the item at `position` runs; returns false if it did nothing.
    fn misbehave(&mut self, misbehaviour: &str, position: u32) -> bool {
        match misbehaviour {
            "unknown-record" => self.raw(&[0xee; HEADER_BYTES]),
            "record-longer-than-written" => {
                let mut header = [0; HEADER_BYTES];
                Header { length: 1000, kind: Kind::Ok, tag: 0, position }.write(&mut header);
                self.raw(&header);
            }
            "item-never-given" => self.write(Kind::Ok, position + 1000, b"?"),
            "item-twice" => {
                // The second item gets the wrong result, and the item after it is the victim.
                if position == 0 {
                    return false;
                }
                self.write(Kind::Ok, position - 1, b"?");
            }
            "failure-garbled" => self.write(Kind::Failed, position, &[0xff; 9]),
            "failure-of-no-kind" => self.write(Kind::Failed, position, &Failure::default().encode_to_vec()),
            "large-beyond-limit" => self.write(Kind::Large, position, &u64::MAX.to_le_bytes()),
            "piece-of-nothing" => self.write(Kind::Piece, position, b"piece"),
            "pieces-too-long" => {
                self.write(Kind::Large, position, &(PIECE_BYTES as u64 + 1).to_le_bytes());
                self.write(Kind::Piece, position, &vec![1; PIECE_BYTES]);
                self.write(Kind::Piece, position, &[1, 2]);
            }
            "pieces-of-nothing" => {
                self.write(Kind::Large, position, &8_u64.to_le_bytes());
                while !self.killed.load(Ordering::SeqCst) {
                    self.write(Kind::Piece, position, &[]);
                }
            }
            "ready-again" => self.write(Kind::Ready, position, &[]),
            "resumed-unasked" => self.write(Kind::Resumed, position, &[]),
            "run-end-of-nothing" => self.write(Kind::RunEnd, position, &u64::MAX.to_le_bytes()),
            "init-failed-late" => {
                let failure = Failure { kind: 10, ..Failure::default() };
                self.write(Kind::InitFailed, position, &failure.encode_to_vec());
            }
            "times-beyond-reason" => {
                // Two results of one run, each with a huge duration.
                for item in [position, position + 1] {
                    self.memory.status().claim(item);
                    self.finished += 1;
                    self.write(Kind::Ok, item, b"?");
                    self.write(Kind::RunEnd, item, &u64::MAX.to_le_bytes());
                }
                self.raw(&[0xee; HEADER_BYTES]);
            }
            "scribbles" => self.scribble(position),
            "run-end-garbled" => self.write(Kind::RunEnd, position, b"soon"),
            "order-sent-back" => self.write(Kind::Stop, position, &[]),
            // Announces a result of this many bytes, and sends none.
            _ if misbehaviour.starts_with("announces:") => {
                let bytes: u64 = misbehaviour["announces:".len()..].parse().expect("not a number");
                self.write(Kind::Large, position, &bytes.to_le_bytes());
                self.raw(&[0xee; HEADER_BYTES]);
            }
            // The item runs until the test has opened this pipe for writing and closed it again.
            _ => {
                let pipe = misbehaviour.strip_prefix("until-written:");
                pipe.map(std::fs::read).transpose().expect("cannot open the pipe");
                return false;
            }
        }
        true
    }

    /// Writes failures and results while another thread overwrites them and the status page; then writes garbage until it is
    /// killed for that.
    fn scribble(&mut self, position: u32) {
        let (done, file, seed) = (AtomicBool::new(false), Arc::clone(&self.file), u64::from(position));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                let mut below = |end: u64| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    (random >> 16) % end
                };
                while !done.load(Ordering::SeqCst) {
                    let bytes: Vec<u8> = (0..=below(9)).map(|_| below(256).to_le_bytes()[0]).collect();
                    // What the agent reads: mostly the records, sometimes the status page.
                    let at = if below(50) == 0 { below(1 << 10) } else { TO_AGENT + below(16 << 10) };
                    nix::sys::uio::pwrite(&file, &bytes, i64::try_from(at).expect("the number is too large"))
                        .expect("cannot write the file");
                }
            });
            let failure = Failure { kind: 1, message: "m".repeat(300), pid: 300, ..Failure::default() }.encode_to_vec();
            for round in 0..200 {
                if self.killed.load(Ordering::SeqCst) {
                    break;
                }
                let kinds = [Kind::Failed, Kind::Ok, Kind::RunEnd, Kind::InitFailed, Kind::Large, Kind::Piece];
                let mut record = vec![0; HEADER_BYTES];
                let length = u32::try_from(failure.len()).expect("too many bytes");
                Header { length, kind: kinds[round % 6], tag: 0, position }.write(&mut record);
                record.extend_from_slice(&failure);
                // The room may be wrong by now.
                if self.output.room(record.len()).is_ok_and(|room| room >= record.len()) {
                    self.output.space()[..record.len()].copy_from_slice(&record);
                    self.output.advance(record.len());
                }
                self.output.publish();
                self.ring();
            }
            done.store(true, Ordering::SeqCst);
        });
        while !self.killed.load(Ordering::SeqCst) {
            if self.output.room(HEADER_BYTES).is_ok_and(|room| room >= HEADER_BYTES) {
                self.output.space()[..HEADER_BYTES].copy_from_slice(&[0xee; HEADER_BYTES]);
                self.output.advance(HEADER_BYTES);
            }
            self.output.publish();
            self.ring();
            std::thread::yield_now();
        }
    }

    /// Returns the next record; `None` if this worker was killed or the agent has gone.
    fn next(&mut self) -> Option<(Kind, u32, Vec<u8>)> {
        loop {
            if self.input.available(HEADER_BYTES).ok()? >= HEADER_BYTES {
                let header =
                    Header::read(&self.input.copy::<HEADER_BYTES>(0)?).expect("the agent wrote an invalid record");
                let record = HEADER_BYTES + header.length as usize;
                self.input.available(record).ok()?;
                let mut payload = Vec::new();
                self.input.copy_into(HEADER_BYTES, header.length as usize, &mut payload)?;
                self.input.consume(record);
                self.input.publish();
                return Some((header.kind, header.position, payload));
            }
            self.memory.status().worker_sleeps();
            if self.input.available(HEADER_BYTES).ok()? < HEADER_BYTES
                && recv(self.socket.as_raw_fd(), &mut [0; 16], MsgFlags::empty()).ok()? == 0
            {
                return None;
            }
            if self.killed.load(Ordering::SeqCst) {
                return None;
            }
        }
    }

    fn write(&mut self, kind: Kind, position: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("the payload is too large");
        let mut record = vec![0; HEADER_BYTES];
        Header { length, kind, tag: 0, position }.write(&mut record);
        record.extend_from_slice(payload);
        self.raw(&record);
    }

    fn raw(&mut self, bytes: &[u8]) {
        while !self.has_room(bytes.len()) {
            self.memory.status().worker_sleeps();
            self.memory.status().want_room_to_agent();
            if self.memory.status().take_agent_sleep() {
                self.ring();
            }
            if !self.has_room(bytes.len()) {
                let _ = recv(self.socket.as_raw_fd(), &mut [0; 16], MsgFlags::empty());
            }
        }
        self.output.space()[..bytes.len()].copy_from_slice(bytes);
        self.output.advance(bytes.len());
        self.output.publish();
        if self.memory.status().take_agent_sleep() {
            self.ring();
        }
    }

    fn has_room(&mut self, bytes: usize) -> bool {
        self.output.room(bytes).expect("the agent violated the protocol") >= bytes
    }

    fn ring(&self) {
        let _ = send(self.socket.as_raw_fd(), &[0], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
    }
}
