//! The journal from its owner's side.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use farpool_common::units::ByteSize;
use farpool_proto::v1::journal_record::Body;

use super::compaction::{Compaction, Move};
use super::damage::Damage;
use super::group::Withdrawal;
use super::index::Index;
use super::located::Located;
use super::location::RecordLocation;
use super::outcomes::Gathered;
use super::part::Part;
use super::queued::QueuedBatch;
use super::reader::Reader;
use super::reads::Reads;
use super::repair::Repair;
use super::replay::{Replayed, replay};
use super::settings::Settings;
use super::simulated::Simulated;
use super::storage::{Directory, Storage};
use super::tail::Tail;
use super::writer::{Lookup, Shared};
use super::writer_handle::WriterHandle;
use crate::error::{JobStoreError, JobStoreErrorKind};
use crate::job::Job;
use crate::progress::Progress;

/// Detached jobs and their outcomes, on disk. One thread owns it, and never waits for the disk.
#[derive(Debug)]
pub struct Journal {
    pub(super) settings: Settings,
    pub(super) index: Index,
    pub(super) tail: Tail,
    /// Results that may be joined with the next ones in one record.
    pub(super) gathered: Option<Gathered>,
    /// Why nothing can be written, as far as the owner was told.
    pub(super) failed: Option<Arc<str>>,
    durable: u64,
    /// Everything before this byte of this segment is durable.
    durable_end: (u32, u64),
    /// Batches that the thread got and has not written.
    queued: VecDeque<Outstanding>,
    /// Copies that are being written, and their numbers.
    copies: VecDeque<(u64, Part, RecordLocation, RecordLocation)>,
    pub(super) compaction: Option<Compaction>,
    /// The records that complete jobs and are not durable.
    pub(super) completing: BTreeMap<u64, Withdrawal>,
    /// Jobs whose completing record is being withdrawn because nothing can be written.
    pub(super) withdrawing: BTreeSet<u64>,
    pub(super) reads: Reads,
    pub(super) shared: Arc<Shared>,
    /// None when it is being dropped.
    writer_handle: Option<WriterHandle>,
    /// What was damaged or missing when it was opened, and what that means for jobs.
    damage: Vec<String>,
}

/// The most texts about damage that are kept while the journal is open; one more text has the number of the rest.
const DAMAGE_SHOWN: usize = 100;

#[derive(Debug)]
struct Outstanding {
    number: u64,
    bytes: u64,
    end: (u32, u64),
}

impl Journal {
    /// Opens a journal, or creates one if there is none, and reads all of it. `warn` gets what operators should know.
    ///
    /// # Errors
    /// If another process has it, if a later version wrote it, if records that matter cannot be read, or if the
    /// directory cannot be used.
    pub fn open(settings: Settings, mut warn: impl FnMut(String)) -> Result<Self, JobStoreError> {
        let directory = Directory::open(&settings.directory)?;
        Self::open_in(Arc::new(directory), settings, &mut warn)
    }

    pub(super) fn open_in(
        storage: Arc<dyn Storage>,
        settings: Settings,
        warn: &mut dyn FnMut(String),
    ) -> Result<Self, JobStoreError> {
        let own = Arc::clone(&storage);
        Self::open_with((storage, None), settings, warn, |shared| WriterHandle::start(own, shared))
    }

    /// `start` starts the writer. With a simulated disk, only tasks wait for it.
    pub(super) fn open_with(
        (storage, in_time): (Arc<dyn Storage>, Option<Arc<Simulated>>),
        settings: Settings,
        warn: &mut dyn FnMut(String),
        start: impl FnOnce(Arc<Shared>) -> io::Result<WriterHandle>,
    ) -> Result<Self, JobStoreError> {
        warn_of_other_files(&*storage, warn);
        let Replayed { index, end, damages, discarded } = replay(&*storage, warn)?;
        let shared = Arc::<Shared>::default();
        let reads = Reads::new(Reader::new(storage), in_time, Arc::clone(&shared));
        let writer_handle = start(Arc::clone(&shared)).map_err(|error| {
            JobStoreError::new(JobStoreErrorKind::Io, format_args!("starting the journal's thread: {error}"))
        })?;
        let mut journal = Self {
            index,
            tail: Tail::new(settings.segment(), end),
            settings,
            gathered: None,
            failed: None,
            durable: 0,
            durable_end: (end.segment, end.offset),
            queued: VecDeque::new(),
            copies: VecDeque::new(),
            compaction: None,
            completing: BTreeMap::new(),
            withdrawing: BTreeSet::new(),
            reads,
            shared,
            writer_handle: Some(writer_handle),
            damage: Vec::new(),
        };
        let mut damage: Vec<String> = damages.iter().map(Damage::to_string).collect();
        let Self { index, tail, reads, settings, .. } = &mut journal;
        Repair { index, tail, reader: &reads.reader, now_ms: settings.opened_ms }.all(
            &damages,
            discarded,
            &mut |text| {
                damage.push(text.clone());
                warn(text);
            },
        );
        let more = damage.len().saturating_sub(DAMAGE_SHOWN);
        damage.truncate(DAMAGE_SHOWN);
        damage.extend((more > 0).then(|| format!("{more} more; the coordinator logged all of them when it started")));
        journal.damage = damage;
        journal.clean_up();
        Ok(journal)
    }

