//! The contents of the journal: which jobs there are, their state, and the locations of the records that are needed.
//!
//! Records are applied one by one, in the order of the log, in the same way when they are written and when they are
//! read at the start. Compaction moves records after later ones, and after a crash a record may exist twice. So the
//! order of a job's records does not matter, except that its end ([`JobForgotten`]) comes last. The items
//! with outcomes are a set, and a record with the same items as an earlier one replaces it.

use std::collections::{BTreeMap, BTreeSet};

use farpool_coordinator::Principal;
use farpool_proto::v1::journal_record::{Body, JobForgotten, JobOpened, JobState};

use super::located::{JobKey, Located, Piece, key, overlapping};
use super::location::RecordLocation;
use super::part::Part;
use super::record::run;
use super::segments::Segments;
use crate::job::{Ended, Job, Known};
use crate::runs::pairs;

/// The in-memory index of what is on disk.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) jobs: BTreeMap<u64, Located>,
    pub(super) names: BTreeMap<JobKey, u64>,
    pub(super) pools: BTreeMap<u64, Pool>,
    pub(super) forgotten: BTreeMap<u64, Forgotten>,
    pub(super) segments: Segments,
    /// Jobs that wait to be picked up, by their time.
    waiting: BTreeSet<(u64, u64)>,
    pub(super) last_job: u64,
    pub(super) last_pool: u64,
}

/// A pool in which jobs were opened.
#[derive(Debug, Default)]
pub(super) struct Pool {
    pub(super) opened: Option<RecordLocation>,
    pub(super) jobs: u64,
    /// Whether more jobs may be opened in it.
    pub(super) held: bool,
}

/// A forgotten job, as long as it has records: the record that states this must outlive the others.
#[derive(Debug)]
pub(super) struct Forgotten {
    pub(super) record: RecordLocation,
    /// Number of segments with records of it.
    pub(super) segments: u32,
}

impl Index {
    /// Returns why a record cannot come next, if so.
    pub(super) fn misfit(&self, body: &Body) -> Option<String> {
        match body {
            Body::JobOpened(opened) => {
                let other = self.names.get(&key_of(opened)).filter(|&&job| job != opened.job)?;
                Some(format!("job {} is called {:?}, as job {other} is", opened.job, opened.name))
            }
            Body::Items(_) | Body::ItemsDone(_) | Body::ItemsFailed(_) => {
                let (job, first, count) = run(body)?;
                let end = first + count;
                let known = self.jobs.get(&job)?;
                let pieces = if matches!(body, Body::Items(_)) { &known.items } else { &known.outcomes };
                // A record that was moved is unchanged, so it replaces whole records.
                let mut others = overlapping(pieces, first, end);
                let part = others.find(|&(at, piece)| at < first || piece.end(at) > end)?;
                Some(format!("items {first} to {end} of job {job} are a part of what is there from item {} on", part.0))
            }
            _ => None,
        }
    }

    /// The job was discarded, and its name now belongs to another job.
    pub(super) fn free_name(&mut self, number: u64) {
        if let Some(Located { job, .. }) = self.jobs.get_mut(&number) {
            self.names.remove(&key(&job.known));
            job.known.name.clear();
        }
    }

    /// The record that made a job complete was withdrawn.
    pub(super) fn mark_incomplete(&mut self, number: u64) {
        if let Some(Located { job, .. }) = self.jobs.get_mut(&number) {
            (job.items_ended, job.complete_ms) = (false, 0);
        }
    }

