//! What a journal can be told.

use std::fmt;

use bytes::Bytes;
use farpool_common::units::ByteSize;
use farpool_proto::v1::journal_record::{self as record, Body};
use farpool_proto::v1::{Failure, OpenJob, OpenPool};
use prost::Message;

use super::group::Withdrawal;
use super::located::key;
use super::owner::Journal;
use super::record::MAX_LENGTH;
use super::settings::LONGEST_NAME;
use super::tail::Tail;
use crate::error::{JobStoreError, JobStoreErrorKind};
use crate::job::{Job, Known, Phase};

/// Nothing here is durable before what [`flush`](Self::flush) said is. Times are milliseconds since 1970. What is said of a
/// job that runs is taken in any case, also while nothing can be written.
impl Journal {
    /// Whether jobs and items of so many bytes would be taken now. If it is [`Full`](JobStoreErrorKind::Full) or
    /// [`Busy`](JobStoreErrorKind::Busy), that may change with every [`progress`](Self::progress).
    ///
    /// # Errors
    /// Why not.
    pub(super) fn would_fit(&self, bytes: u64) -> Result<(), JobStoreError> {
        self.check_writes()?;
        let (records, most_records) = (self.index.segments.entries, self.settings.most_records());
        if self.bytes() + bytes > self.settings.room_for_items() {
            return Err(full(format_args!("{} of {}", ByteSize(self.live_bytes()), ByteSize(self.settings.size))));
        }
        if records >= most_records {
            return Err(full(format_args!("{records} of {most_records} records")));
        }
        if self.backlog() >= self.settings.backlog {
            let backlog = ByteSize(self.backlog());
            let message = format_args!("the journal's disk does not keep up: {backlog} wait to be written");
            return Err(JobStoreError::new(JobStoreErrorKind::Busy, message));
        }
        Ok(())
    }

    /// Whether items should go on being run: their results are taken in any case, but the journal would become larger
    /// than it may be, or they would fill the memory.
    pub(super) fn has_room_for_outcomes(&self) -> bool {
        self.failed.is_none() && self.bytes() < self.settings.size && self.backlog() < 2 * self.settings.backlog
    }

    /// Opens a pool, in which jobs can be opened until it is closed; returns its number.
    ///
    /// # Errors
    /// If there is no room, or nothing can be written.
    pub(super) fn open_pool(&mut self, open: &OpenPool) -> Result<u64, JobStoreError> {
        let pool = self.index.last_pool + 1;
        let body = Body::PoolOpened(record::PoolOpened { pool });
        let payload = [open.encode_to_vec().into()];
        self.admit(&body, &payload)?;
        self.append(&body, &payload);
        Ok(pool)
    }

    /// No more jobs are opened in a pool. Those that are there go on.
    pub(super) fn close_pool(&mut self, pool: u64) {
        self.index.release_pool(pool);
    }

    /// Opens a job in a pool; returns its number.
    ///
    /// # Errors
    /// If the name is taken or none, if there is no such pool, if there is no room, or if nothing can be written.
    pub(super) fn open_job(
        &mut self,
        pool: u64,
        known: impl Into<Known>,
        open: &OpenJob,
        now_ms: u64,
    ) -> Result<u64, JobStoreError> {
        let known = known.into();
        let key = key(&known);
        let Known { owner, name, id, result, format, label, named } = known;
        if name.is_empty() || name.len() > LONGEST_NAME {
            let message = format_args!("a job's name has 1 to {LONGEST_NAME} bytes");
            return Err(JobStoreError::new(JobStoreErrorKind::Invalid, message));
        }
        if self.index.names.contains_key(&key) {
            let message = format_args!("there already is a job {name:?}");
            return Err(JobStoreError::new(JobStoreErrorKind::NameTaken, message));
        }
        if !self.index.pools.get(&pool).is_some_and(|pool| pool.held) {
            return Err(JobStoreError::new(JobStoreErrorKind::NotFound, format_args!("pool {pool} is not open")));
        }
        let job = self.index.last_job + 1;
        let owner = Some(owner.to_message());
        let opened = record::JobOpened { job, pool, name, at_ms: now_ms, id, result, format, label, named, owner };
        let body = Body::JobOpened(Box::new(opened));
        let payload = [open.encode_to_vec().into()];
        self.admit(&body, &payload)?;
        self.append(&body, &payload);
        Ok(job)
    }

