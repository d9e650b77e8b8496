//! Items from disk into the pool of a job, as far as there is room for them.
//!
//! Memory is for all jobs together: each has its share of a quarter of it. When that is used up, a job that has nothing may
//! have one record, but only while slots idle: others may hold theirs because no agent can run them. Before items are given out it is
//! noted that they may have been: after a restart all up to there are said again before the pool goes on, so that what
//! agents have of them is adopted, or counts as lost if it must not run twice.

use std::collections::VecDeque;
use std::ops::Range;

use farpool_common::log::{error, warn};
use farpool_coordinator::ClientId;
use farpool_coordinator::convert::Batch;
use farpool_proto::v1::{self, EndItems, FailureKind, PoolReopened, client_message as ask};
use farpool_store::{Entry, Items, Read, ReadError, Unread};

use super::super::super::link::WasRead;
use super::super::Driver;
use super::durable::Then;
use super::run::failure;

/// Bytes of items that are read in one go, if they are in several parts.
const READ_BYTES: u64 = 1 << 20;

/// Steps that are taken for one job in a round.
const STEPS: usize = 16;

/// How often to look whether jobs that have nothing in the memory may have something, in ns.
const LOOK_NS: u64 = 50_000_000;

/// What was given to the pool of a job, and what comes next.
#[derive(Default)]
pub(super) struct Feed {
    /// Items from this index on were not read.
    next: u64,
    /// Items in front of this index cannot be read.
    lost: u64,
    /// Why not.
    why_lost: String,
    /// Until items up to here are sent, the pool is being opened again.
    reopens: Option<u64>,
    /// Bytes that the pool was given, and how many it may be.
    sent: u64,
    pub(super) limit: u64,
    /// Bytes of items that are being read, if some are.
    reading: Option<u64>,
    /// What was read and waits until it may be given out: until there is room, and, if it is being noted, until that is durable.
    ready: VecDeque<Batch>,
    noting: bool,
    input_ended: bool,
}

enum Step {
    /// These items are not there.
    Lose(u64, u64),
    /// Items of this range are to be read, and how many bytes.
    Read(Range<u64>, u64),
    Give,
    EndInput,
    Reopened,
}

impl Feed {
    /// Of a job of which items in front of this index may have been given out.
    pub(super) fn new(fed: u64) -> Self {
        Self { reopens: Some(fed), ..Self::default() }
    }

    /// Whether the pool is still being opened again.
    pub(super) fn reopens(&self) -> bool {
        self.reopens.is_some()
    }

    pub(super) fn held(&self) -> u64 {
        self.reading.unwrap_or(0) + self.ready.iter().map(Batch::bytes).sum::<u64>()
    }

    /// Whether it has nothing, nor will when what is being read has come.
    fn is_empty(&self) -> bool {
        self.reading.is_none() && self.ready.is_empty()
    }

    /// Nothing is wanted any more.
    pub(super) fn forget(&mut self) {
        self.ready.clear();
    }
}

impl Driver {
    /// Goes on with a job as far as that is possible now.
    pub(super) fn feed(&mut self, id: ClientId) {
        for _ in 0..STEPS {
            let Some(step) = self.next_step(id) else { return self.look_again_if_starved(id) };
            self.take_step(id, step);
        }
        self.detached.hungry.push(id);
    }

    /// A job that has nothing in the memory, and is not let in, waits for others to have less or for slots that idle.
    fn look_again_if_starved(&mut self, id: ClientId) {
        let Some(run) = self.detached.runs.get(&id) else { return };
        let waits = !run.ended && !run.feed.input_ended && run.feed.is_empty();
        if waits && self.coordinator.stored_bytes_of(id) == 0 {
            self.detached.starved.push(id);
            self.detached.look_at.get_or_insert(self.now.saturating_add(LOOK_NS));
        }
    }

    /// What jobs that run have in the memory.
    pub(super) fn count_together(&mut self) {
        let all = self.detached.runs.iter().map(|(&id, run)| self.coordinator.stored_bytes_of(id) + run.feed.held());
        self.detached.together = all.sum();
    }

    fn next_step(&self, id: ClientId) -> Option<Step> {
        let run = self.detached.runs.get(&id).filter(|run| !run.ended)?;
        let feed = &run.feed;
        let job = self.detached.store.as_ref()?.job(run.job)?;
        if !feed.is_empty() {
            let may_go = feed.reading.is_none() && !feed.noting && self.has_room(id);
            return may_go.then_some(Step::Give);
        }
        let missing = job.done.gap(feed.next, job.end);
        if missing.is_none() && !feed.input_ended {
            return Some(Step::EndInput);
        }
        if let Some(up_to) = feed.reopens
            && missing.is_none_or(|(first, _)| first >= up_to)
        {
            return Some(Step::Reopened);
        }
        let (first, count) = missing?;
        if first < feed.lost {
            return Some(Step::Lose(first, count.min(feed.lost - first)));
        }
        // Not beyond what is said again.
        let up_to = feed.reopens.unwrap_or(job.end);
        Some(Step::Read(first..up_to, self.room_for(id)?.min(READ_BYTES)))
    }