    /// Applies a record that fits.
    pub(super) fn apply(&mut self, body: &Body, location: RecordLocation) {
        self.segments.written(location);
        match body {
            Body::PoolOpened(opened) => self.pool_opened(opened.pool, location),
            Body::JobOpened(opened) => self.job_opened(opened, location),
            Body::Items(run) => self.items(run.job, run.first, run.count, location),
            Body::ItemsDone(run) => self.outcomes(run.job, run.first, run.count, run.failed, location),
            Body::ItemsFailed(run) => self.outcomes(run.job, run.first, run.count, true, location),
            Body::ItemsEnded(ended) => self.change(ended.job, location, |job| {
                (job.end, job.items_ended) = (job.end.max(ended.end), true);
                job.complete_ms = ended.at_ms;
            }),
            Body::ItemsFed(fed) => self.change(fed.job, location, |job| job.fed = job.fed.max(fed.end)),
            Body::Placed(placed) => self.change(placed.job, location, |job| match placed.gone {
                true => drop(job.agents.remove(&placed.agent)),
                false => drop(job.agents.insert(placed.agent.clone())),
            }),
            Body::JobEnded(ended) => self.change(ended.job, location, |job| {
                job.ended = Some(ended_kind(ended.cancelled, ended.failure.is_some()));
                job.failure = ended.failure.clone().map(Box::new);
                job.ended_ms = ended.at_ms;
            }),
            Body::JobForgotten(JobForgotten { job }) => self.forgotten(*job, location),
            Body::JobState(state) => self.state(state, location),
            Body::Sealed(_) | Body::Filler(_) => {}
        }
    }

