//! Implements [`JobStore`] for the journal.

use std::future::ready;
use std::ops::Range;
use std::time::Duration;

use farpool_proto::v1::{OpenJob, OpenPool};

use super::location::RecordLocation;
use super::owner::Journal;
use super::part::Part;
use super::reader::{NotRead, RecordContents};
use super::reads::Wanted;
use crate::JobStore;
use crate::entry::Entry;
use crate::error::{JobStoreError, JobStoreErrorKind};
use crate::job::{Job, Known};
use crate::progress::{Description, Progress, Wakeup};
use crate::reading::{Items, Opening, Outcomes, Read, ReadError, Reading, Unread};

impl JobStore for Journal {
    fn find(&self, tenant: &str, name: &str) -> Option<&Job> {
        self.find(tenant, name)
    }

    fn job(&self, number: u64) -> Option<&Job> {
        self.job(number)
    }

    fn jobs(&self) -> Box<dyn Iterator<Item = &Job> + '_> {
        Box::new(self.jobs())
    }

    fn describe(&self) -> Description {
        Description {
            bytes: self.bytes(),
            size: self.settings.size,
            aside: self.reads.reader.aside(),
            damage: self.damage().to_vec(),
        }
    }

    fn location(&self) -> String {
        self.settings.directory.display().to_string()
    }

    fn expiry(&self) -> Duration {
        self.settings.expiry
    }

    fn open(&mut self, known: Known, pool: &OpenPool, job: &OpenJob, now_ms: u64) -> Result<u64, JobStoreError> {
        let pool = self.open_pool(pool)?;
        let job = self.open_job(pool, known, job, now_ms);
        self.close_pool(pool);
        job
    }

    fn append(&mut self, job: u64, entry: Entry<'_>) -> Result<(), JobStoreError> {
        match entry {
            Entry::Items { first, data, ends } => {
                self.items(job, first, data, ends).map_err(|error| busy_if_it_makes_room(self, error))
            }
            Entry::ItemsEnded { end, now_ms } => self.end_items(job, end, now_ms),
            Entry::Done { first, data, ends, failed, attempts } => self.done(job, first, data, ends, failed, attempts),
            Entry::Failed { first, count, failure } => self.failed(job, first, count, failure),
            Entry::Fed { end } => self.fed(job, end),
            Entry::Placed { agent, gone } => self.placed(job, agent, gone),
            Entry::Ended { cancelled, failure, now_ms } => self.end_job(job, cancelled, failure.cloned(), now_ms),
        }
    }

    fn withdraw_end(&mut self, job: u64) {
        self.withdraw_end(job);
    }

    fn forget(&mut self, job: u64) -> Result<(), JobStoreError> {
        self.forget(job)
    }

    fn forget_incomplete(&mut self, job: u64) -> Result<(), JobStoreError> {
        self.forget_incomplete(job)
    }

    fn expire(&mut self, now_ms: u64) -> Result<Vec<(u64, String)>, JobStoreError> {
        self.expire(now_ms)
    }

    fn next_expiry(&self) -> Option<u64> {
        self.next_expiry()
    }

    fn takes(&self, bytes: u64) -> Result<(), JobStoreError> {
        self.would_fit(bytes).map_err(|error| busy_if_it_makes_room(self, error))
    }

    fn takes_outcomes(&self) -> bool {
        self.has_room_for_outcomes()
    }

    fn backlog(&self) -> u64 {
        self.backlog()
    }

    fn flush(&mut self) -> u64 {
        self.flush()
    }

    fn is_idle(&self) -> bool {
        self.is_idle()
    }

    fn acknowledged(&self) -> u64 {
        self.durable()
    }

    fn progress(&mut self) -> Progress {
        self.progress()
    }

    fn wakeup(&self) -> Wakeup {
        self.shared.wakeup.clone()
    }

    fn retry_now(&self) {
        self.shared.retry_now();
    }

    fn read_opening(&self, job: u64) -> Reading<Result<Opening, ReadError>> {
        let Some(wanted) = opening(self, job) else { return Reading::new(0, ready(Err(not_opened()))) };
        let (bytes, reads) = (Wanted::bytes(&wanted), self.reads.clone());
        Reading::new(bytes, async move {
            let mut records = Vec::with_capacity(2);
            let unread = reads.each(wanted.into(), |kept| {
                records.push(kept);
                true
            });
            match unread.await {
                Some(unread) => Err(unread.error),
                None => opened_with(records),
            }
        })
    }

    fn opening_now(&self, job: u64) -> Result<Opening, ReadError> {
        let wanted = opening(self, job).ok_or_else(not_opened)?;
        let records = wanted.iter().map(|wanted| self.reads.reader.read(wanted.location)).collect::<Result<_, _>>();
        opened_with(records.map_err(|not_read| match not_read {
            NotRead::Io(error) => ReadError::Unavailable(error.to_string()),
            not_read => ReadError::Lost(not_read.to_string()),
        })?)
    }

    fn read_items(&self, job: u64, range: Range<u64>, bytes: u64) -> Reading<Read<Items>> {
        let Some(located) = self.located(job) else { return nothing(None) };
        let mut end = range.start;
        let there = located.items_from(range.start).take_while(|&(at, count, _)| {
            let follows = at < range.end && (at <= end || located.job.done.gap(end, at).is_none());
            end = end.max(at + count);
            follows
        });
        let there = there.map(|(at, count, location)| wanted(Part::Items(job, at), location, at, count));
        let some = some(there, bytes);
        if some.is_empty() {
            let next = located.items_from(range.start).next().map_or(range.end, |(at, ..)| at.min(range.end));
            let error = ReadError::Lost("it is not there".to_owned());
            return nothing(Some(Unread { first: range.start, count: next - range.start, error }));
        }
        Reading::new(Wanted::bytes(&some), self.reads.clone().all(some, items))
    }

    fn read_outcomes(&self, job: u64, from: u64, skips: bool, bytes: u64) -> Option<Reading<Read<Outcomes>>> {
        let mut next = from;
        let there = self.located(job)?.outcomes_from(from);
        let there = there.filter(|&(_, _, location)| !skips || self.is_durable(location)).take_while(
            |&(at, count, location)| {
                let follows = skips || (at <= next && self.is_durable(location));
                next = at + count;
                follows
            },
        );
        let there = there.map(|(at, count, location)| wanted(Part::Outcomes(job, at), location, at, count));
        let some = some(there, bytes);
        (!some.is_empty()).then(|| Reading::new(Wanted::bytes(&some), self.reads.clone().all(some, outcomes)))
    }
}

