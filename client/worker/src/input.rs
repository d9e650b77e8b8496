//! Reads functions, items and orders in a worker, in the order in which the agent wrote them.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::Arc;

use bytes::Bytes;
use farpool_link::record::{HEADER_BYTES, Header, Kind, LargeHeader, RunHeader};
use farpool_link::sealed::Mapping;
use farpool_link::{Direction, Memory, RING_BYTES, Reader};
use nix::errno::Errno;

use crate::bell::Bell;
use crate::language::{Language, Task};
use crate::leave;
use crate::shared::{self, Key};

/// A function, or why it was not found.
pub(crate) type FoundTask = Result<Task, Arc<str>>;

pub(crate) struct Input {
    language: &'static dyn Language,
    reader: Reader,
    bell: Arc<Bell>,
    memory: Arc<Memory>,
    functions: Vec<Option<FoundTask>>,
    /// The keys of the shared values, by the agent's numbers.
    shared: BTreeMap<u32, Key>,
}

/// The next order for a worker.
pub(crate) enum Order {
    /// Run the items of the front record; then call [`Input::finish`].
    Run(Run),
    /// Run this item.
    Large { function: FoundTask, position: u32, timed: bool, item: Vec<u8> },
    /// Tell the agent that the worker has passed all revoked items.
    Resumed,
    /// The pool's settings (protobuf).
    Setup(Vec<u8>),
    /// Exit.
    Stop,
}

/// Consecutive items in the front record of the ring.
pub(crate) struct Run {
    pub(crate) function: FoundTask,
    /// Position of the first item.
    pub(crate) position: u32,
    pub(crate) head: RunHeader,
    /// Size of the whole record.
    record: usize,
}

impl Input {
    pub(crate) fn new(memory: Arc<Memory>, bell: Arc<Bell>, language: &'static dyn Language) -> Input {
        let reader = Reader::new(Arc::clone(&memory), Direction::ToWorker);
        Input { language, reader, bell, memory, functions: Vec::new(), shared: BTreeMap::new() }
    }

    /// Waits for the next order.
    pub(crate) fn next(&mut self) -> Order {
        loop {
            let header = self.header();
            let payload = &front(&self.reader)[HEADER_BYTES..HEADER_BYTES + header.length as usize];
            match header.kind {
                Kind::Run => {
                    let Some((head, _)) = RunHeader::read(payload) else { leave::broken_link() };
                    let record = HEADER_BYTES + header.length as usize;
                    let run = Run { function: self.function(header.tag), position: header.position, head, record };
                    self.check(&run);
                    return Order::Run(run);
                }
                Kind::Large => {
                    let Some(large) = LargeHeader::read(payload) else { leave::broken_link() };
                    self.take(header);
                    let item = self.pieces(large.length);
                    return Order::Large {
                        function: self.function(header.tag),
                        position: header.position,
                        timed: large.timed,
                        item,
                    };
                }
                Kind::Function => {
                    let found = self.language.find(Bytes::copy_from_slice(payload)).map_err(Arc::from);
                    self.take(header);
                    self.remember(header.tag, found);
                }
                Kind::LargeFunction => {
                    let Some(large) = LargeHeader::read(payload) else { leave::broken_link() };
                    self.take(header);
                    let found = self.file(large.length).and_then(|bytes| self.language.find(Bytes::from_owner(bytes)));
                    self.remember(header.tag, found.map_err(Arc::from));
                }
                Kind::Shared if header.length as usize != LargeHeader::BYTES => {
                    let reason = String::from_utf8_lossy(payload).into_owned();
                    self.take(header);
                    shared::remember(Err(reason));
                }
                Kind::Shared => {
                    let Some(large) = LargeHeader::read(payload) else { leave::broken_link() };
                    self.take(header);
                    if let Some(key) = shared::remember(self.file(large.length)) {
                        // If there was no room for Forget, the next value with its number replaces it.
                        let replaced = self.shared.insert(header.tag, key);
                        self.forget_shared(replaced);
                    }
                }
                Kind::Forget => {
                    if let Some(function) = self.functions.get_mut(header.tag as usize) {
                        *function = None;
                    }
                    let ended = self.shared.remove(&header.tag);
                    self.forget_shared(ended);
                    self.take(header);
                }
                Kind::Resume => {
                    self.memory.status().resume();
                    self.take(header);
                    return Order::Resumed;
                }
                Kind::Setup => {
                    let settings = payload.to_vec();
                    self.take(header);
                    return Order::Setup(settings);
                }
                Kind::LargeSetup => {
                    let Some(large) = LargeHeader::read(payload) else { leave::broken_link() };
                    self.take(header);
                    return Order::Setup(self.pieces(large.length));
                }
                Kind::Stop => return Order::Stop,
                _ => leave::broken_link(),
            }
        }
    }

