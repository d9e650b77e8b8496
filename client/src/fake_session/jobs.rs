use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{ClosePool, Items};
use farpool_session::{End, Error, Inbox, Results};

use super::{Answer, Pick};

/// Bytes that a job may have in flight.
pub(crate) const WINDOW: u64 = 64 << 20;

pub(super) struct Jobs {
    pub(super) window: u64,
    /// Whether room is granted as soon as it is free.
    pub(super) grants: bool,
    pub(super) pick: Pick,
    pub(super) whole_chunks: bool,
    pub(super) cancelled: u32,
    pub(super) most_bytes: usize,
    pub(super) failure: Option<Error>,
    jobs: BTreeMap<u64, FakeJob>,
    waiting: VecDeque<Item>,
    bytes: usize,
    closing: bool,
    random: u64,
}

struct FakeJob {
    inbox: Arc<Inbox>,
    chunksize: u64,
    next: u64,
    unfinished: u64,
    sent: u64,
    limit: u64,
    freed: u64,
    input_ended: bool,
}

struct Item {
    job: u64,
    index: u64,
    bytes: Vec<u8>,
}

impl FakeJob {
    fn grant(&mut self, window: u64) {
        self.limit = self.freed + window;
        self.inbox.grant(self.limit).wake();
    }
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            window: WINDOW,
            grants: true,
            pick: Pick::First,
            whole_chunks: false,
            cancelled: 0,
            most_bytes: 0,
            failure: None,
            jobs: BTreeMap::new(),
            waiting: VecDeque::new(),
            bytes: 0,
            closing: false,
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }
}

impl Jobs {
    pub(super) fn open_job(&mut self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error> {
        if let Some(error) = &self.failure {
            messages.clear();
            return Err(error.clone());
        }
        let Body::OpenJob(open) = messages.remove(0) else { panic!("the submission does not begin with OpenJob") };
        assert_eq!(open.job, inbox.job());
        let inbox = Arc::clone(inbox);
        let job = FakeJob {
            inbox,
            chunksize: open.chunksize,
            next: 0,
            unfinished: 0,
            sent: 0,
            limit: self.window,
            freed: 0,
            input_ended: false,
        };
        assert!(self.jobs.insert(open.job, job).is_none(), "job numbers are unique");
        Ok(())
    }

    pub(super) fn accept(&mut self, messages: &mut Vec<Body>) {
        for message in messages.drain(..) {
            match message {
                Body::Items(items) => self.add(items),
                Body::EndItems(end) => {
                    if let Some(job) = self.jobs.get_mut(&end.job) {
                        assert!(!std::mem::replace(&mut job.input_ended, true), "the input ends once");
                    }
                    self.end_if_finished(end.job);
                }
                // Nothing is retried here.
                Body::StopRetries(_) => {}
                Body::CancelJob(cancel) => self.cancel(cancel.job),
                Body::ClosePool(ClosePool { now }) => {
                    self.closing = true;
                    if now {
                        let all: Vec<u64> = self.jobs.keys().copied().collect();
                        all.into_iter().for_each(|job| self.cancel(job));
                    }
                }
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    pub(super) fn finish_one(&mut self, answer: &dyn Fn(u64, &[u8]) -> Answer) -> bool {
        let Some(at) = self.choose() else { return false };
        let Some(item) = self.waiting.remove(at) else { return false };
        self.bytes -= item.bytes.len();
        let job = self.jobs.get_mut(&item.job).expect("the job has ended");
        job.unfinished -= 1;
        job.freed += 4 + item.bytes.len() as u64;
        match answer(item.index, &item.bytes) {
            Answer::Done(bytes) => {
                let ends = (bytes.len() as u32).to_le_bytes().to_vec();
                job.inbox.deliver_done(item.index, bytes.into(), ends.into(), 0).wake();
            }
            Answer::Failed(failure) => job.inbox.deliver_failed(item.index, 1, failure).wake(),
        }
        if self.grants {
            job.grant(self.window);
        }
        self.end_if_finished(item.job);
        true
    }

    pub(super) fn grant_all(&mut self) {
        self.jobs.values_mut().for_each(|job| job.grant(self.window));
    }

    pub(super) fn fail(&mut self, error: &Error) {
        self.failure = Some(error.clone());
        self.waiting.clear();
        self.closing = true;
        for job in std::mem::take(&mut self.jobs).into_values() {
            job.inbox.end(End::PoolFailed(error.clone())).wake();
        }
    }

    pub(super) fn open(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn closed(&self) -> bool {
        self.closing && self.jobs.is_empty()
    }

    fn add(&mut self, items: Items) {
        let Some(job) = self.jobs.get_mut(&items.job) else { return };
        assert!(items.first >= job.next && !job.input_ended, "indices rise, before the end of the input");
        assert!(job.sent < job.limit || job.unfinished < job.chunksize, "items arrived without room for them");
        job.sent += (items.data.len() + items.ends.len()) as u64;
        let mut rest = Results::new(items.first, items.data, items.ends, u64::MAX).unwrap();
        while let Some(item) = rest.next() {
            let (index, bytes) = item.unwrap();
            self.waiting.push_back(Item { job: items.job, index, bytes: bytes.to_vec() });
            self.bytes += bytes.len();
            job.unfinished += 1;
            job.next = index + 1;
        }
        self.most_bytes = self.most_bytes.max(self.bytes);
    }

    fn choose(&mut self) -> Option<usize> {
        let ready: Vec<usize> = (0..self.waiting.len()).filter(|&at| self.may_run(&self.waiting[at])).collect();
        match self.pick {
            Pick::First => ready.first().copied(),
            Pick::Last => ready.last().copied(),
            Pick::Random => {
                self.random =
                    self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ready.get((self.random >> 33) as usize % ready.len().max(1)).copied()
            }
        }
    }

    fn may_run(&self, item: &Item) -> bool {
        let job = &self.jobs[&item.job];
        let chunk_end = item.index / job.chunksize.max(1) * job.chunksize + job.chunksize;
        !self.whole_chunks || job.chunksize == 0 || job.input_ended || job.next >= chunk_end
    }

    fn end_if_finished(&mut self, job: u64) {
        if self.jobs.get(&job).is_some_and(|job| job.input_ended && job.unfinished == 0) {
            self.jobs.remove(&job).expect("no such job").inbox.end(End::Finished).wake();
        }
    }

    fn cancel(&mut self, job: u64) {
        let Some(cancelled) = self.jobs.remove(&job) else { return };
        self.cancelled += 1;
        self.waiting.retain(|item| item.job != job);
        self.bytes = self.waiting.iter().map(|item| item.bytes.len()).sum();
        cancelled.inbox.end(End::Cancelled).wake();
    }
}
