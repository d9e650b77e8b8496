//! A store in memory that stalls and fails on request. It guarantees only what [`JobStore`] promises.

use std::collections::BTreeMap;
use std::future::ready;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use farpool_proto::v1::{Failure, OpenJob, OpenPool};
use farpool_store::{
    Description, Ended, Entry, Items, Job, JobStore, JobStoreError, JobStoreErrorKind, Known, Opening, Outcomes, Phase,
    Progress, Read, ReadError, Reading, Wakeup,
};
use tokio::sync::watch;

/// The written data, which outlives the stores that write it one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    written: Arc<Mutex<Written>>,
    mode: watch::Sender<Mode>,
    wakeup: Wakeup,
}

/// How it handles reads and writes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Mode {
    Works,
    /// Nothing is written or read, and nothing is reported.
    Stalls,
    /// Nothing can be written or read, for this reason.
    Fails(&'static str),
}

#[derive(Debug, Default)]
struct Written {
    /// All appended records, and how many were flushed and written.
    records: Vec<Record>,
    flushed: usize,
    written: usize,
    withdrawn: Vec<u64>,
}

#[derive(Clone, Debug)]
enum Record {
    Opened(u64, Box<(Known, Opening)>),
    Items(u64, Items),
    ItemsEnded(u64, u64, u64),
    Outcomes(u64, Outcomes),
    Fed(u64, u64),
    Placed(u64, Bytes, bool),
    Ended(u64, bool, Option<Failure>, u64),
    Forgotten(u64),
    Withdrawn,
}

impl Disk {
    pub(crate) fn new() -> Self {
        Self { written: Arc::default(), mode: watch::Sender::new(Mode::Works), wakeup: Wakeup::default() }
    }

    /// Opens a store with only the written records.
    pub(crate) fn open(&self) -> Box<dyn JobStore> {
        let mut written = self.written();
        let kept = written.written;
        written.records.truncate(kept);
        written.flushed = kept;
        let mut store = FakeStore {
            disk: self.clone(),
            jobs: BTreeMap::new(),
            last_job: 0,
            appended: kept as u64,
            acknowledged: kept as u64,
            failed: None,
        };
        written.records.iter().for_each(|record| store.apply(record));
        drop(written);
        Box::new(store)
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
        self.try_to_write();
    }

    /// Returns how many outcomes of a job are written.
    pub(crate) fn outcomes(&self, name: &str) -> usize {
        let written = self.written();
        let mut outcomes = BTreeMap::new();
        for record in &written.records[..written.written] {
            match record {
                Record::Opened(job, opened) => _ = outcomes.insert(*job, (opened.0.name.clone(), 0)),
                Record::Outcomes(job, some) => {
                    outcomes.get_mut(job).expect("the job is not open").1 += range(some).count()
                }
                _ => {}
            }
        }
        outcomes.into_values().filter(|(of, _)| of == name).map(|(_, count)| count).sum()
    }

    /// Returns whether a job of this name may be found complete later, whatever is written of it.
    pub(crate) fn may_complete(&self, name: &str) -> bool {
        let written = self.written();
        let mut jobs = BTreeMap::new();
        for (at, record) in written.records.iter().enumerate() {
            match record {
                Record::Opened(job, opened) if opened.0.name == name => _ = jobs.insert(*job, false),
                Record::ItemsEnded(job, ..) => _ = jobs.entry(*job).and_modify(|complete| *complete = true),
                Record::Forgotten(job) if at < written.written => _ = jobs.remove(job),
                _ => {}
            }
        }
        jobs.into_values().any(|complete| complete)
    }

    /// Writes the flushed records, if it works.
    fn write(&self) {
        let mut written = self.written();
        if *self.mode.borrow() == Mode::Works && written.flushed > written.written {
            written.written = written.flushed;
            self.wakeup.wake();
        }
    }

    /// Tries to write, and reports the result.
    fn try_to_write(&self) {
        self.write();
        if *self.mode.borrow() != Mode::Stalls {
            self.wakeup.wake();
        }
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().expect("a thread panicked while it held the lock")
    }

    /// Waits until it no longer stalls. The error says why nothing can be read.
    async fn readable(&self) -> Result<(), ReadError> {
        let mut mode = self.mode.subscribe();
        let mode = mode.wait_for(|mode| *mode != Mode::Stalls).await.expect("cannot read the mode").clone();
        match mode {
            Mode::Fails(why) => Err(ReadError::Unavailable(why.to_owned())),
            _ => Ok(()),
        }
    }
}

#[derive(Debug)]
struct FakeStore {
    disk: Disk,
    jobs: BTreeMap<u64, Kept>,
    last_job: u64,
    appended: u64,
    acknowledged: u64,
    failed: Option<Arc<str>>,
}

#[derive(Debug)]
struct Kept {
    job: Job,
    opening: Opening,
    /// By first index.
    items: BTreeMap<u64, Items>,
    /// By first index, with the number by which they are acknowledged.
    outcomes: BTreeMap<u64, (u64, Outcomes)>,
}