    /// Returns jobs that have waited since this time or longer.
    pub(super) fn waiting_since(&self, at_ms: u64) -> impl Iterator<Item = u64> + '_ {
        self.waiting.range(..=(at_ms, u64::MAX)).map(|&(_, job)| job)
    }

    /// Returns when the longest-waiting job began to wait.
    pub(super) fn first_waits_since(&self) -> Option<u64> {
        self.waiting.first().map(|&(since, _)| since)
    }

    /// Closes a pool to new jobs: it is removed with its last one.
    pub(super) fn release_pool(&mut self, pool: u64) {
        if let Some(entry) = self.pools.get_mut(&pool) {
            entry.held = false;
            self.drop_unused(pool);
        }
    }

    /// Returns the location of the part, if it is still needed.
    pub(super) fn location_of(&self, part: Part) -> Option<RecordLocation> {
        match part {
            Part::Pool(pool) => self.pools.get(&pool)?.opened,
            Part::Opened(job) => self.jobs.get(&job)?.opened,
            Part::Items(job, first) => Some(self.jobs.get(&job)?.items.get(&first)?.location),
            Part::Outcomes(job, first) => Some(self.jobs.get(&job)?.outcomes.get(&first)?.location),
        }
    }

    /// A copy exists now, and is used from now on if it is still needed.
    pub(super) fn moved(&mut self, part: Part, to: RecordLocation) {
        let location = match part {
            Part::Pool(pool) => self.pools.get_mut(&pool).and_then(|pool| pool.opened.as_mut()),
            Part::Opened(job) => self.jobs.get_mut(&job).and_then(|located| located.opened.as_mut()),
            Part::Items(job, first) => {
                self.jobs.get_mut(&job).and_then(|job| job.items.get_mut(&first)).map(|piece| &mut piece.location)
            }
            Part::Outcomes(job, first) => {
                self.jobs.get_mut(&job).and_then(|job| job.outcomes.get_mut(&first)).map(|piece| &mut piece.location)
            }
        };
        if let Some(location) = location {
            let from = std::mem::replace(location, to);
            self.segments.keep(to);
            self.segments.release(from);
        }
    }

    /// A copy is about to be written.
    pub(super) fn copied(&mut self, part: Part, to: RecordLocation) {
        self.segments.written(to);
        if let Part::Pool(pool) = part {
            self.segments.all.get_mut(&to.segment).expect("the segment has no entry").pools.insert(pool);
        }
        if let Some(number) = part.job()
            && self.segments.note_job(to, number)
        {
            self.jobs.get_mut(&number).expect("the copied record belongs to no job").segments += 1;
        }
    }

    /// The segment is gone, and nothing refers to it.
    pub(super) fn remove_segment(&mut self, segment: u32) {
        let removed = self.segments.remove(segment);
        for number in removed.jobs {
            if let Some(located) = self.jobs.get_mut(&number) {
                located.segments -= 1;
            }
            if let Some(forgotten) = self.forgotten.get_mut(&number) {
                forgotten.segments -= 1;
                if forgotten.segments == 1 {
                    // Only the segment with the record itself remains.
                    let record = forgotten.record;
                    self.forgotten.remove(&number);
                    self.segments.release(record);
                }
            }
        }
    }

    fn pool_opened(&mut self, number: u64, location: RecordLocation) {
        self.last_pool = self.last_pool.max(number);
        self.segments.all.get_mut(&location.segment).expect("the segment has no entry").pools.insert(number);
        let pool = self.pools.entry(number).or_insert_with(|| Pool { held: true, ..Pool::default() });
        self.segments.keep(location);
        if let Some(before) = pool.opened.replace(location) {
            self.segments.release(before);
        }
    }

    fn job_opened(&mut self, opened: &JobOpened, location: RecordLocation) {
        if !self.enter(opened.job, location) {
            return;
        }
        let located = entry(&mut self.jobs, opened.job);
        let moved = located.opened.replace(location);
        located.pool = opened.pool;
        let JobOpened { name, id, result, format, label, wire_number, owner, .. } = opened.clone();
        let owner = Principal::named(owner.as_ref());
        located.job.known = Known { owner, name, id, result, format, label, wire_number };
        self.names.insert(key(&located.job.known), opened.job);
        self.segments.keep(location);
        match moved {
            Some(before) => self.segments.release(before),
            None => {
                let pool = self.pools.entry(opened.pool).or_insert_with(|| Pool { held: true, ..Pool::default() });
                pool.jobs += 1;
            }
        }
        self.wait(opened.job);
    }

    fn items(&mut self, number: u64, first: u64, count: u64, location: RecordLocation) {
        if !self.enter(number, location) {
            return;
        }
        let Located { job, items, .. } = entry(&mut self.jobs, number);
        let end = first + count;
        job.end = job.end.max(end);
        if job.done.covers(first, end) {
            return;
        }
        let moved: Vec<_> = overlapping(items, first, end).collect();
        items.insert(first, Piece { location, count: count as u32 });
        for (at, piece) in moved {
            if at != first {
                items.remove(&at);
            }
            self.segments.release(piece.location);
        }
        self.segments.keep(location);
    }

    fn outcomes(&mut self, number: u64, first: u64, count: u64, failed: bool, location: RecordLocation) {
        if !self.enter(number, location) {
            return;
        }
        let Located { job, outcomes, .. } = entry(&mut self.jobs, number);
        let end = first + count;
        let new = job.done.insert(first, end);
        job.failed += if failed { new } else { 0 };
        job.end = job.end.max(end);
        let moved: Vec<_> = overlapping(outcomes, first, end).collect();
        outcomes.insert(first, Piece { location, count: count as u32 });
        for (at, piece) in moved {
            if at != first {
                outcomes.remove(&at);
            }
            self.segments.release(piece.location);
        }
        self.segments.keep(location);
        self.drop_done(number, first, end);
    }

    fn forgotten(&mut self, number: u64, location: RecordLocation) {
        if let Some(forgotten) = self.forgotten.get_mut(&number) {
            // It was stated again because the segment with the old record is removed.
            forgotten.segments += u32::from(self.segments.note_job(location, number));
            let before = std::mem::replace(&mut forgotten.record, location);
            self.segments.keep(location);
            self.segments.release(before);
            return;
        }
        if !self.enter(number, location) {
            return;
        }
        let located = self.jobs.remove(&number).expect("no such job");
        let pieces = located.items.values().chain(located.outcomes.values()).map(|piece| piece.location);
        for location in pieces.chain(located.opened).chain(located.state) {
            self.segments.release(location);
        }
        if let Some(since) = located.waits_since {
            self.waiting.remove(&(since, number));
        }
        if located.opened.is_some() {
            let key = key(&located.job.known);
            if self.names.get(&key) == Some(&number) {
                self.names.remove(&key);
            }
            let pool = self.pools.get_mut(&located.pool).expect("the job's pool has no entry");
            pool.jobs -= 1;
            self.drop_unused(located.pool);
        }
        if located.segments > 1 {
            self.segments.keep(location);
            self.forgotten.insert(number, Forgotten { record: location, segments: located.segments });
        }
    }

    fn state(&mut self, state: &JobState, location: RecordLocation) {
        self.change(state.job, location, |job| {
            job.end = job.end.max(state.end);
            job.items_ended |= state.items_ended;
            if state.ended {
                job.ended = Some(ended_kind(state.cancelled, state.failure.is_some()));
                job.failure = state.failure.clone().map(Box::new);
            }
            job.failed = state.failed;
            pairs(&state.done).for_each(|(first, end)| _ = job.done.insert(first, end));
            job.fed = job.fed.max(state.fed);
            job.agents = state.agents.iter().cloned().collect();
            (job.complete_ms, job.ended_ms) = (state.complete_ms, state.ended_ms);
        });
        let Some(located) = self.jobs.get_mut(&state.job) else { return };
        let before = located.state.replace(location);
        self.segments.keep(location);
        before.into_iter().for_each(|before| self.segments.release(before));
        self.drop_done(state.job, 0, u64::MAX);
    }

    /// Drops items that all have outcomes.
    fn drop_done(&mut self, number: u64, first: u64, end: u64) {
        let Located { job, items, .. } = entry(&mut self.jobs, number);
        let over = |&(at, piece): &(u64, Piece)| job.done.covers(at, piece.end(at));
        let gone: Vec<_> = overlapping(items, first, end).filter(over).collect();
        for (at, piece) in gone {
            items.remove(&at);
            self.segments.release(piece.location);
        }
    }

    fn drop_unused(&mut self, number: u64) {
        let unused = |pool: &Pool| pool.jobs == 0 && !pool.held;
        if self.pools.get(&number).is_some_and(unused)
            && let Some(location) = self.pools.remove(&number).and_then(|pool| pool.opened)
        {
            self.segments.release(location);
        }
    }

    fn change(&mut self, number: u64, location: RecordLocation, change: impl FnOnce(&mut Job)) {
        if !self.enter(number, location) {
            return;
        }
        change(&mut entry(&mut self.jobs, number).job);
        self.wait(number);
    }

    /// Notes since when a job waits.
    fn wait(&mut self, number: u64) {
        let located = entry(&mut self.jobs, number);
        let since = located.may_expire();
        if since != located.waits_since {
            if let Some(before) = std::mem::replace(&mut located.waits_since, since) {
                self.waiting.remove(&(before, number));
            }
            self.waiting.extend(since.map(|since| (since, number)));
        }
    }

    /// Notes a record of this job at this location. The job gets an entry: the record may have been moved in front
    /// of the one that opens it. A forgotten job gets none.
    fn enter(&mut self, number: u64, location: RecordLocation) -> bool {
        if self.forgotten.contains_key(&number) {
            return false;
        }
        self.last_job = self.last_job.max(number);
        let first_here = self.segments.note_job(location, number);
        let located = self.jobs.entry(number).or_insert_with(|| Located::new(number));
        located.segments += u32::from(first_here);
        true
    }
}

/// Returns the key of the job that this record opened.
pub(super) fn key_of(opened: &JobOpened) -> JobKey {
    (Principal::named(opened.owner.as_ref()).tenant().to_owned(), opened.name.clone())
}

fn entry(jobs: &mut BTreeMap<u64, Located>, number: u64) -> &mut Located {
    jobs.get_mut(&number).expect("the job has no entry")
}

fn ended_kind(cancelled: bool, failed: bool) -> Ended {
    match (cancelled, failed) {
        (true, _) => Ended::Cancelled,
        (false, true) => Ended::Failed,
        (false, false) => Ended::Finished,
    }
}
