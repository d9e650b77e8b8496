//! Feeds the pools of jobs from the store while there is room.
//!
//! All jobs share a quarter of the memory. When that is used up, a job that has nothing in memory may read one record,
//! but only while slots are idle: other jobs may hold memory because no agent can run them. Before items are given out,
//! the store records that they may have been given out. After a restart, all items up to there are resent before the
//! pool resumes. So items that agents hold are adopted, or count as lost if they must not run twice.

use farpool_common::log::{error, warn};
use farpool_coordinator::ClientId;
use farpool_coordinator::convert::Batch;
use farpool_proto::v1::{self, EndItems, FailureKind, PoolReopened, client_message as ask};
use farpool_store::{Entry, Items, Read};

use super::super::super::link::ReadResult;
use super::super::round::Round;
use super::durable::OnDurable;
use super::feed::{READ_BYTES, Step, failure};
use super::runner::Runner;
use super::tracked_store::TrackedStore;

/// The most steps that one job takes in a round.
const STEPS: usize = 16;

/// How often to check whether jobs that have nothing in memory may read items, in ns.
const CHECK_NS: u64 = 50_000_000;

impl Runner {
    /// Returns whether another round has something to do, even without input.
    pub(super) fn has_more(&self) -> bool {
        !self.to_feed.is_empty()
    }

    /// Feeds all jobs that may have room.
    pub(super) fn feed_all(&mut self, tracked: &mut TrackedStore, round: &mut Round) {
        if self.check_at.is_some_and(|at| at <= round.now) {
            self.check_at = None;
            self.to_feed.append(&mut self.waiting_for_memory);
        }
        if self.to_feed.is_empty() {
            return;
        }
        self.update_total(round);
        let mut to_feed = std::mem::take(&mut self.to_feed);
        to_feed.sort_unstable();
        to_feed.dedup();
        to_feed.into_iter().for_each(|id| self.feed(tracked, round, id));
    }

