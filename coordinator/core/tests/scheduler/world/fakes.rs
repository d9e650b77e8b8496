//! The records of the fakes: what each was sent, and its state.

use std::collections::{BTreeMap, HashSet};

use farpool_core::{AgentId, ChunkId, JobId, JobPolicy, PoolId};

pub(crate) struct FakePool {
    pub(crate) id: PoolId,
    pub(crate) limit: u32,
    pub(crate) require: Vec<u32>,
    pub(crate) paused: bool,
}

/// A pool at an agent, as the agent was told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FakePlace {
    pub(crate) workers: u32,
    pub(crate) started: bool,
    /// Its workers die there: nothing of the pool may be handed out there until it is started again.
    pub(crate) unhealthy: bool,
    pub(crate) unfit: bool,
    pub(crate) stopping: bool,
    /// Whether it ran there before the core knew of it.
    pub(crate) resumed: bool,
}

pub(crate) struct FakeAgent {
    pub(crate) id: AgentId,
    pub(crate) credit: u32,
    pub(crate) credit_bytes: u64,
    pub(crate) slots: u32,
    pub(crate) labels: Vec<u32>,
    pub(crate) draining: bool,
    /// By the number of the pool.
    pub(crate) places: BTreeMap<u32, FakePlace>,
    /// Oldest first.
    pub(crate) chunks: Vec<FakeChunk>,
    /// The places it had before it left.
    pub(crate) held_places: BTreeMap<u32, FakePlace>,
    pub(crate) held_chunks: Vec<FakeChunk>,
    pub(super) knows: HashSet<JobId>,
}

#[derive(Clone, Debug)]
pub(crate) struct FakeChunk {
    pub(crate) id: ChunkId,
    pub(crate) job: u32,
    pub(crate) pool: u32,
    pub(crate) attempt: u32,
    pub(crate) first: u64,
    /// Items it has not finished, sorted.
    pub(crate) left: Vec<u64>,
    pub(crate) asked_back: bool,
    /// Whether other agents have finished items of it first.
    pub(crate) overtaken: bool,
}

pub(crate) struct FakeJob {
    pub(crate) id: JobId,
    pub(crate) pool: u32,
    pub(crate) require: Vec<u32>,
    /// Bytes of each of its items.
    pub(crate) item_bytes: u64,
    pub(crate) policy: JobPolicy,
    pub(crate) items: BTreeMap<u64, FakeItem>,
    pub(crate) next: u64,
    /// A chunk may end here without being whole: the items resent at the last restart ended here.
    pub(crate) resent_to: u64,
    pub(crate) ended: bool,
    pub(crate) finished: Option<bool>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct FakeItem {
    /// Attempts that have failed.
    pub(crate) faults: u32,
    /// Agents that hold it.
    pub(crate) copies: u32,
    pub(crate) was_handed_out: bool,
    /// How often it may have begun: how often it was handed out, less how often an agent reported that it has not.
    pub(crate) begun: u32,
    pub(crate) outcome: Option<Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Failed { attempts: u32, lost: bool },
}

impl FakeAgent {
    pub(crate) fn held_of(&self, pool: u32) -> u32 {
        self.chunks.iter().filter(|chunk| chunk.pool == pool).count() as u32
    }

    /// Returns how many chunks of a pool with a limit it may hold.
    pub(super) fn share_of(&self, pool: u32) -> u32 {
        self.places[&pool].workers.max(1) + self.credit.saturating_sub(self.slots)
    }

    pub(super) fn finish_items(&mut self, at: usize, first: u64, count: u64) -> FakeChunk {
        let chunk = &mut self.chunks[at];
        let before = chunk.left.len();
        chunk.left.retain(|item| !(first..first + count).contains(item));
        assert_eq!(before - chunk.left.len(), count as usize, "the test reports what the agent does not hold");
        let copy = chunk.clone();
        if chunk.left.is_empty() {
            self.chunks.remove(at);
        }
        copy
    }
}

impl FakeJob {
    pub(super) fn settle(&mut self, items: std::ops::Range<u64>, outcome: Outcome) {
        for index in items {
            let item = self.items.get_mut(&index).expect("the outcome is of an item that has arrived");
            assert!(item.was_handed_out, "item {index} is nowhere");
            assert!(item.copies == 0 || self.policy.speculate, "item {index} is elsewhere");
            item.copies = 0;
            assert_eq!(item.outcome.replace(outcome), None, "item {index} has two outcomes");
            if let Outcome::Failed { attempts, .. } = outcome {
                assert_eq!(attempts, item.faults, "item {index} was tried that often");
                assert!(attempts <= self.policy.retries + 1);
            }
        }
    }

    pub(super) fn hand_out(&mut self, items: std::ops::Range<u64>, attempt: u32, copied: bool) {
        assert!(!items.is_empty());
        let behind = self.items.get(&items.end).cloned();
        let fresh = !self.items[&items.start].was_handed_out;
        for index in items.clone() {
            let item = self.items.get_mut(&index).expect("only what has arrived is handed out");
            assert!(item.outcome.is_none() && item.copies == u32::from(copied), "item {index} is at too many places");
            let expected = if index == items.start { attempt } else { 1 };
            assert_eq!(item.faults + 1, expected, "item {index} is at another attempt");
            item.copies += 1;
            item.was_handed_out = true;
            item.begun += 1;
            assert!(item.begun == 1 || self.policy.retries > 0, "item {index} may run twice");
        }
        let Some(size) = self.policy.chunksize else { return };
        assert_eq!(items.start / size, (items.end - 1) / size, "{items:?} are of two chunks");
        if fresh {
            let starts_right =
                items.start % size == 0 || self.items.get(&(items.start - 1)).is_none_or(|item| item.was_handed_out);
            let full = items.end % size == 0;
            let left_out = behind.is_none() && (self.next > items.end || self.ended);
            let elsewhere = behind.is_some_and(|item| item.was_handed_out);
            let cut = items.end == self.resent_to;
            assert!(starts_right && (full || left_out || elsewhere || cut), "{items:?} is no whole chunk");
        }
    }

    /// Whether an item waits only for an agent.
    pub(super) fn must_be_handed_out(&self) -> bool {
        if self.finished.is_some() {
            return false;
        }
        let waiting = |item: &FakeItem| item.outcome.is_none() && item.copies == 0;
        match self.policy.chunksize {
            None => self.items.values().any(waiting),
            Some(_) if self.ended => self.items.values().any(waiting),
            Some(size) => {
                let whole = self.next / size * size.get();
                self.items.range(..whole).any(|(_, item)| waiting(item))
            }
        }
    }
}

impl FakeItem {
    /// An agent returned it, and had not begun it.
    pub(super) fn has_not_begun(&mut self) {
        self.copies -= 1;
        self.begun -= 1;
    }
}