    /// Items come, in the layout of `farpool.v1.Items`: behind those that came before.
    ///
    /// # Errors
    /// If the job does not take them, if there is no room, or if nothing can be written.
    pub(super) fn items(&mut self, job: u64, first: u64, data: Bytes, ends: Bytes) -> Result<(), JobStoreError> {
        let there = self.there(job)?;
        let count = count(first, &data, &ends)?;
        if there.phase() != Phase::Feeding || first < there.end {
            let message = format_args!("items from {first} on come behind the end of job {job}");
            return Err(JobStoreError::new(JobStoreErrorKind::Invalid, message));
        }
        let (body, payload) = (Body::Items(record::Items { job, first, count }), [data, ends]);
        self.admit(&body, &payload)?;
        self.append(&body, &payload);
        Ok(())
    }

    /// No more items come. `end` is one behind the highest index.
    ///
    /// # Errors
    /// If there is no such job, or nothing can be written.
    pub(super) fn end_items(&mut self, job: u64, end: u64, now_ms: u64) -> Result<(), JobStoreError> {
        self.there(job)?;
        self.check_writes()?;
        let place = self.append(&Body::ItemsEnded(record::ItemsEnded { job, end, at_ms: now_ms }), &[]);
        self.completing.insert(job, Withdrawal { number: self.tail.number, place });
        Ok(())
    }

    /// Makes a job incomplete again of which it is not durable that no more items come, while nothing can be written. Not at once, and
    /// perhaps not at all: `Progress::withdrawn` has the job when it is so. From then on it
    /// is never found complete, whenever the coordinator ends.
    pub(super) fn withdraw_end(&mut self, job: u64) {
        let Some(&withdrawal) = self.completing.get(&job) else { return };
        // A summary of it that is as new says the same, and would be found instead.
        let state = self.located(job).and_then(|located| located.state);
        if state.is_none_or(|place| self.is_durable(place)) && self.withdrawing.insert(job) {
            self.shared.withdraw(withdrawal);
        }
    }

    /// Forgets a job that is not complete, also while nothing can be written: its name is free at once. As long as that is not durable
    /// it may be found again, incomplete. If nothing can be written, its items are not either, and those that were go where
    /// they are the last ones: they may be what has filled the disk.
    ///
    /// # Errors
    /// If there is no such job, or if it is complete.
    pub(super) fn forget_incomplete(&mut self, job: u64) -> Result<(), JobStoreError> {
        if self.there(job)?.phase() != Phase::Feeding {
            return Err(JobStoreError::new(JobStoreErrorKind::Invalid, format_args!("job {job} is complete")));
        }
        self.append(&Body::JobForgotten(record::JobForgotten { job }), &[]);
        if self.failed.is_some() {
            self.shared.refuse(job);
        }
        Ok(())
    }

    /// Items were run, with these results in the layout of `farpool.v1.ItemsDone`. `failed`: they count as failed. `attempts`: how
    /// many each took; 0: one.
    ///
    /// # Errors
    /// If one of them has an outcome already, if there is no such job, or if they are too long for a record.
    pub(super) fn done(
        &mut self,
        job: u64,
        first: u64,
        data: Bytes,
        ends: Bytes,
        failed: bool,
        attempts: u32,
    ) -> Result<(), JobStoreError> {
        let count = count(first, &data, &ends)?;
        self.lack_outcomes(job, first, first + count)?;
        let longest = data.len() as u64 + ends.len() as u64 + 64;
        check_length(longest)?;
        self.gather(job, first, data, ends, (failed, attempts));
        Ok(())
    }

    /// Consecutive items, at least one, have failed alike.
    ///
    /// # Errors
    /// If one of them has an outcome already, if there is no such job, or if it is too long for a record.
    pub(super) fn failed(&mut self, job: u64, first: u64, count: u64, failure: &Failure) -> Result<(), JobStoreError> {
        let end = first.checked_add(count).filter(|_| count > 0);
        let end =
            end.ok_or_else(|| JobStoreError::new(JobStoreErrorKind::Invalid, "no item, or none that is as high"))?;
        self.lack_outcomes(job, first, end)?;
        let body = Body::ItemsFailed(record::ItemsFailed { job, first, count });
        let payload = [failure.encode_to_vec().into()];
        check_length(Tail::length(&body, &payload))?;
        self.append(&body, &payload);
        Ok(())
    }

    /// Items in front of this index may be at agents when this is durable.
    ///
    /// # Errors
    /// If there is no such job.
    pub(super) fn fed(&mut self, job: u64, end: u64) -> Result<(), JobStoreError> {
        self.there(job)?;
        self.append(&Body::ItemsFed(record::ItemsFed { job, end }), &[]);
        Ok(())
    }

    /// The job's pool runs at an agent from now on, or does not any more.
    ///
    /// # Errors
    /// If there is no such job.
    pub(super) fn placed(&mut self, job: u64, agent: Bytes, gone: bool) -> Result<(), JobStoreError> {
        self.there(job)?;
        self.append(&Body::Placed(record::Placed { job, agent, gone }), &[]);
        Ok(())
    }