    /// Drops pools without jobs, and begins to empty damaged segments.
    fn clean_up(&mut self) {
        for pool in self.index.pools.keys().copied().collect::<Vec<_>>() {
            self.index.release_pool(pool);
        }
        if self.index.segments.all.values().any(|segment| segment.damaged) {
            self.compact();
        }
        self.flush();
    }

    /// Returns the tenant's job with this name.
    pub(super) fn find(&self, tenant: &str, name: &str) -> Option<&Job> {
        let number = self.index.names.get(&(tenant.to_owned(), name.to_owned()))?;
        self.job(*number)
    }

    /// Returns the job with this number.
    pub(super) fn job(&self, number: u64) -> Option<&Job> {
        self.located(number).map(|located| &located.job)
    }

    /// Returns the job with this number, and the locations of its records.
    pub(super) fn located(&self, number: u64) -> Option<&Located> {
        self.index.jobs.get(&number)
    }

    /// Returns all jobs, in the order in which they were opened.
    pub(super) fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.index.jobs.values().map(|located| &located.job)
    }

    /// Whether a record can be read: it is durable.
    pub(super) fn is_durable(&self, location: RecordLocation) -> bool {
        (location.segment, location.end()) <= self.durable_end
    }

    /// Returns the bytes that it takes on disk, or will when all is written.
    pub(super) fn bytes(&self) -> u64 {
        self.index.segments.bytes
    }

    /// Returns the bytes of needed records among them.
    pub(super) fn live_bytes(&self) -> u64 {
        self.index.segments.live
    }

    /// Returns what was damaged or missing when it was opened, and what that means for jobs.
    pub(super) fn damage(&self) -> &[String] {
        &self.damage
    }

    /// Whether it is shrinking by itself: then a caller that finds it full may wait.
    pub(super) fn makes_room(&self) -> bool {
        let chosen = || Compaction::choose(&self.index, self.tail.active(), self.settings.room_for_items());
        self.failed.is_none() && (self.compaction.is_some() || !self.copies.is_empty() || chosen().is_some())
    }

    /// Gathers valid results.
    pub(super) fn gather(&mut self, job: u64, first: u64, data: Bytes, ends: Bytes, alike: (bool, u32)) {
        if self.gathered.as_mut().is_some_and(|gathered| gathered.takes((job, first), &data, &ends, alike)) {
            return;
        }
        self.append_gathered();
        self.gathered = Some(Gathered::new(job, first, data, ends, alike));
    }

    /// Appends the gathered results.
    pub(super) fn append_gathered(&mut self) {
        if let Some(gathered) = self.gathered.take() {
            let (body, payload) = gathered.into_record();
            self.tail.append(&mut self.index, &body, &payload);
        }
    }

    /// Sends everything appended so far to the thread that writes, which makes it durable together with other batches.
    /// Returns the number of the last record: all records so far are durable when it is.
    pub(super) fn flush(&mut self) -> u64 {
        self.append_gathered();
        let number = self.tail.number;
        if self.tail.batch.steps.is_empty() {
            return number;
        }
        let Some(writer_handle) = &self.writer_handle else { return number };
        let batch = std::mem::take(&mut self.tail.batch);
        let bytes = batch.bytes;
        match writer_handle.send(QueuedBatch { batch, number }) {
            Ok(()) => {
                let end = (self.tail.end.segment, self.tail.end.offset);
                self.queued.push_back(Outstanding { number, bytes, end });
            }
            // It is sent again after the thread has reported progress.
            Err(back) => self.tail.batch = back.batch,
        }
        number
    }

    /// Handles what the thread has written, and continues with what follows from it. Call this after each wakeup.
    pub(super) fn progress(&mut self) -> Progress {
        let (unreadable, set_aside, withdrawn, lookups);
        {
            let mut report = self.shared.report();
            (self.durable, self.failed) = (report.durable, report.failed.clone());
            unreadable = std::mem::take(&mut report.unreadable);
            set_aside = std::mem::take(&mut report.set_aside);
            withdrawn = std::mem::take(&mut report.withdrawn);
            lookups = std::mem::take(&mut report.lookups);
        }
        let (durable, withdrawn) = (self.durable, self.take_withdrawn(&withdrawn));
        while self.queued.front().is_some_and(|queued| queued.number <= durable) {
            self.durable_end = self.queued.pop_front().expect("the queue is empty").end;
        }
        let mut warnings = Vec::new();
        for (location, why) in unreadable {
            self.copies.retain(|(_, _, from, _)| *from != location);
            if let Some(segment) = self.index.segments.all.get_mut(&location.segment) {
                segment.stuck = true;
            }
            warnings.push(format!("a segment of the journal cannot be emptied: {why}"));
        }
        for (segment, aside) in set_aside {
            warnings.push(format!(
                "the damaged segment {segment} is kept as {aside}: what was whole in it has been copied, and it can be removed"
            ));
        }
        while let Some(&(_, part, _, to)) = self.copies.front().filter(|(number, ..)| *number <= durable) {
            self.copies.pop_front();
            self.index.moved(part, to);
        }
        for Lookup { parts, reply } in lookups {
            // If the reader has stopped waiting, it does not need the answer.
            let _ = reply.send(parts.into_iter().map_while(|part| self.index.location_of(part)).collect());
        }
        self.compact();
        self.flush();
        Progress { acknowledged: durable, failed: self.failed.clone(), warnings, withdrawn }
    }

    /// Handles records that were withdrawn; returns their jobs.
    fn take_withdrawn(&mut self, locations: &[RecordLocation]) -> Vec<u64> {
        let jobs = self.completing.iter().filter(|(_, record)| locations.contains(&record.location));
        let jobs: Vec<u64> = jobs.map(|(job, _)| *job).collect();
        jobs.iter().for_each(|job| self.index.mark_incomplete(*job));
        let durable = self.durable;
        self.completing.retain(|job, record| record.number > durable && !jobs.contains(job));
        if self.failed.is_none() {
            self.withdrawing.clear();
        }
        jobs
    }

    /// Returns the number up to which records are durable: see [`flush`](Self::flush).
    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    /// Whether the thread is idle: then it writes the next batch at once, and later ones together after that.
    pub(super) fn is_idle(&self) -> bool {
        self.queued.is_empty()
    }

    /// Waits until everything appended so far is durable, blocking this thread.
    ///
    /// # Errors
    /// If it cannot be written for now.
    pub fn sync(&mut self) -> Result<Progress, JobStoreError> {
        loop {
            let number = self.flush();
            // What did not fit into the queue is sent below.
            let queued = self.queued.back().map_or(self.durable, |queued| queued.number);
            self.shared.wait_for(queued);
            let progress = self.progress();
            self.check_writes()?;
            if progress.acknowledged >= number {
                return Ok(progress);
            }
        }
    }

    /// Returns the bytes that wait for the disk.
    pub(super) fn backlog(&self) -> u64 {
        self.tail.batch.bytes + self.queued.iter().map(|queued| queued.bytes).sum::<u64>()
    }

    /// Continues to empty segments, one step at a time, each when the previous one is durable.
    fn compact(&mut self) {
        if self.failed.is_some() || !self.copies.is_empty() || self.backlog() >= self.settings.backlog {
            return;
        }
        let chosen = || Compaction::choose(&self.index, self.tail.active(), self.settings.room_for_items());
        let Some(mut compaction) = self.compaction.take().or_else(chosen) else { return };
        let segment = compaction.segment;
        if self.index.segments.all[&segment].stuck {
            return;
        }
        if compaction.is_done() {
            let damaged = self.index.segments.all[&segment].damaged;
            self.index.remove_segment(segment);
            self.tail.remove(segment, damaged);
            return;
        }
        let before = self.tail.number;
        for next in compaction.step(&self.index) {
            match next {
                Move::Copy(part, from) => {
                    let to = self.tail.copy(&mut self.index, part, from);
                    self.copies.push_back((self.tail.number, part, from, to));
                }
                Move::Restate(body) => {
                    self.tail.append(&mut self.index, &body, &[]);
                }
            }
        }
        self.compaction = Some(compaction);
        if self.tail.number == before {
            // Nothing has to be written first, but the owner may have other things to do.
            self.shared.wakeup.wake();
        }
    }

    pub(super) fn append(&mut self, body: &Body, payload: &[Bytes]) -> RecordLocation {
        self.append_gathered();
        self.tail.append(&mut self.index, body, payload)
    }
}

