use std::collections::VecDeque;
use std::num::NonZeroU64;

use farpool_core::{Run, Window};
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{CancelJob, EndItems, Items, OpenJob};

use super::batch::Batch;
use super::send_state::{SendState, StartMessages};
use super::{Fresh, Violation};

/// A job that has not ended, with its items that have no outcome yet, or are not durable yet if the job is being detached.
pub(super) struct KeptJob {
    open: Box<OpenJob>,
    opened: SendState,
    /// In order of items; those already sent come first. A batch is removed when all its items have their outcome, or
    /// are durable.
    batches: VecDeque<Batch>,
    /// Index after the last item.
    end: u64,
    /// Bytes of items (data and ends) since the job's start, as the feeding thread counts them.
    sent_bytes: u64,
    input_ended: bool,
    pub(super) cancelled: bool,
    /// By how much the coordinator's count is less than `sent_bytes`, since finished items are not resent.
    offset: u64,
}

impl KeptJob {
    pub(super) fn new(open: Box<OpenJob>, opened: SendState) -> Self {
        let batches = VecDeque::new();
        Self { open, opened, batches, end: 0, sent_bytes: 0, input_ended: false, cancelled: false, offset: 0 }
    }

    pub(super) fn keep(&mut self, items: &Items, send_state: SendState) {
        let batch = Batch::new(items, send_state);
        self.end = batch.run().end();
        self.sent_bytes += bytes(items);
        self.batches.push_back(batch);
    }

    /// Turns off retries of panics and failures, for when the job is reopened.
    pub(super) fn stop_retries(&mut self) {
        (self.open.retry_panics, self.open.retry_failed) = (false, false);
    }

    pub(super) fn end_input(&mut self) {
        self.input_ended = true;
    }

    /// Notes outcomes, which may be of any items.
    pub(super) fn note(&mut self, first: u64, count: u64) -> Fresh {
        // The consumer finds that these items were never sent, and reports it.
        if count == 0 || first.checked_add(count).is_none_or(|end| end > self.end) {
            return Fresh::All;
        }
        let run = Run::new(first, count);
        let at = self.position(first);
        let batch = self.batches.get_mut(at).filter(|batch| batch.run().covers(first, count));
        if batch.is_some_and(|batch| batch.note(run)) {
            self.release(at);
            return Fresh::All;
        }
        self.note_parts(run)
    }

    /// Notes outcomes of items in several batches. Some of the items may already have their outcomes.
    fn note_parts(&mut self, run: Run) -> Fresh {
        let mut fresh = Vec::new();
        let mut next = run.first;
        while next < run.end() {
            let at = self.position(next);
            let Some(batch) = self.batches.get_mut(at) else { break };
            let (from, to) = (next.max(batch.run().first), run.end().min(batch.run().end()));
            if from >= to {
                break;
            }
            let part = Run::new(from, to - from);
            if batch.note(part) {
                join(&mut fresh, part);
            } else {
                let single = (from..to).map(|item| Run::new(item, 1));
                single.filter(|item| batch.note(*item)).for_each(|item| join(&mut fresh, item));
            }
            self.release(at);
            next = to;
        }
        if fresh == [run] { Fresh::All } else { Fresh::Some(fresh) }
    }

    /// Returns how many messages of items are kept.
    pub(super) fn batches(&self) -> usize {
        self.batches.len()
    }

    /// Returns the position of the batch with this item, if there is one.
    fn position(&self, item: u64) -> usize {
        match self.batches.front() {
            Some(front) if item < front.run().end() => 0,
            _ => self.batches.partition_point(|batch| batch.run().end() <= item),
        }
    }

    fn release(&mut self, at: usize) {
        if self.batches[at].is_complete() {
            self.batches.remove(at);
        }
    }

    /// Returns whether all its items have their outcome, and no more will come.
    pub(super) fn is_finished(&self) -> bool {
        self.input_ended && self.batches.is_empty() && self.open.detach.is_none()
    }

    /// Notes that the session has ended, and that `sent` of its messages may have arrived.
    pub(super) fn end_session(&mut self, sent: u64) {
        let batches = self.batches.iter_mut().map(|batch| &mut batch.send_state);
        batches.chain([&mut self.opened]).for_each(|send_state| send_state.end_session(sent));
    }

    /// Notes that items before this one are durable, or with `complete` the whole job.
    pub(super) fn note_durable(&mut self, items: u64, complete: bool) -> Result<(), Violation> {
        let Some(detach) = &mut self.open.detach else { return Ok(()) };
        let never_sent = || Violation::Invalid("reports items as durable that it was never sent".to_owned());
        if complete {
            return if self.input_ended { Ok(()) } else { Err(never_sent()) };
        }
        let before = detach.durable;
        if items < before {
            return Err(Violation::ItemsLost);
        }
        if items > self.end {
            return Err(never_sent());
        }
        detach.durable = items;
        // Each was noted once.
        let _ = self.note(before, items - before);
        Ok(())
    }