fn range(outcomes: &Outcomes) -> Range<u64> {
    match *outcomes {
        Outcomes::Done { first, count, .. } | Outcomes::Failed { first, count, .. } => first..first + count,
    }
}

impl FakeStore {
    fn add(&mut self, record: Record) {
        self.appended += 1;
        self.apply(&record);
        self.disk.written().records.push(record);
    }

    fn apply(&mut self, record: &Record) {
        let number = self.appended;
        match record.clone() {
            Record::Opened(job, opened) => {
                let (known, opening) = *opened;
                let mut opened = Job::default();
                (opened.number, opened.known) = (job, known);
                let (items, outcomes) = (BTreeMap::new(), BTreeMap::new());
                self.jobs.insert(job, Kept { job: opened, opening, items, outcomes });
                self.last_job = job;
            }
            Record::Items(job, items) => {
                let kept = self.kept(job);
                kept.job.end = items.first + items.count;
                kept.items.insert(items.first, items);
            }
            Record::ItemsEnded(job, end, now_ms) => {
                let job = &mut self.kept(job).job;
                (job.end, job.items_ended, job.complete_ms) = (end, true, now_ms);
            }
            Record::Outcomes(job, outcomes) => {
                let (kept, items) = (self.kept(job), range(&outcomes));
                let new = kept.job.done.insert(items.start, items.end);
                assert_eq!(new, items.end - items.start, "no item has two outcomes");
                kept.job.failed += match &outcomes {
                    Outcomes::Done { failed: false, .. } => 0,
                    _ => new,
                };
                kept.outcomes.insert(items.start, (number, outcomes));
            }
            Record::Fed(job, end) => self.kept(job).job.fed = end,
            Record::Placed(job, agent, true) => _ = self.kept(job).job.agents.remove(&agent),
            Record::Placed(job, agent, false) => _ = self.kept(job).job.agents.insert(agent),
            Record::Ended(job, cancelled, failure, now_ms) => {
                let job = &mut self.kept(job).job;
                job.ended = Some(match &failure {
                    _ if cancelled => Ended::Cancelled,
                    Some(_) => Ended::Failed,
                    None => Ended::Finished,
                });
                (job.failure, job.ended_ms) = (failure.map(Box::new), now_ms);
            }
            Record::Forgotten(job) => _ = self.jobs.remove(&job),
            Record::Withdrawn => {}
        }
    }

    fn kept(&mut self, job: u64) -> &mut Kept {
        self.jobs.get_mut(&job).expect("no such job")
    }

    fn check(&self, job: u64) -> Result<&Job, JobStoreError> {
        let missing = || JobStoreError::new(JobStoreErrorKind::NotFound, format_args!("there is no job {job}"));
        self.job(job).ok_or_else(missing)
    }

    fn check_writes(&self) -> Result<(), JobStoreError> {
        let failed = |why| JobStoreError::new(JobStoreErrorKind::Io, why);
        self.failed.as_ref().map_or(Ok(()), |why| Err(failed(why)))
    }

    fn read<T: Send + 'static>(&self, parts: Vec<T>) -> Reading<Read<T>> {
        let disk = self.disk.clone();
        Reading::new(100 * parts.len() as u64, async move {
            match disk.readable().await {
                Ok(()) => Read { parts, unread: None },
                Err(error) => {
                    Read { parts: Vec::new(), unread: Some(farpool_store::Unread { first: 0, count: 1, error }) }
                }
            }
        })
    }
}

impl JobStore for FakeStore {
    fn find(&self, tenant: &str, name: &str) -> Option<&Job> {
        self.jobs().find(|job| job.known.owner.tenant() == tenant && job.known.name == name)
    }

    fn job(&self, number: u64) -> Option<&Job> {
        self.jobs.get(&number).map(|kept| &kept.job)
    }