/// Warns of other files in the journal's folder.
fn warn_of_other_files(storage: &dyn Storage, warn: &mut dyn FnMut(String)) {
    const SHOWN: usize = 10;
    let aside = storage.aside();
    let files = aside.len();
    if files > 0 {
        let bytes = ByteSize(aside.iter().map(|file| file.bytes).sum());
        let plural = if files == 1 { "" } else { "s" };
        warn(format!(
            "kept beside the journal: {files} damaged file{plural} ({bytes}), *.damaged-* and *.cut-off-*; \
             remove them by hand when nobody needs them"
        ));
    }
    let foreign = storage.foreign();
    if !foreign.is_empty() {
        let more = if foreign.len() > SHOWN { ", ..." } else { "" };
        let shown = foreign[..foreign.len().min(SHOWN)].join(", ");
        let plural = if foreign.len() == 1 { "" } else { "s" };
        let count = foreign.len();
        warn(format!("left alone: {count} unknown file{plural} in the journal's directory: {shown}{more}"));
    }
}

impl Drop for Journal {
    /// Writes everything appended so far, if possible.
    fn drop(&mut self) {
        self.shared.stop_answering();
        self.append_gathered();
        let batch = std::mem::take(&mut self.tail.batch);
        if let Some(writer_handle) = self.writer_handle.take() {
            writer_handle.end(QueuedBatch { batch, number: self.tail.number }, &self.shared);
        }
    }
}
