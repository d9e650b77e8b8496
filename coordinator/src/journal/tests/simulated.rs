//! A disk in memory that remembers what was done to it, in order, and can fail.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::Mutex;

use crate::journal::storage::Storage;

/// What was done.
#[derive(Clone, Debug)]
pub(super) enum Done {
    Create(u32),
    Write(u32, u64, Vec<u8>),
    Sync(u32),
    Truncate(u32, u64),
    Remove(u32),
}

/// Segments as they are on disk.
pub(super) type Files = BTreeMap<u32, Vec<u8>>;

/// Says what is to become of the next thing that is done: how much of a write is written before it fails.
pub(super) type Fault = Box<dyn FnMut(&Done) -> Option<(io::Error, usize)> + Send>;

#[derive(Default)]
pub(super) struct Simulated {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    files: Files,
    done: Vec<Done>,
    fault: Option<Fault>,
    unreadable: bool,
}

impl Simulated {
    pub(super) fn new(files: Files) -> Self {
        Self { state: Mutex::new(State { files, ..State::default() }) }
    }

    pub(super) fn files(&self) -> Files {
        self.state.lock().unwrap().files.clone()
    }

    pub(super) fn done(&self) -> Vec<Done> {
        self.state.lock().unwrap().done.clone()
    }

    pub(super) fn fail(&self, fault: Option<Fault>) {
        self.state.lock().unwrap().fault = fault;
    }

    /// Whether reading fails.
    pub(super) fn set_unreadable(&self, unreadable: bool) {
        self.state.lock().unwrap().unreadable = unreadable;
    }

    /// As long as this is there nothing can be done.
    pub(super) fn hold(&self) -> impl Drop + '_ {
        self.state.lock().unwrap()
    }

    fn act(&self, done: Done) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        if let Some((error, written)) = state.fault.as_mut().and_then(|fault| fault(&done)) {
            if let Done::Write(segment, offset, bytes) = done {
                let part = Done::Write(segment, offset, bytes[..written.min(bytes.len())].to_vec());
                apply(&mut state.files, &part);
                state.done.push(part);
            }
            return Err(error);
        }
        apply(&mut state.files, &done);
        state.done.push(done);
        Ok(())
    }
}

/// What there is when all this was done.
pub(super) fn apply(files: &mut Files, done: &Done) {
    match done {
        Done::Create(segment) => _ = files.insert(*segment, Vec::new()),
        Done::Write(segment, offset, bytes) => {
            let file = files.get_mut(segment).expect("what is written to is there");
            file.resize(file.len().max(*offset as usize + bytes.len()), 0);
            file[*offset as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        Done::Sync(_) => {}
        Done::Truncate(segment, length) => files.get_mut(segment).expect("it is there").truncate(*length as usize),
        Done::Remove(segment) => _ = files.remove(segment),
    }
}

/// What a crash leaves of it: what was synced, and of what was not as much as `keep` says, in bytes behind what was
/// synced, some of which were never written (then they are 0).
pub(super) fn crash(done: &[Done], mut keep: impl FnMut(usize) -> (usize, bool)) -> Files {
    let (mut files, mut synced) = (Files::new(), Files::new());
    for done in done {
        apply(&mut files, done);
        match done {
            Done::Sync(segment) => _ = synced.insert(*segment, files[segment].clone()),
            Done::Create(segment) | Done::Remove(segment) => _ = synced.remove(segment),
            Done::Write(..) | Done::Truncate(..) => {}
        }
    }
    for (segment, file) in &mut files {
        let safe = synced.get(segment).map_or(0, Vec::len);
        let (kept, zeros) = keep(file.len() - safe);
        file.truncate(safe + kept);
        if zeros {
            file[safe..].fill(0);
        }
    }
    files
}

impl Storage for Simulated {
    fn segments(&self) -> Vec<u32> {
        self.state.lock().unwrap().files.keys().copied().collect()
    }

    fn length(&self, segment: u32) -> io::Result<u64> {
        let state = self.state.lock().unwrap();
        state.files.get(&segment).map(|file| file.len() as u64).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn read(&self, segment: u32, offset: u64, to: &mut [u8]) -> io::Result<usize> {
        let state = self.state.lock().unwrap();
        if state.unreadable {
            return Err(io::Error::from_raw_os_error(5));
        }
        let file = state.files.get(&segment).ok_or(io::ErrorKind::NotFound)?;
        let there = file.get(offset as usize..).unwrap_or_default();
        let count = there.len().min(to.len());
        to[..count].copy_from_slice(&there[..count]);
        Ok(count)
    }

    fn create(&self, segment: u32) -> io::Result<()> {
        self.act(Done::Create(segment))
    }

    fn write(&self, segment: u32, offset: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        self.act(Done::Write(segment, offset, parts.iter().flat_map(|part| part.to_vec()).collect()))
    }

    fn sync(&self, segment: u32) -> io::Result<()> {
        self.act(Done::Sync(segment))
    }

    fn truncate(&self, segment: u32, length: u64) -> io::Result<()> {
        self.act(Done::Truncate(segment, length))
    }

    fn remove(&self, segment: u32) -> io::Result<()> {
        self.act(Done::Remove(segment))
    }

    fn name(&self, segment: u32) -> String {
        format!("segment-{segment}")
    }
}

impl std::fmt::Debug for Simulated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Simulated")
    }
}
