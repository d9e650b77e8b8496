//! Fake workers that only take some time for each item.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{AgentEvent, Chunk, Credit, PoolStarted, PoolStopped, Returned, RunDone};
use tokio::time::{Instant, sleep_until};

use super::super::Workers;

/// The time that an item takes.
pub(super) const ITEM: Duration = Duration::from_millis(10);

/// The actions of a session's workers.
#[derive(Clone, Debug, Default)]
pub(super) struct Actions(pub(super) Arc<Mutex<Vec<Action>>>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Ran(u64),
    /// All were killed at this time.
    Killed(Instant),
}

/// Runs all items of all pools one after another.
#[derive(Debug, Default)]
pub(super) struct FakeWorkers {
    actions: Actions,
    /// The pool of each job.
    jobs: BTreeMap<u64, u64>,
    pools: Vec<u64>,
    /// Chunks of one item, and when the first is done.
    queue: Vec<Chunk>,
    due: Option<Instant>,
    draining: bool,
    held: bool,
    events: Vec<AgentEvent>,
}

impl FakeWorkers {
    pub(super) fn new(actions: Actions) -> FakeWorkers {
        FakeWorkers { actions, ..FakeWorkers::default() }
    }

    fn emit(&mut self, body: Event) {
        self.events.push(AgentEvent { body: Some(body) });
    }

    fn drop_chunks(&mut self, unwanted: impl Fn(&Self, &Chunk) -> bool) {
        let queue = std::mem::take(&mut self.queue);
        let first = queue.first().map(|chunk| chunk.chunk);
        self.queue = queue.into_iter().filter(|chunk| !unwanted(self, chunk)).collect();
        if self.queue.first().map(|chunk| chunk.chunk) != first {
            self.due = None;
        }
    }
}

impl Workers for FakeWorkers {
    fn command(&mut self, command: Command) -> Result<(), String> {
        match command {
            Command::StartPool(start) => {
                self.pools.push(start.pool);
                self.emit(Event::PoolStarted(PoolStarted { pool: start.pool }));
                self.emit(Event::Credit(Credit { chunks: 10, bytes: 0 }));
            }
            Command::StopPool(stop) => {
                self.drop_chunks(|this, chunk| this.jobs.get(&chunk.job) == Some(&stop.pool));
                self.pools.retain(|pool| *pool != stop.pool);
                self.emit(Event::PoolStopped(PoolStopped { pool: stop.pool }));
            }
            Command::StartJob(start) => drop(self.jobs.insert(start.job, start.pool)),
            Command::EndJob(end) if end.kill => self.drop_chunks(|_, chunk| chunk.job == end.job),
            Command::Assign(assign) => self.queue.extend(assign.chunks),
            Command::CancelChunks(cancel) => self.drop_chunks(|_, chunk| cancel.chunks.contains(&chunk.chunk)),
            _ => {}
        }
        Ok(())
    }

    fn work(&mut self, events: &mut Vec<AgentEvent>) -> bool {
        let now = Instant::now();
        if self.draining && self.queue.len() > 1 {
            for chunk in self.queue.split_off(1) {
                let Chunk { chunk, attempt, first, .. } = chunk;
                self.emit(Event::Returned(Returned { chunk, attempt, first, count: 1 }));
            }
        }
        if !self.held && self.due.is_some_and(|due| now >= due) {
            let Chunk { chunk, attempt, first, .. } = self.queue.remove(0);
            self.actions.0.lock().expect("a thread panicked while it held the lock").push(Action::Ran(first));
            let ends = 8_u32.to_le_bytes().to_vec().into();
            let data = first.to_le_bytes().to_vec().into();
            self.emit(Event::RunDone(RunDone { chunk, attempt, first, data, ends, busy_ns: 1, failed: false }));
            self.due = None;
        }
        if self.due.is_none() && !self.queue.is_empty() {
            self.due = Some(now + ITEM);
        }
        events.append(&mut self.events);
        false
    }

    async fn ready(&mut self) -> Result<(), String> {
        match self.due.filter(|_| !self.held) {
            _ if !self.events.is_empty() => {}
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
        Ok(())
    }

    fn hold(&mut self, hold: bool) {
        self.held = hold;
    }

    fn hold_pool(&mut self, _: u64, _: bool) {}

    fn cancel_pool_stop(&mut self, _: u64) {}

    fn drain(&mut self) {
        self.draining = true;
    }

    fn is_drained(&self) -> bool {
        self.draining && self.queue.is_empty() && self.events.is_empty()
    }

    fn stop_all(&mut self) {
        if !self.pools.is_empty() {
            self.actions
                .0
                .lock()
                .expect("a thread panicked while it held the lock")
                .push(Action::Killed(Instant::now()));
        }
        self.pools.clear();
        self.queue.clear();
        self.due = None;
    }

    fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }
}
