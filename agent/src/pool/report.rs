//! Collects outcomes for the coordinator, so that many travel at once.

use bytes::Bytes;
use farpool_link::Corrupt;
use farpool_proto::ends;
use farpool_proto::v1::agent_event::Body;
use farpool_proto::v1::{AgentEvent, Failure, ItemFault, RunDone};

use super::chunks::Chunk;
use super::results::{Results, RunResults};

#[derive(Debug, Default)]
pub(super) struct Report {
    results: Results,
    runs: Vec<Run>,
    other: Vec<AgentEvent>,
}

#[derive(Debug)]
struct Run {
    chunk: u64,
    attempt: u32,
    first: u64,
    count: u64,
    data: usize,
    ends: usize,
    busy_ns: u64,
    /// Its items count as failed.
    failed: bool,
    /// The number of the worker that ran it.
    worker: u32,
}

impl Report {
    /// Adds finished items of `chunk` from `item` on, whose results `take` adds. Returns how many it has added. `failed`:
    /// they count as failed.
    #[inline]
    pub(super) fn done(
        &mut self,
        worker: u32,
        chunk: &Chunk,
        item: u64,
        failed: bool,
        take: impl FnOnce(&mut RunResults<'_>) -> Result<u32, Corrupt>,
    ) -> Result<u32, Corrupt> {
        let Report { results, runs, .. } = self;
        let latest = runs.last_mut().filter(|run| {
            run.chunk == chunk.id
                && run.attempt == chunk.attempt
                && run.first + run.count == item
                && run.failed == failed
                && !results.from(run.data).is_full()
        });
        let (data, ends) = (results.data.len(), results.ends.len());
        let count = take(&mut results.from(latest.as_ref().map_or(data, |run| run.data)))?;
        match latest {
            Some(run) => run.count += u64::from(count),
            None => runs.push(Run {
                chunk: chunk.id,
                attempt: chunk.attempt,
                first: item,
                count: u64::from(count),
                data,
                ends,
                busy_ns: 0,
                failed,
                worker,
            }),
        }
        Ok(count)
    }

    /// Adds a finished item of `chunk` whose result came in pieces.
    pub(super) fn done_large(&mut self, chunk: &Chunk, item: u64, result: Vec<u8>, failed: bool) {
        let end = u32::try_from(result.len()).expect("a payload_limit of more was refused");
        let ends = Bytes::copy_from_slice(&end.to_le_bytes());
        self.other(Body::RunDone(RunDone {
            chunk: chunk.id,
            attempt: chunk.attempt,
            first: item,
            data: result.into(),
            ends,
            busy_ns: 0,
            failed,
        }));
    }

    /// Adds an item of `chunk` that has failed, or whose worker died.
    pub(super) fn failed(&mut self, chunk: &Chunk, item: u64, failure: Failure) {
        self.other(Body::ItemFault(Box::new(ItemFault {
            chunk: chunk.id,
            attempt: chunk.attempt,
            item,
            failure: Some(failure),
        })));
    }

    /// Records how long the items took that this worker just finished.
    pub(super) fn measured(&mut self, worker: u32, nanoseconds: u64) {
        if let Some(run) = self.runs.last_mut().filter(|run| run.worker == worker) {
            run.busy_ns = run.busy_ns.saturating_add(nanoseconds);
        }
    }

    /// Adds another event.
    pub(super) fn other(&mut self, body: Body) {
        self.other.push(AgentEvent { body: Some(body) });
    }

    /// Returns whether nothing is left to report.
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.other.is_empty()
    }

    /// Moves everything to `events`. Results are not copied: each run gets a slice.
    pub(super) fn drain_into(&mut self, events: &mut Vec<AgentEvent>) {
        if !self.runs.is_empty() {
            let data = self.results.data.split().freeze();
            let all_ends = self.results.ends.split().freeze();
            let (mut data_end, mut ends_end) = (data.len(), all_ends.len());
            let at = events.len();
            for run in self.runs.drain(..).rev() {
                let single = ends::of_single(run.count, data_end - run.data);
                let done = RunDone {
                    chunk: run.chunk,
                    attempt: run.attempt,
                    first: run.first,
                    data: data.slice(run.data..data_end),
                    ends: single.unwrap_or_else(|| all_ends.slice(run.ends..ends_end)),
                    busy_ns: run.busy_ns,
                    failed: run.failed,
                };
                (data_end, ends_end) = (run.data, run.ends);
                events.push(AgentEvent { body: Some(Body::RunDone(done)) });
            }
            events[at..].reverse();
        }
        events.append(&mut self.other);
    }
}
