//! A disk in memory for simulations. It records all operations in order, takes time, can fail, and loses what was not
//! synced in a crash.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::storage::Storage;
use crate::progress::Aside;

/// An operation on a disk, by segment.
#[derive(Clone, Debug)]
pub enum Done {
    /// An empty segment is created, durably.
    Create(u32),
    /// Bytes are written from here on.
    Write(u32, u64, Vec<u8>),
    /// A segment is extended to this length with zeros.
    Extend(u32, u64),
    /// What was written is made durable.
    Sync(u32),
    /// A segment is cut off, durably.
    Truncate(u32, u64),
    /// A segment is removed, durably.
    Remove(u32),
    /// A segment is taken out of the journal and kept, durably.
    SetAside(u32),
    /// A segment's contents from a byte on are copied into a file beside it, durably.
    CopyAside(u32, u64),
}

/// Segments as they are on disk.
pub type Files = BTreeMap<u32, Vec<u8>>;

/// Returns whether the next operation fails. A failing write still writes this many bytes. After a failing sync, this
/// many bytes that were not durable remain.
pub type Fault = Box<dyn FnMut(&Done) -> Option<(io::Error, usize)> + Send>;

/// Returns how long the next operation takes.
pub type Lag = Box<dyn FnMut() -> Duration + Send>;

/// The disk. Only one coordinator uses it at a time, and the next coordinator finds what it wrote.
#[derive(Default)]
pub struct Simulated {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    files: Files,
    /// How many bytes of each segment a crash does not touch.
    durable: BTreeMap<u32, usize>,
    done: Vec<Done>,
    fault: Option<Fault>,
    lag: Option<Lag>,
    unreadable: bool,
    /// What was set aside, and from which segments.
    aside: Vec<(u32, Vec<u8>)>,
    synced: Option<(u32, u64)>,
}

impl Simulated {
    /// Creates a disk with these segments, all of them durable.
    pub fn new(files: Files) -> Self {
        let durable = files.iter().map(|(segment, file)| (*segment, file.len())).collect();
        Self { state: Mutex::new(State { files, durable, ..State::default() }) }
    }

    /// Returns its segments.
    pub fn files(&self) -> Files {
        self.state().files.clone()
    }

    /// Returns what was set aside: the segment and the contents.
    pub fn set_aside(&self) -> Vec<(u32, Vec<u8>)> {
        self.state().aside.clone()
    }

    /// Sets the note of what is durable, as a journal on this disk would.
    #[cfg(test)]
    pub(super) fn set_synced(&self, synced: Option<(u32, u64)>) {
        self.state().synced = synced;
    }

    /// Returns the operations so far, in order.
    pub fn done(&self) -> Vec<Done> {
        self.state().done.clone()
    }

    /// Sets which operations fail from now on; `None`: none do.
    pub fn fail(&self, fault: Option<Fault>) {
        self.state().fault = fault;
    }

    /// Sets how slow it is.
    pub fn set_lag(&self, lag: Lag) {
        self.state().lag = Some(lag);
    }

    /// Returns how long the next operation takes. The caller must wait for this time.
    pub fn lag(&self) -> Duration {
        self.state().lag.as_mut().map_or(Duration::ZERO, |lag| lag())
    }

    /// Sets whether reading fails.
    pub fn set_unreadable(&self, unreadable: bool) {
        self.state().unreadable = unreadable;
    }