    /// Handles items that were read.
    pub(super) fn handle_items(
        &mut self,
        tracked: &mut TrackedStore,
        round: &mut Round,
        id: ClientId,
        read: Read<Items>,
    ) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.feed.reading = None;
        let Some(job) = tracked.job(run.job).filter(|_| !run.ended) else { return self.to_feed.push(id) };
        let unavailable = run.feed.take(read, &job.done);
        if let Some(error) = unavailable {
            warn!(round.link.log, job = job.name(), %error, "cannot read items of a detached job; retrying");
            self.try_again(round.now);
        } else {
            if run.feed.lost > run.feed.next {
                let reason = &run.feed.why_lost;
                error!(round.link.log, job = job.name(), reason, "items of a detached job are lost");
            }
            self.to_feed.push(id);
        }
        self.note_fed(tracked, round, id);
    }

    /// Gives out items once it is durable that they may have been given out.
    pub(super) fn give_noted(&mut self, tracked: &mut TrackedStore, round: &mut Round, id: ClientId) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.feed.awaits_durable_note = false;
            self.give(tracked, round, id);
        }
    }

    /// Feeds a job as far as possible now.
    fn feed(&mut self, tracked: &mut TrackedStore, round: &mut Round, id: ClientId) {
        for _ in 0..STEPS {
            let Some(step) = self.next_step(tracked, round, id) else { return self.recheck_if_waiting(round, id) };
            self.take_step(tracked, round, id, step);
        }
        self.to_feed.push(id);
    }

    /// Schedules another check of a job that has nothing in memory and may not read: it waits until other jobs have less in memory, or until
    /// slots are idle.
    fn recheck_if_waiting(&mut self, round: &Round, id: ClientId) {
        let Some(run) = self.runs.get(&id) else { return };
        let waits = !run.ended && !run.feed.input_ended && run.feed.is_empty();
        if waits && round.coordinator.stored_bytes_of(id) == 0 {
            self.waiting_for_memory.push(id);
            self.check_at.get_or_insert(round.now.saturating_add(CHECK_NS));
        }
    }

    /// Counts how much running jobs have in memory.
    fn update_total(&mut self, round: &Round) {
        let all = self.runs.iter().map(|(&id, run)| round.coordinator.stored_bytes_of(id) + run.feed.held());
        self.total_held = all.sum();
    }

    fn next_step(&self, tracked: &TrackedStore, round: &Round, id: ClientId) -> Option<Step> {
        let run = self.runs.get(&id).filter(|run| !run.ended)?;
        let job = tracked.job(run.job)?;
        run.feed.next_step(job, || self.has_room(round, id), || self.room_for(round, id))
    }

    /// Returns whether the pool takes another message of items.
    fn has_room(&self, round: &Round, id: ClientId) -> bool {
        let feed = self.runs.get(&id).map(|run| &run.feed);
        feed.is_some_and(|feed| feed.reopens() || feed.sent < feed.limit) || round.coordinator.lacks_chunk(id)
    }

    /// Returns how many bytes may be read for a job; `None` if none.
    fn room_for(&self, round: &Round, id: ClientId) -> Option<u64> {
        let feed = &self.runs.get(&id)?.feed;
        if feed.reopens.is_some() || round.coordinator.lacks_chunk(id) {
            return Some(READ_BYTES);
        }
        let window = feed.limit.checked_sub(feed.sent).filter(|window| *window > 0)?;
        let stored = round.coordinator.stored_bytes_of(id);
        let most = round.memory.bound / 4;
        if stored == 0 {
            return (self.total_held < most || round.coordinator.idles()).then_some(window);
        }
        // Leaves a share for the next job that starts.
        let share = most / (self.runs.len() as u64 + 1);
        let left = share.checked_sub(stored).filter(|left| *left > 0 && !round.memory.is_full)?;
        Some(left.min(window))
    }

    fn take_step(&mut self, tracked: &mut TrackedStore, round: &mut Round, id: ClientId, step: Step) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        match step {
            Step::Lose(first, count) => {
                let message = format!("the journal lost the item before it ran: {}", run.feed.why_lost);
                let failure = failure(FailureKind::Unavailable, message);
                if let Err(error) =
                    tracked.store_mut().append(run.job, Entry::Failed { first, count, failure: &failure })
                {
                    error!(round.link.log, %error, "the journal does not take outcomes");
                }
                run.feed.next = first + count;
                self.notified.push(id);
            }
            Step::Read(range, bytes) => {
                let reading = tracked.store().read_items(run.job, range, bytes);
                run.feed.reading = Some(reading.bytes());
                self.total_held += reading.bytes();
                round.link.read(reading, move |items| ReadResult::Items(id, items));
            }
            Step::Give => self.give(tracked, round, id),
            Step::EndInput => {
                run.feed.input_ended = true;
                let job = run.wire_number;
                self.send_as(tracked, round, id, ask::Body::EndItems(EndItems { job }));
            }
            Step::Reopened => {
                run.feed.reopens = None;
                self.send_as(tracked, round, id, ask::Body::PoolReopened(PoolReopened {}));
            }
        }
    }

    /// Gives out items that were read: at once, or when it is durable that they may have been given out.
    fn note_fed(&mut self, tracked: &mut TrackedStore, round: &mut Round, id: ClientId) {
        let Some(run) = self.runs.get_mut(&id).filter(|run| !run.feed.ready.is_empty()) else { return };
        let fed = tracked.job(run.job).map_or(u64::MAX, |job| job.fed);
        if run.feed.next > fed {
            // An error means that the job is gone.
            let _ = tracked.store_mut().append(run.job, Entry::Fed { end: run.feed.next });
            if run.at_most_once {
                run.feed.awaits_durable_note = true;
                return tracked.when_durable(OnDurable::Give(id));
            }
        }
        self.give(tracked, round, id);
    }

    /// Gives out items that were read while there is room.
    fn give(&mut self, tracked: &mut TrackedStore, round: &mut Round, id: ClientId) {
        while self.has_room(round, id)
            && let Some(run) = self.runs.get_mut(&id)
            && let Some(batch) = run.feed.ready.pop_front()
        {
            run.feed.sent += batch.bytes();
            let Batch { first, data, ends, .. } = batch;
            let items = v1::Items { job: run.wire_number, first, data, ends };
            self.send_as(tracked, round, id, ask::Body::Items(items));
        }
        self.to_feed.push(id);
    }
}