    /// Returns the `ends` of a run and its items' bytes.
    pub(crate) fn items(&self, run: &Run) -> (&[u8], &[u8]) {
        let payload = &front(&self.reader)[HEADER_BYTES..run.record];
        payload[RunHeader::BYTES..].split_at(4 * run.head.count as usize)
    }

    /// Releases the record of a finished run.
    pub(crate) fn finish(&mut self, run: &Run) {
        self.consume(run.record);
    }

    /// Checks once that the record is complete, so that items can be sliced from it.
    fn check(&self, run: &Run) {
        let whole = (run.record - HEADER_BYTES)
            .checked_sub(RunHeader::BYTES)
            .is_some_and(|rest| rest / 4 >= run.head.count as usize);
        if !whole {
            leave::broken_link();
        }
    }

    fn remember(&mut self, tag: u32, found: FoundTask) {
        let tag = tag as usize;
        if self.functions.len() <= tag {
            self.functions.resize(tag + 1, None);
        }
        self.functions[tag] = Some(found);
    }

    fn function(&self, tag: u32) -> FoundTask {
        let known = self.functions.get(tag as usize).cloned().flatten();
        known.unwrap_or_else(|| Err("the agent never announced this function".into()))
    }

    /// Forgets a shared value, unless the agent has sent it again since.
    fn forget_shared(&self, key: Option<Key>) {
        if let Some(key) = key.filter(|key| self.shared.values().all(|known| known != key)) {
            drop(shared::forget(key));
        }
    }

    /// Maps the next file that the agent has sent.
    fn file(&self, length: u64) -> Result<Mapping, String> {
        let mapping = self.bell.next_file().and_then(|file| {
            let length = usize::try_from(length).map_err(|_| Errno::ENOMEM)?;
            Mapping::open(file.as_fd(), length)
        });
        mapping.map_err(|error| {
            let advice = match error {
                Errno::EMFILE | Errno::ENFILE => ": raise the limit on open files (ulimit -n)",
                Errno::ENOMEM => ": raise the pool's memory limit",
                _ => "",
            };
            format!("the worker cannot map {length} bytes from its agent: {}{advice}", error.desc())
        })
    }

    /// Reads a large item or large settings from the pieces that follow.
    fn pieces(&mut self, length: u64) -> Vec<u8> {
        let mut item = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        while (item.len() as u64) < length {
            let header = self.header();
            if header.kind != Kind::Piece || header.length == 0 {
                leave::broken_link();
            }
            item.extend_from_slice(&front(&self.reader)[HEADER_BYTES..HEADER_BYTES + header.length as usize]);
            self.take(header);
        }
        item
    }

    /// Waits for a record and reads its header. The whole record is then available.
    fn header(&mut self) -> Header {
        let Input { reader, bell, .. } = self;
        let mut available = || reader.available(HEADER_BYTES).unwrap_or_else(|_| leave::broken_link());
        if available() < HEADER_BYTES {
            bell.wait(|| available() >= HEADER_BYTES);
        }
        let Some(header) = Header::read(front(&self.reader)) else { leave::broken_link() };
        let record = HEADER_BYTES + header.length as usize;
        if self.reader.available(record).unwrap_or(0) < record {
            leave::broken_link();
        }
        header
    }

    fn take(&mut self, header: Header) {
        self.consume(HEADER_BYTES + header.length as usize);
    }

    fn consume(&mut self, bytes: usize) {
        self.reader.consume(bytes);
        self.reader.publish();
        // Half a ring is enough to continue; waking the agent for every record would be too often.
        if self.reader.available(0).is_ok_and(|left| left <= RING_BYTES / 2)
            && self.memory.status().room_to_worker_is_wanted()
        {
            self.bell.ring();
        }
    }
}

/// Returns the records that the agent has written and that are not consumed.
#[expect(unsafe_code, reason = "items are decoded where they lie, which spares a copy")]
fn front(reader: &Reader) -> &[u8] {
    // SAFETY: the agent does not change published records until they are consumed.
    unsafe { reader.bytes() }
}