    /// Blocks all operations as long as the returned guard exists.
    pub fn hold(&self) -> impl Drop + '_ {
        self.state()
    }

    /// Simulates a crash of the computer. `keep` returns for each segment how many bytes that were not durable remain,
    /// and which of these were never written: they are 0.
    pub fn crash(&self, mut keep: impl FnMut(usize) -> (usize, Range<usize>)) {
        let mut state = self.state();
        let State { files, durable, .. } = &mut *state;
        for (segment, file) in files {
            let safe = durable.get(segment).copied().unwrap_or_default();
            let (kept, holes) = keep(file.len() - safe);
            file.truncate(safe + kept);
            file[safe..][holes].fill(0);
            durable.insert(*segment, file.len());
        }
    }

    /// Does this operation.
    pub fn act(&self, done: Done) -> io::Result<()> {
        let mut state = self.state();
        let fault = state.fault.as_mut().and_then(|fault| fault(&done));
        match (fault, done) {
            (None, done) => {
                state.apply(&done);
                state.done.push(done);
                Ok(())
            }
            (Some((error, written)), Done::Write(segment, offset, mut bytes)) => {
                bytes.truncate(written);
                let part = Done::Write(segment, offset, bytes);
                state.apply(&part);
                state.done.push(part);
                Err(error)
            }
            // A reader finds what was there before.
            (Some((error, left)), Done::Sync(segment)) => {
                let safe = state.durable.get(&segment).copied().unwrap_or_default();
                state.files.entry(segment).and_modify(|file| file.truncate(safe + left));
                Err(error)
            }
            (Some((error, _)), _) => Err(error),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn apply(&mut self, done: &Done) {
        const THERE: &str = "what is written to is there";
        match done {
            Done::Create(segment) => {
                self.files.insert(*segment, Vec::new());
                self.durable.insert(*segment, 0);
            }
            Done::Write(segment, offset, bytes) => {
                let file = self.files.get_mut(segment).expect(THERE);
                let from = *offset as usize;
                file.resize(file.len().max(from + bytes.len()), 0);
                let there = &mut file[from..][..bytes.len()];
                // From the first changed byte on, data may be lost, including what was there before.
                let same = there.iter().zip(bytes).take_while(|(there, new)| there == new).count();
                there.copy_from_slice(bytes);
                let durable = self.durable.entry(*segment).or_default();
                *durable = (*durable).min(if same < bytes.len() { from + same } else { usize::MAX });
            }
            Done::Extend(segment, length) => {
                let file = self.files.get_mut(segment).expect(THERE);
                file.resize(file.len().max(*length as usize), 0);
            }
            Done::Sync(segment) => _ = self.durable.insert(*segment, self.files.get(segment).expect(THERE).len()),
            Done::Truncate(segment, length) => {
                let file = self.files.get_mut(segment).expect(THERE);
                file.truncate(*length as usize);
                self.durable.insert(*segment, file.len());
            }
            Done::Remove(segment) => {
                self.files.remove(segment);
                self.durable.remove(segment);
            }
            Done::SetAside(segment) => {
                self.aside.extend(self.files.remove(segment).map(|file| (*segment, file)));
                self.durable.remove(segment);
            }
            Done::CopyAside(segment, from) => {
                let file = &self.files[segment];
                self.aside.push((*segment, file[*from as usize..].to_vec()));
            }
        }
    }
}

impl Storage for Simulated {
    fn segments(&self) -> Vec<u32> {
        self.state().files.keys().copied().collect()
    }

    fn length(&self, segment: u32) -> io::Result<u64> {
        self.state().files.get(&segment).map(|file| file.len() as u64).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn read(&self, segment: u32, offset: u64, to: &mut [u8]) -> io::Result<usize> {
        let state = self.state();
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

    fn extend(&self, segment: u32, length: u64) -> io::Result<()> {
        if self.length(segment)? < length { self.act(Done::Extend(segment, length)) } else { Ok(()) }
    }

    fn sync(&self, segment: u32) -> io::Result<()> {
        self.act(Done::Sync(segment))
    }

    fn truncate(&self, segment: u32, length: u64) -> io::Result<()> {
        self.length(segment)?;
        self.act(Done::Truncate(segment, length))
    }

    fn remove(&self, segment: u32) -> io::Result<()> {
        self.act(Done::Remove(segment))
    }

    fn set_aside(&self, segment: u32) -> io::Result<String> {
        self.act(Done::SetAside(segment)).map(|()| format!("segment-{segment}.damaged"))
    }

    fn copy_aside(&self, segment: u32, from: u64) -> io::Result<String> {
        self.act(Done::CopyAside(segment, from)).map(|()| format!("segment-{segment}.cut-off"))
    }

    fn aside(&self) -> Vec<Aside> {
        let aside = |(segment, file): &(u32, Vec<u8>)| Aside {
            name: format!("segment-{segment}.damaged"),
            bytes: file.len() as u64,
        };
        self.state().aside.iter().map(aside).collect()
    }

    fn foreign(&self) -> Vec<String> {
        Vec::new()
    }

    fn note_synced(&self, segment: u32, end: u64) {
        self.state().synced = Some((segment, end));
    }

    fn lower_synced(&self, segment: u32, end: u64) -> io::Result<()> {
        let mut state = self.state();
        if state.synced > Some((segment, end)) {
            state.synced = Some((segment, end));
        }
        Ok(())
    }

    fn synced(&self) -> Option<(u32, u64)> {
        self.state().synced
    }

    fn name(&self, segment: u32) -> String {
        format!("segment-{segment}")
    }
}

impl fmt::Debug for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Simulated")
    }
}
