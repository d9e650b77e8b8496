//! State of jobs.

use bytes::Bytes;
use farpool_core::{JobId, PoolId, Slab};
use farpool_proto::v1::{Label, Segment, StartJob, Window, client_event};

use crate::convert::Batch;
use crate::payloads::Payloads;
use crate::rate::Rate;

/// All jobs that have not ended.
#[derive(Default)]
pub(crate) struct Jobs {
    all: Slab<JobId, Job>,
}

/// A job that has not ended. The core knows which of its items are unfinished.
pub(crate) struct Job {
    spec: JobSpec,
    input_ended: bool,
    /// Number of items that failed.
    failed: u64,
    rate: Rate,
    payloads: Payloads,
}

/// Settings of a job that do not change.
pub(crate) struct JobSpec {
    pub(crate) pool: PoolId,
    /// The client's number for it.
    pub(crate) number: u64,
    /// Its number for operators; never used again.
    pub(crate) name: u64,
    pub(crate) function: Bytes,
    /// It is a shared value, and has no items.
    pub(crate) shared: bool,
    pub(crate) timeout_ns: u64,
    pub(crate) whole_chunks: bool,
    pub(crate) payload_limit: u64,
    pub(crate) label: String,
    pub(crate) priority: i32,
    pub(crate) require: Vec<Label>,
    pub(crate) opened_at: u64,
}

/// Approximate bytes of a job once some of it has run: here, in the core, and in its client's table of numbers. A table
/// that has just grown has room for twice as many entries. When a client leaves, the messages about the end of all its
/// jobs are in memory at once.
const JOB_COST: u64 = 3 << 10;

impl Jobs {
    pub(crate) fn insert(&mut self, job: Job) -> JobId {
        self.all.insert(job)
    }

    pub(crate) fn remove(&mut self, id: JobId) -> Option<Job> {
        self.all.remove(id)
    }

    #[inline]
    pub(crate) fn get(&self, id: JobId) -> Option<&Job> {
        self.all.get(id)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: JobId) -> Option<&mut Job> {
        self.all.get_mut(id)
    }

    /// Returns the jobs with items: no shared values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (JobId, &Job)> {
        self.all.iter().filter(|(_, job)| !job.spec.shared)
    }
}

/// The effects of items that got their outcomes.
pub(crate) struct Released {
    /// The memory that they took.
    pub(crate) bytes: u64,
    /// The message for the client, if there is room for many more items.
    pub(crate) window: Option<client_event::Body>,
}

impl Job {
    pub(crate) fn new(spec: JobSpec, payloads: Payloads) -> Self {
        Self { input_ended: spec.shared, spec, failed: 0, rate: Rate::default(), payloads }
    }

    #[inline]
    pub(crate) fn spec(&self) -> &JobSpec {
        &self.spec
    }

    pub(crate) fn input_ended(&self) -> bool {
        self.input_ended
    }

    pub(crate) fn end_input(&mut self) {
        self.input_ended = true;
    }

    /// Returns the number of items that failed.
    pub(crate) fn failed(&self) -> u64 {
        self.failed
    }

    pub(crate) fn items_per_second(&self, now: u64) -> f64 {
        self.rate.per_second(now)
    }

    pub(crate) fn payloads(&self) -> &Payloads {
        &self.payloads
    }

    /// Stores items. Returns the memory that they take.
    pub(crate) fn keep(&mut self, batch: Batch) -> u64 {
        let before = self.payloads.cost();
        self.payloads.keep(batch);
        self.payloads.cost() - before
    }

    /// Adds the segments of these items, and returns how many there are.
    #[inline]
    pub(crate) fn cut(&self, first: u64, count: u64, segments: &mut Vec<Segment>) -> u32 {
        self.payloads.cut(first, count, segments)
    }

    /// Returns the memory of the job without its items. With very many jobs, this is what fills the memory.
    pub(crate) fn own_cost(&self) -> u64 {
        let JobSpec { function, label, require, .. } = &self.spec;
        let required: usize = require.iter().map(|label| label.key.len() + label.value.len()).sum();
        JOB_COST + (function.len() + label.len() + required) as u64
    }

    /// Releases items that got their outcomes, failures or not.
    #[inline]
    pub(crate) fn release(&mut self, first: u64, count: u64, failed: bool, now: u64) -> Released {
        self.failed += if failed { count } else { 0 };
        self.rate.count(count, now);
        let before = self.payloads.cost();
        let limit = self.payloads.release(first, count).filter(|_| !self.input_ended);
        let window = limit.map(|limit| client_event::Body::Window(Window { job: self.spec.number, limit }));
        Released { bytes: before - self.payloads.cost(), window }
    }

    /// Returns the message that an agent gets before the first items of the job, or of later jobs if it is a shared value.
    pub(crate) fn start_message(&self, id: JobId) -> StartJob {
        let JobSpec { pool, number, ref function, shared, timeout_ns, whole_chunks, .. } = self.spec;
        StartJob {
            pool: pool.to_bits(),
            job: id.to_bits(),
            function: function.clone(),
            timeout_ns,
            whole_chunks,
            number,
            shared,
        }
    }
}