/// Turns `Full` into `Busy` if the journal is shrinking by itself: then the caller may wait.
fn busy_if_it_makes_room(journal: &Journal, error: JobStoreError) -> JobStoreError {
    match error.kind() {
        JobStoreErrorKind::Full if journal.makes_room() => JobStoreError::new(JobStoreErrorKind::Busy, error),
        _ => error,
    }
}

fn wanted(part: Part, location: RecordLocation, first: u64, count: u64) -> Wanted {
    Wanted { part, location, first, count }
}

/// Returns the first records of `wanted` that are read in one go.
fn some(wanted: impl Iterator<Item = Wanted>, bytes: u64) -> Vec<Wanted> {
    let (mut some, mut together) = (Vec::new(), 0);
    for next in wanted {
        let length = next.location.bytes();
        if !some.is_empty() && together + length > bytes {
            break;
        }
        together += length;
        some.push(next);
    }
    some
}

fn nothing<T: Send + 'static>(unread: Option<Unread>) -> Reading<Read<T>> {
    Reading::new(0, ready(Read { parts: Vec::new(), unread }))
}

/// Returns the records that opened a job: that of its pool, and its own.
fn opening(journal: &Journal, job: u64) -> Option<[Wanted; 2]> {
    let located = journal.located(job)?;
    let pool = Part::Pool(located.pool);
    let wanted = |part| Some(wanted(part, journal.index.location_of(part)?, 0, 0));
    Some([wanted(pool)?, wanted(Part::Opened(job))?])
}

fn not_opened() -> ReadError {
    ReadError::Lost("the messages that opened the job are missing".to_owned())
}

fn opened_with(records: Vec<RecordContents>) -> Result<Opening, ReadError> {
    match <[RecordContents; 2]>::try_from(records) {
        Ok([RecordContents::Pool(pool), RecordContents::Job(job)]) => Ok(Opening { pool, job }),
        Ok(_) => Err(ReadError::Lost("another record is where the job was opened".to_owned())),
        Err(_) => Err(not_opened()),
    }
}

fn items(kept: RecordContents) -> Option<Items> {
    match kept {
        RecordContents::Items { first, data, ends } => Some(Items { first, count: ends.len() as u64 / 4, data, ends }),
        _ => None,
    }
}

fn outcomes(kept: RecordContents) -> Option<Outcomes> {
    match kept {
        RecordContents::Done { first, data, ends, failed, attempts } => {
            Some(Outcomes::Done { first, count: ends.len() as u64 / 4, data, ends, failed, attempts })
        }
        RecordContents::Failed { first, count, failure } => Some(Outcomes::Failed { first, count, failure }),
        _ => None,
    }
}