    /// Whether the pool takes a further message of items.
    fn has_room(&self, id: ClientId) -> bool {
        let feed = self.detached.runs.get(&id).map(|run| &run.feed);
        feed.is_some_and(|feed| feed.reopens() || feed.sent < feed.limit) || self.coordinator.lacks_chunk(id)
    }

    /// How many bytes may be read for a job; none: nothing.
    fn room_for(&self, id: ClientId) -> Option<u64> {
        let feed = &self.detached.runs.get(&id)?.feed;
        if feed.reopens.is_some() || self.coordinator.lacks_chunk(id) {
            return Some(READ_BYTES);
        }
        let window = feed.limit.checked_sub(feed.sent).filter(|window| *window > 0)?;
        let stored = self.coordinator.stored_bytes_of(id);
        let most = self.memory.bound() / 4;
        if stored == 0 {
            return (self.detached.together < most || self.coordinator.idles()).then_some(window);
        }
        // Something is left for the next one that comes.
        let share = most / (self.detached.runs.len() as u64 + 1);
        let left = share.checked_sub(stored).filter(|left| *left > 0 && !self.memory.is_full())?;
        Some(left.min(window))
    }

    fn take_step(&mut self, id: ClientId, step: Step) {
        let Some(run) = self.detached.runs.get_mut(&id) else { return };
        let Some(store) = &mut self.detached.store else { return };
        match step {
            Step::Lose(first, count) => {
                let message = format!("the journal lost the item before it ran: {}", run.feed.why_lost);
                let failure = failure(FailureKind::Unavailable, message);
                if let Err(error) = store.append(run.job, Entry::Failed { first, count, failure: &failure }) {
                    error!(self.link.log, %error, "the journal does not take outcomes");
                }
                run.feed.next = first + count;
                self.detached.told.push(id);
            }
            Step::Read(range, bytes) => {
                let reading = store.read_items(run.job, range, bytes);
                run.feed.reading = Some(reading.bytes());
                self.detached.together += reading.bytes();
                self.link.read(reading, move |items| WasRead::Items(id, items));
            }
            Step::Give => self.give(id),
            Step::EndInput => {
                run.feed.input_ended = true;
                let job = run.named;
                self.say_for(id, ask::Body::EndItems(EndItems { job }));
            }
            Step::Reopened => {
                run.feed.reopens = None;
                self.say_for(id, ask::Body::PoolReopened(PoolReopened {}));
            }
        }
    }

    /// Items have been read.
    pub(super) fn take_items(&mut self, id: ClientId, read: Read<Items>) {
        let Some(run) = self.detached.runs.get_mut(&id) else { return };
        run.feed.reading = None;
        self.detached.hungry.push(id);
        let Some(store) = &mut self.detached.store else { return };
        let Some(job) = store.job(run.job).filter(|_| !run.ended) else { return };
        for Items { first, count, data, ends } in read.parts {
            let (batch, end) = (Batch { first, count, data, ends, failed: false }, first + count);
            while let Some((from, count)) = job.done.gap(run.feed.next.max(first), end) {
                let whole = (from, count) == (batch.first, batch.count);
                run.feed.ready.push_back(if whole { batch.clone() } else { batch.part(from, count) });
                run.feed.next = from + count;
            }
            run.feed.next = run.feed.next.max(end);
        }
        let mut unavailable = None;
        if let Some(Unread { first, count, error }) = read.unread {
            match error {
                ReadError::Lost(why) => (run.feed.lost, run.feed.why_lost) = (first + count, why),
                ReadError::Unavailable(why) => unavailable = Some(why),
            }
        }
        if let Some(error) = unavailable {
            warn!(self.link.log, job = job.name(), %error, "cannot read items of a detached job; retrying");
            self.detached.hungry.pop();
            self.try_again();
        } else if run.feed.lost > run.feed.next {
            error!(self.link.log, job = job.name(), reason = run.feed.why_lost, "items of a detached job are lost");
        }
        self.note_fed(id);
    }

    /// Gives out what was read, at once or when it is durable that it may have been given out.
    fn note_fed(&mut self, id: ClientId) {
        let Some(run) = self.detached.runs.get_mut(&id).filter(|run| !run.feed.ready.is_empty()) else { return };
        let Some(store) = &mut self.detached.store else { return };
        let fed = store.job(run.job).map_or(u64::MAX, |job| job.fed);
        if run.feed.next > fed {
            // An error means that the job is gone.
            let _ = store.append(run.job, Entry::Fed { end: run.feed.next });
            if run.at_most_once {
                run.feed.noting = true;
                return self.detached.then.push(Then::Give(id));
            }
        }
        self.give(id);
    }

    /// It is durable that items may have been given out.
    pub(super) fn was_noted(&mut self, id: ClientId) {
        if let Some(run) = self.detached.runs.get_mut(&id) {
            run.feed.noting = false;
            self.give(id);
        }
    }

    /// Gives out what was read, as far as there is room.
    fn give(&mut self, id: ClientId) {
        while self.has_room(id)
            && let Some(run) = self.detached.runs.get_mut(&id)
            && let Some(batch) = run.feed.ready.pop_front()
        {
            run.feed.sent += batch.bytes();
            let Batch { first, data, ends, .. } = batch;
            let items = v1::Items { job: run.named, first, data, ends };
            self.say_for(id, ask::Body::Items(items));
        }
        self.detached.hungry.push(id);
    }
}