    /// No more outcomes come. `failure`: the pool cannot run.
    ///
    /// # Errors
    /// If there is no such job.
    pub(super) fn end_job(
        &mut self,
        job: u64,
        cancelled: bool,
        failure: Option<Failure>,
        now_ms: u64,
    ) -> Result<(), JobStoreError> {
        self.there(job)?;
        let ended = record::JobEnded { job, cancelled, at_ms: now_ms, failure };
        self.append(&Body::JobEnded(Box::new(ended)), &[]);
        Ok(())
    }

    /// Nobody wants the job any more: all of it goes, and its name is free.
    ///
    /// # Errors
    /// If there is no such job, or nothing can be written.
    pub(super) fn forget(&mut self, job: u64) -> Result<(), JobStoreError> {
        self.there(job)?;
        self.say(&Body::JobForgotten(record::JobForgotten { job }))
    }

    /// Forgets jobs that ended long enough ago, and says which they were and how they were called.
    ///
    /// # Errors
    /// If nothing can be written.
    pub(super) fn expire(&mut self, now_ms: u64) -> Result<Vec<(u64, String)>, JobStoreError> {
        let expiry = self.settings.expiry.as_millis().try_into().unwrap_or(u64::MAX);
        let Some(since) = now_ms.checked_sub(expiry) else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for job in self.index.waiting_since(since).collect::<Vec<_>>() {
            names.extend(self.job(job).map(|known| (job, known.name().to_owned())));
            self.forget(job)?;
        }
        Ok(names)
    }

    /// When [`expire`](Self::expire) has something to do next, as far as is known.
    pub(super) fn next_expiry(&self) -> Option<u64> {
        let expiry = self.settings.expiry.as_millis().try_into().unwrap_or(u64::MAX);
        self.index.first_waits_since().map(|since| since.saturating_add(expiry))
    }

    pub(super) fn check_writes(&self) -> Result<(), JobStoreError> {
        match &self.failed {
            None => Ok(()),
            Some(reason) => {
                let directory = self.settings.directory.display();
                let message =
                    format_args!("the journal in {directory} cannot be written to: {reason}; it is tried again");
                Err(JobStoreError::new(JobStoreErrorKind::Io, message))
            }
        }
    }

    /// Whether a record that makes the journal larger may come.
    fn admit(&self, body: &Body, payload: &[Bytes]) -> Result<(), JobStoreError> {
        let length = Tail::length(body, payload);
        check_length(length)?;
        self.would_fit(length)
    }

    fn say(&mut self, body: &Body) -> Result<(), JobStoreError> {
        self.check_writes()?;
        self.append(body, &[]);
        Ok(())
    }

    fn there(&self, job: u64) -> Result<&Job, JobStoreError> {
        let missing = || JobStoreError::new(JobStoreErrorKind::NotFound, format_args!("there is no job {job}"));
        self.job(job).ok_or_else(missing)
    }

    fn lack_outcomes(&self, job: u64, first: u64, end: u64) -> Result<(), JobStoreError> {
        let there = self.there(job)?;
        let gathered = self.gathered.as_ref().is_some_and(|gathered| gathered.touches(job, first, end));
        if gathered || there.done.touches(first, end) {
            let message = format_args!("job {job} has an outcome already of items {first} to {}", end - 1);
            return Err(JobStoreError::new(JobStoreErrorKind::Invalid, message));
        }
        Ok(())
    }
}

fn full(of: impl fmt::Display) -> JobStoreError {
    let message = format_args!(
        "the journal of detached jobs is full ({of} in use by jobs that are running or not yet discarded)"
    );
    JobStoreError::new(JobStoreErrorKind::Full, message)
}

/// How many items these are.
fn count(first: u64, data: &Bytes, ends: &Bytes) -> Result<u64, JobStoreError> {
    let count = ends.len() as u64 / 4;
    let last = ends.last_chunk::<4>().map(|end| u32::from_le_bytes(*end) as usize);
    let sound = ends.len().is_multiple_of(4) && last == Some(data.len()) && first.checked_add(count).is_some();
    sound.then_some(count).ok_or_else(|| {
        let message = format_args!("items from {first} on do not end where their bytes do");
        JobStoreError::new(JobStoreErrorKind::Invalid, message)
    })
}

fn check_length(length: u64) -> Result<(), JobStoreError> {
    if length > MAX_LENGTH {
        let message = format_args!("{} are too much for a record of the journal", ByteSize(length));
        return Err(JobStoreError::new(JobStoreErrorKind::Invalid, message));
    }
    Ok(())
}