    /// Returns how many items are durable, if the job is being detached.
    pub(super) fn durable(&self) -> u64 {
        self.open.detach.as_ref().map_or(0, |detach| detach.durable)
    }

    /// Removes and returns the items that may have run and must not run again.
    pub(super) fn take_lost(&mut self) -> Vec<Run> {
        // Nothing of a job runs while it is being detached.
        if self.open.retries > 0 || self.open.detach.is_some() {
            return Vec::new();
        }
        let (gone, kept): (VecDeque<_>, _) =
            std::mem::take(&mut self.batches).into_iter().partition(|batch| batch.send_state == SendState::Sent);
        self.batches = kept;
        gone.iter().flat_map(Batch::unfinished_runs).collect()
    }

    /// Resends messages that were sent before, to a coordinator that does not know the job and has windows of this size.
    pub(super) fn resend_sent(&mut self, messages: &mut StartMessages, window: u64) {
        if self.is_shared() {
            return;
        }
        self.offset = self.sent_bytes;
        if self.open.detach.is_some() {
            // No agent can have any item.
            self.opened = messages.push(Body::OpenJob(self.open.clone()));
            self.push_items(messages, |_| true);
            self.push_end(messages);
            return;
        }
        if self.opened != SendState::Sent {
            return;
        }
        messages.push(Body::OpenJob(self.open.clone()));
        self.push_items(messages, |send_state| send_state == SendState::Sent);
        // A smaller window would refuse the rest later. So send the rest now, while no window applies.
        if !self.is_rest_admitted(window) || !self.has_rest() {
            self.push_rest(messages);
        }
    }

    /// Sends the messages that were never sent, which only the client knows.
    pub(super) fn send_unsent(&mut self, messages: &mut StartMessages) {
        if self.open.detach.is_some() || self.is_shared() {
            return;
        }
        if self.opened == SendState::Unsent {
            self.opened = messages.push(Body::OpenJob(self.open.clone()));
            self.push_rest(messages);
        } else if self.has_rest() {
            self.push_rest(messages);
        }
    }

    /// Sends a shared value, whether it was sent before or not.
    pub(super) fn push_shared(&mut self, messages: &mut StartMessages) {
        if self.is_shared() {
            self.opened = messages.push(Body::OpenJob(self.open.clone()));
        }
    }

    /// Drops a shared value, if the client has. All jobs that may use it come before.
    pub(super) fn push_drop(&self, messages: &mut StartMessages) {
        if self.cancelled && self.is_shared() {
            messages.push(Body::CancelJob(CancelJob { job: self.open.job }));
        }
    }

    /// Returns whether it is a shared value.
    pub(super) fn is_shared(&self) -> bool {
        self.open.shared
    }

    fn has_rest(&self) -> bool {
        self.batches.back().is_some_and(|batch| batch.send_state == SendState::Unsent)
    }

    /// Returns whether the new window admits all unsent messages after the sent ones.
    fn is_rest_admitted(&self, window: u64) -> bool {
        let mut window = Window::new(window.max(1), NonZeroU64::new(self.open.chunksize));
        self.batches.iter().all(|batch| {
            let admits = batch.send_state == SendState::Sent || window.admits();
            batch.unfinished_runs().for_each(|run| window.arrive(run.count, batch.bytes_of(run)));
            admits
        })
    }

    fn push_rest(&mut self, messages: &mut StartMessages) {
        self.push_items(messages, |send_state| send_state == SendState::Unsent);
        self.push_end(messages);
    }

    fn push_end(&self, messages: &mut StartMessages) {
        if self.input_ended {
            messages.push(Body::EndItems(EndItems { job: self.open.job }));
        }
    }

    fn push_items(&mut self, messages: &mut StartMessages, of: impl Fn(SendState) -> bool) {
        for batch in self.batches.iter_mut().filter(|batch| of(batch.send_state)) {
            let mut send_state = batch.send_state;
            for run in batch.unfinished_runs() {
                let items = batch.cut(self.open.job, run);
                self.offset -= bytes(&items);
                send_state = messages.push(Body::Items(items));
            }
            // A batch that was sent once stays sent.
            if batch.send_state == SendState::Unsent {
                batch.send_state = send_state;
            }
        }
    }

    /// Converts the coordinator's limit to the count of the feeding thread.
    pub(super) fn translate(&self, limit: u64) -> u64 {
        limit.saturating_add(self.offset)
    }
}

fn bytes(items: &Items) -> u64 {
    (items.data.len() + items.ends.len()) as u64
}

fn join(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.end() == run.first => last.count += run.count,
        _ => runs.push(run),
    }
}
