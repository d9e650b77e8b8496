use std::collections::VecDeque;

use farpool_core::Run;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{EndItems, Items, OpenJob};

use super::Fresh;
use super::batch::Batch;

/// A job that has not ended, and what of its input has no outcome yet.
pub(super) struct Job {
    open: Box<OpenJob>,
    /// Rising. Those whose items all have their outcome are gone.
    batches: VecDeque<Batch>,
    /// One behind the last item that was sent.
    end: u64,
    /// Bytes of items (data and ends) that were sent since the job's start, as whoever feeds it counts them.
    sent_bytes: u64,
    input_ended: bool,
    pub(super) cancelled: bool,
    /// What the coordinator counts less than `sent_bytes`, since it was not sent again.
    offset: u64,
}

impl Job {
    pub(super) fn new(open: Box<OpenJob>) -> Self {
        Self { open, batches: VecDeque::new(), end: 0, sent_bytes: 0, input_ended: false, cancelled: false, offset: 0 }
    }

    pub(super) fn keep(&mut self, items: &Items, serial: u64) {
        let batch = Batch::new(items, serial);
        self.end = batch.run().end();
        self.sent_bytes += bytes(items);
        self.batches.push_back(batch);
    }

    pub(super) fn end_input(&mut self) {
        self.input_ended = true;
    }

    /// Notes outcomes, which may be of any items.
    pub(super) fn note(&mut self, first: u64, count: u64) -> Fresh {
        // Whoever takes them finds that these items were never sent, and says so.
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

    /// The same for items of several batches, some of which may have had their outcomes before.
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

    /// How many messages of items are kept.
    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn batches(&self) -> usize {
        self.batches.len()
    }

    /// Where the batch with this item is, if there is one.
    fn position(&self, item: u64) -> usize {
        match self.batches.front() {
            Some(front) if item < front.run().end() => 0,
            _ => self.batches.partition_point(|batch| batch.run().end() <= item),
        }
    }

    fn release(&mut self, at: usize) {
        if self.batches[at].is_through() {
            self.batches.remove(at);
        }
    }

    /// The items that may have run and may not run again: they are as good as through. `unsaid`: what was said from there
    /// on has never left.
    pub(super) fn give_up(&mut self, unsaid: u64) -> Vec<Run> {
        if self.open.retries > 0 {
            return Vec::new();
        }
        let (gone, left): (VecDeque<_>, _) =
            std::mem::take(&mut self.batches).into_iter().partition(|batch| batch.serial() < unsaid);
        self.batches = left;
        gone.iter().flat_map(Batch::lacking).collect()
    }

    /// Says what a coordinator that does not know the job needs.
    pub(super) fn say_again(&mut self, say: &mut Vec<Body>) {
        let job = self.open.job;
        say.push(Body::OpenJob(self.open.clone()));
        let mut sent_again = 0;
        for batch in &self.batches {
            for run in batch.lacking() {
                let items = batch.cut(job, run);
                sent_again += bytes(&items);
                say.push(Body::Items(items));
            }
        }
        if self.input_ended {
            say.push(Body::EndItems(EndItems { job }));
        }
        self.offset = self.sent_bytes - sent_again;
    }

    /// What the coordinator's limit is in the count of whoever feeds the job.
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
