//! Appending to a journal.

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

/// Nothing is durable before the number from [`flush`](Self::flush) is. Times are milliseconds since 1970. Entries of a
/// running job are accepted in any case, even while nothing can be written.
impl Journal {
    /// Checks whether jobs and items of this many bytes would be accepted now. If it is
    /// [`Full`](JobStoreErrorKind::Full) or [`Busy`](JobStoreErrorKind::Busy), that may change with every
    /// [`progress`](Self::progress).
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

    /// Whether to continue running items. Otherwise their results are still accepted, but they exceed the journal's
    /// size or fill the memory.
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

    /// Closes a pool to new jobs. Its jobs continue.
    pub(super) fn close_pool(&mut self, pool: u64) {
        self.index.release_pool(pool);
    }

    /// Opens a job in a pool; returns its number.
    ///
    /// # Errors
    /// If the name is taken or empty, if there is no such pool, if there is no room, or if nothing can be written.
    pub(super) fn open_job(
        &mut self,
        pool: u64,
        known: impl Into<Known>,
        open: &OpenJob,
        now_ms: u64,
    ) -> Result<u64, JobStoreError> {
        let known = known.into();
        let key = key(&known);
        let Known { owner, name, id, result, format, label, wire_number } = known;
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
        let opened =
            record::JobOpened { job, pool, name, at_ms: now_ms, id, result, format, label, wire_number, owner };
        let body = Body::JobOpened(Box::new(opened));
        let payload = [open.encode_to_vec().into()];
        self.admit(&body, &payload)?;
        self.append(&body, &payload);
        Ok(job)
    }

    /// Appends items, in the layout of `farpool.v1.Items`, after all previous ones.
    ///
    /// # Errors
    /// If the job does not accept them, if there is no room, or if nothing can be written.
    pub(super) fn items(&mut self, job: u64, first: u64, data: Bytes, ends: Bytes) -> Result<(), JobStoreError> {
        let existing = self.existing(job)?;
        let count = count(first, &data, &ends)?;
        if existing.phase() != Phase::Feeding || first < existing.end {
            let message = format_args!("job {job} accepts no items from {first} on: it is complete, or has later ones");
            return Err(JobStoreError::new(JobStoreErrorKind::Invalid, message));
        }
        let (body, payload) = (Body::Items(record::Items { job, first, count }), [data, ends]);
        self.admit(&body, &payload)?;
        self.append(&body, &payload);
        Ok(())
    }

    /// Ends the items of a job. `end` is one above the highest index.
    ///
    /// # Errors
    /// If there is no such job, or nothing can be written.
    pub(super) fn end_items(&mut self, job: u64, end: u64, now_ms: u64) -> Result<(), JobStoreError> {
        self.existing(job)?;
        self.check_writes()?;
        let location = self.append(&Body::ItemsEnded(record::ItemsEnded { job, end, at_ms: now_ms }), &[]);
        self.completing.insert(job, Withdrawal { number: self.tail.number, location });
        Ok(())
    }

    /// Makes a job incomplete again, if its end of items is not durable and nothing can be written. This takes time,
    /// and may not succeed: `Progress::withdrawn` reports the job when it is done. After that, the job is never found
    /// complete, even if the coordinator ends at any time.
    pub(super) fn withdraw_end(&mut self, job: u64) {
        let Some(&withdrawal) = self.completing.get(&job) else { return };
        // A summary of the job that is not durable may say too that the job is complete, and would be found instead.
        let state = self.located(job).and_then(|located| located.state);
        if state.is_none_or(|location| self.is_durable(location)) && self.withdrawing.insert(job) {
            self.shared.withdraw(withdrawal);
        }
    }

    /// Forgets a job that is not complete, even while nothing can be written: its name is free at once. Until this is
    /// durable, the job may be found again, incomplete. If nothing can be written, its items are not written either,
    /// and those at the end of the log are cut off: they may be what has filled the disk.
    ///
    /// # Errors
    /// If there is no such job, or if it is complete.
    pub(super) fn forget_incomplete(&mut self, job: u64) -> Result<(), JobStoreError> {
        if self.existing(job)?.phase() != Phase::Feeding {
            return Err(JobStoreError::new(JobStoreErrorKind::Invalid, format_args!("job {job} is complete")));
        }
        self.append(&Body::JobForgotten(record::JobForgotten { job }), &[]);
        if self.failed.is_some() {
            self.shared.refuse(job);
        }
        Ok(())
    }