    fn jobs(&self) -> Box<dyn Iterator<Item = &Job> + '_> {
        Box::new(self.jobs.values().map(|kept| &kept.job))
    }

    fn describe(&self) -> Description {
        Description::default()
    }

    fn location(&self) -> String {
        "memory".to_owned()
    }

    fn expiry(&self) -> Duration {
        Duration::from_secs(3600)
    }

    fn open(&mut self, known: Known, pool: &OpenPool, job: &OpenJob, _: u64) -> Result<u64, JobStoreError> {
        self.check_writes()?;
        let opening = Opening { pool: Box::new(pool.clone()), job: Box::new(job.clone()) };
        self.add(Record::Opened(self.last_job + 1, Box::new((known, opening))));
        Ok(self.last_job)
    }

    fn append(&mut self, job: u64, entry: Entry<'_>) -> Result<(), JobStoreError> {
        self.check(job)?;
        let count = |ends: &Bytes| ends.len() as u64 / 4;
        let record = match entry {
            Entry::Items { first, data, ends } => {
                self.check_writes()?;
                Record::Items(job, Items { first, count: count(&ends), data, ends })
            }
            Entry::ItemsEnded { end, now_ms } => {
                self.check_writes()?;
                Record::ItemsEnded(job, end, now_ms)
            }
            Entry::Done { first, data, ends, failed, attempts } => {
                Record::Outcomes(job, Outcomes::Done { first, count: count(&ends), data, ends, failed, attempts })
            }
            Entry::Failed { first, count, failure } => {
                Record::Outcomes(job, Outcomes::Failed { first, count, failure: Box::new(failure.clone()) })
            }
            Entry::Fed { end } => Record::Fed(job, end),
            Entry::Placed { agent, gone } => Record::Placed(job, agent, gone),
            Entry::Ended { cancelled, failure, now_ms } => Record::Ended(job, cancelled, failure.cloned(), now_ms),
        };
        self.add(record);
        Ok(())
    }

    fn withdraw_end(&mut self, job: u64) {
        let mut written = self.disk.written();
        let from = written.written;
        let ends = |record: &&mut Record| matches!(record, Record::ItemsEnded(of, ..) if *of == job);
        let Some(record) = written.records[from..].iter_mut().find(ends) else { return };
        *record = Record::Withdrawn;
        written.withdrawn.push(job);
        drop(written);
        self.kept(job).job.items_ended = false;
        self.disk.wakeup.wake();
    }

    fn forget(&mut self, job: u64) -> Result<(), JobStoreError> {
        self.check(job)?;
        self.check_writes()?;
        self.add(Record::Forgotten(job));
        Ok(())
    }

    fn forget_incomplete(&mut self, job: u64) -> Result<(), JobStoreError> {
        if self.check(job)?.phase() != Phase::Feeding {
            return Err(JobStoreError::new(JobStoreErrorKind::Invalid, "it is complete"));
        }
        self.add(Record::Forgotten(job));
        Ok(())
    }

    fn expire(&mut self, _: u64) -> Result<Vec<(u64, String)>, JobStoreError> {
        Ok(Vec::new())
    }

    fn next_expiry(&self) -> Option<u64> {
        None
    }

    fn takes(&self, _: u64) -> Result<(), JobStoreError> {
        self.check_writes()
    }

    fn takes_outcomes(&self) -> bool {
        self.failed.is_none()
    }

    fn backlog(&self) -> u64 {
        0
    }

    fn flush(&mut self) -> u64 {
        let mut written = self.disk.written();
        written.flushed = written.records.len();
        drop(written);
        self.disk.write();
        self.appended
    }

    fn is_idle(&self) -> bool {
        let written = self.disk.written();
        written.flushed == written.written
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    fn progress(&mut self) -> Progress {
        let mut written = self.disk.written();
        self.acknowledged = written.written as u64;
        self.failed = match *self.disk.mode.borrow() {
            Mode::Fails(why) => Some(why.into()),
            // While it stalls, the earlier state is kept.
            Mode::Stalls => self.failed.take(),
            Mode::Works => None,
        };
        let (withdrawn, warnings) = (std::mem::take(&mut written.withdrawn), Vec::new());
        Progress { acknowledged: self.acknowledged, failed: self.failed.clone(), warnings, withdrawn }
    }

    fn wakeup(&self) -> Wakeup {
        self.disk.wakeup.clone()
    }

    fn retry_now(&self) {
        self.disk.try_to_write();
    }

    fn read_opening(&self, job: u64) -> Reading<Result<Opening, ReadError>> {
        let Ok(opening) = self.opening_now(job) else {
            return Reading::new(0, ready(Err(ReadError::Lost("there is no such job".to_owned()))));
        };
        let disk = self.disk.clone();
        Reading::new(100, async move { disk.readable().await.map(|()| opening) })
    }

    fn opening_now(&self, job: u64) -> Result<Opening, ReadError> {
        let lost = || ReadError::Lost("there is no such job".to_owned());
        self.jobs.get(&job).map(|kept| kept.opening.clone()).ok_or_else(lost)
    }

    fn read_items(&self, job: u64, range: Range<u64>, _: u64) -> Reading<Read<Items>> {
        let Some(kept) = self.jobs.get(&job) else { return self.read(Vec::new()) };
        let wanted = kept.items.values().filter(|items| items.first + items.count > range.start);
        self.read(wanted.take_while(|items| items.first < range.end).cloned().collect())
    }

    fn read_outcomes(&self, job: u64, from: u64, skips: bool, _: u64) -> Option<Reading<Read<Outcomes>>> {
        let mut next = from;
        let outcomes = self.jobs.get(&job)?.outcomes.values().filter(|(_, outcomes)| range(outcomes).end > from);
        let wanted = outcomes.take_while(|(number, outcomes)| {
            let follows = *number <= self.acknowledged && (skips || range(outcomes).start <= next);
            next = range(outcomes).end;
            follows
        });
        let parts: Vec<Outcomes> = wanted.map(|(_, outcomes)| outcomes.clone()).collect();
        (!parts.is_empty()).then(|| self.read(parts))
    }
}