    /// Appends results of items, in the layout of `farpool.v1.ItemsDone`. `failed`: they count as failed. `attempts`:
    /// how many each took; 0: one.
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

    /// Appends the failure of consecutive items, at least one.
    ///
    /// # Errors
    /// If one of them has an outcome already, if there is no such job, or if it is too long for a record.
    pub(super) fn failed(&mut self, job: u64, first: u64, count: u64, failure: &Failure) -> Result<(), JobStoreError> {
        let end = first.checked_add(count).filter(|_| count > 0);
        let none = "there are no items, or their indices are too high";
        let end = end.ok_or_else(|| JobStoreError::new(JobStoreErrorKind::Invalid, none))?;
        self.lack_outcomes(job, first, end)?;
        let body = Body::ItemsFailed(record::ItemsFailed { job, first, count });
        let payload = [failure.encode_to_vec().into()];
        check_length(Tail::length(&body, &payload))?;
        self.append(&body, &payload);
        Ok(())
    }

    /// Records that items below this index may be at agents once this is durable.
    ///
    /// # Errors
    /// If there is no such job.
    pub(super) fn fed(&mut self, job: u64, end: u64) -> Result<(), JobStoreError> {
        self.existing(job)?;
        self.append(&Body::ItemsFed(record::ItemsFed { job, end }), &[]);
        Ok(())
    }

    /// Records that the job's pool runs at an agent from now on, or no longer does.
    ///
    /// # Errors
    /// If there is no such job.
    pub(super) fn placed(&mut self, job: u64, agent: Bytes, gone: bool) -> Result<(), JobStoreError> {
        self.existing(job)?;
        self.append(&Body::Placed(record::Placed { job, agent, gone }), &[]);
        Ok(())
    }

    /// Ends a job: no more outcomes will arrive. `failure`: the pool cannot run.
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
        self.existing(job)?;
        let ended = record::JobEnded { job, cancelled, at_ms: now_ms, failure };
        self.append(&Body::JobEnded(Box::new(ended)), &[]);
        Ok(())
    }

    /// Drops a job that is no longer needed, and frees its name.
    ///
    /// # Errors
    /// If there is no such job, or nothing can be written.
    pub(super) fn forget(&mut self, job: u64) -> Result<(), JobStoreError> {
        self.existing(job)?;
        self.append_checked(&Body::JobForgotten(record::JobForgotten { job }))
    }

    /// Forgets jobs whose outcomes have expired, and returns their numbers and names.
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

    /// Returns when [`expire`](Self::expire) next has something to do, as far as is known.
    pub(super) fn next_expiry(&self) -> Option<u64> {
        let expiry = self.settings.expiry.as_millis().try_into().unwrap_or(u64::MAX);
        self.index.first_waits_since().map(|since| since.saturating_add(expiry))
    }

    pub(super) fn check_writes(&self) -> Result<(), JobStoreError> {
        match &self.failed {
            None => Ok(()),
            Some(reason) => {
                let directory = self.settings.directory.display();
                let message = format_args!("the journal in {directory} cannot be written to: {reason}; retrying");
                Err(JobStoreError::new(JobStoreErrorKind::Io, message))
            }
        }
    }

    /// Checks whether a record may be added that makes the journal larger.
    fn admit(&self, body: &Body, payload: &[Bytes]) -> Result<(), JobStoreError> {
        let length = Tail::length(body, payload);
        check_length(length)?;
        self.would_fit(length)
    }

    fn append_checked(&mut self, body: &Body) -> Result<(), JobStoreError> {
        self.check_writes()?;
        self.append(body, &[]);
        Ok(())
    }

    fn existing(&self, job: u64) -> Result<&Job, JobStoreError> {
        let missing = || JobStoreError::new(JobStoreErrorKind::NotFound, format_args!("there is no job {job}"));
        self.job(job).ok_or_else(missing)
    }

    fn lack_outcomes(&self, job: u64, first: u64, end: u64) -> Result<(), JobStoreError> {
        let existing = self.existing(job)?;
        let gathered = self.gathered.as_ref().is_some_and(|gathered| gathered.touches(job, first, end));
        if gathered || existing.done.touches(first, end) {
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

/// Returns the number of items.
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
