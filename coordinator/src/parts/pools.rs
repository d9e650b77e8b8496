//! Pools, from their opening to the last worker's exit.

use std::collections::BTreeMap;

use farpool_core::{PoolId, Slab};
use farpool_proto::v1::{self, PoolOpened, Waiting, client_event};

use super::former::PoolRecovery;
use super::places::Places;
use super::settlement::Unsettled;
use super::shared::SharedValues;
use crate::convert::PoolRequest;
use crate::ids::PoolKey;
use crate::{AgentId, ClientId, Principal};

/// All pools whose last worker has not exited.
#[derive(Default)]
pub(crate) struct Pools {
    all: Slab<PoolId, Pool>,
    /// Pools that can be opened again. If two have the same key, the newer one.
    by_key: BTreeMap<PoolKey, PoolId>,
}

/// A pool, kept until its last worker has exited.
pub(crate) struct Pool {
    spec: PoolSpec,
    /// Whether nothing of it is handed out because its client does not read.
    paused: bool,
    stage: Stage,
    /// Whether the client has closed it.
    closing: bool,
    /// The last status that the client got.
    last_status: LastStatus,
    /// Jobs that have not ended.
    open_jobs: usize,
    /// It was open before, and the core does not know it yet.
    reopening: Option<PoolRecovery>,
    pub(crate) places: Places,
    pub(crate) shared: SharedValues,
    /// What agents have reported and its client may not have.
    pub(crate) unsettled: Unsettled,
}

/// Settings of a pool that do not change.
pub(crate) struct PoolSpec {
    /// Its client; the client's session may have ended already.
    pub(crate) client: ClientId,
    pub(crate) owner: Principal,
    /// Its number for operators; never used again.
    pub(crate) name: u64,
    pub(crate) request: PoolRequest,
    pub(crate) opened_at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// It ends when its jobs have ended.
    Draining,
    /// Its jobs are gone and its workers are stopping.
    Stopping,
    /// Its jobs are gone, its workers are stopping, and the client was told why.
    Failed,
}

/// The last status that a client got of where its pool runs.
#[derive(Debug, Default)]
struct LastStatus {
    /// Workers that it may have at once; 0: nothing can run.
    slots: u32,
    /// Why nothing can run; empty: something can, or no reason was sent yet.
    waiting: String,
}

/// The action that follows from closing a pool.
pub(crate) enum Closing {
    /// Nothing.
    Waits,
    /// Drop it: the core does not know it.
    Abandon,
    Stop,
    /// Stop its workers at once; it was closed gently before.
    StopNow,
}

impl Pools {
    pub(crate) fn insert(&mut self, pool: Pool) -> PoolId {
        let key = pool.key();
        let id = self.all.insert(pool);
        if let Some(key) = key {
            self.by_key.insert(key, id);
        }
        id
    }

    pub(crate) fn remove(&mut self, id: PoolId) -> Option<Pool> {
        let pool = self.all.remove(id)?;
        if let Some(key) = pool.key()
            && self.by_key.get(&key) == Some(&id)
        {
            self.by_key.remove(&key);
        }
        Some(pool)
    }

    #[inline]
    pub(crate) fn get(&self, id: PoolId) -> Option<&Pool> {
        self.all.get(id)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: PoolId) -> Option<&mut Pool> {
        self.all.get_mut(id)
    }

    /// Returns the open pool with this key.
    pub(crate) fn with_key(&self, key: &PoolKey) -> Option<&Pool> {
        self.all.get(*self.by_key.get(key)?)
    }

    /// Returns the pool, if reports about its place at the agent still count.
    pub(crate) fn working_at(&mut self, id: PoolId, agent: AgentId) -> Option<&mut Pool> {
        self.all.get_mut(id).filter(|pool| pool.runs() && pool.places.works_at(agent))
    }

    /// Returns pools that the core does not know yet.
    pub(crate) fn reopening(&self) -> Vec<PoolId> {
        self.all.iter().filter(|(_, pool)| pool.is_reopening()).map(|(id, _)| id).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PoolId, &Pool)> {
        self.all.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (PoolId, &mut Pool)> {
        self.all.iter_mut()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

impl Pool {
    pub(crate) fn new(spec: PoolSpec, reopening: Option<PoolRecovery>) -> Self {
        let unsettled = Unsettled::new(spec.request.id.is_some());
        Self {
            spec,
            paused: false,
            stage: Stage::Open,
            closing: false,
            last_status: LastStatus::default(),
            open_jobs: 0,
            reopening,
            places: Places::default(),
            shared: SharedValues::default(),
            unsettled,
        }
    }

    #[inline]
    pub(crate) fn spec(&self) -> &PoolSpec {
        &self.spec
    }

    #[inline]
    pub(crate) fn client(&self) -> ClientId {
        self.spec.client
    }

    /// Returns the key that it is opened again with; none in local mode.
    pub(crate) fn key(&self) -> Option<PoolKey> {
        self.spec.request.id.map(|id| PoolKey { owner: self.spec.owner.clone(), id })
    }

    /// Returns the most bytes of an item.
    pub(crate) fn payload_limit(&self) -> u64 {
        self.spec.request.settings.payload_limit
    }

    pub(crate) fn takes_jobs(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Whether the core knows it, or will when it has been reopened.
    pub(crate) fn runs(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::Draining)
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.stage == Stage::Failed
    }

    /// Whether nothing of it is handed out because its client does not read.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Returns whether this changes something.
    pub(crate) fn pause(&mut self, paused: bool) -> bool {
        self.runs() && std::mem::replace(&mut self.paused, paused) != paused
    }

    pub(crate) fn job_opened(&mut self) {
        self.open_jobs += 1;
    }

    pub(crate) fn job_ended(&mut self) {
        self.open_jobs -= 1;
    }

    /// Returns how many jobs have not ended.
    pub(crate) fn open_jobs(&self) -> usize {
        self.open_jobs
    }

    /// The client closes it. Returns what must be done.
    pub(crate) fn close(&mut self, now: bool) -> Closing {
        self.closing = true;
        if self.stage == Stage::Open {
            self.stage = Stage::Draining;
        }
        match self.stage {
            Stage::Draining if self.is_reopening() && !now => Closing::Waits,
            Stage::Draining if self.is_reopening() => Closing::Abandon,
            Stage::Draining if now || self.open_jobs == 0 => Closing::Stop,
            Stage::Stopping if now => Closing::StopNow,
            _ => Closing::Waits,
        }
    }

    /// Whether it was closed gently, and its jobs have ended.
    pub(crate) fn is_done(&self) -> bool {
        self.stage == Stage::Draining && self.open_jobs == 0 && !self.is_reopening()
    }

    /// Marks it as stopping: its jobs are dropped and its workers stop.
    pub(crate) fn stop(&mut self) {
        self.stage = Stage::Stopping;
    }

    /// Marks it as failed and stopping, after its client was told why.
    pub(crate) fn fail(&mut self) {
        self.stage = Stage::Failed;
    }

    /// Whether its workers are gone and the client has closed it.
    pub(crate) fn is_over(&self) -> bool {
        self.closing && !self.runs() && self.places.is_nowhere()
    }

    /// Whether the core does not know it yet.
    pub(crate) fn is_reopening(&self) -> bool {
        self.reopening.is_some()
    }

    /// Returns its state while it is being opened again; `None`: the core knows it.
    pub(crate) fn reopening(&self) -> Option<&PoolRecovery> {
        self.reopening.as_ref()
    }

    pub(crate) fn reopening_mut(&mut self) -> Option<&mut PoolRecovery> {
        self.reopening.as_mut()
    }

    /// The core knows all of it, or will never get it.
    pub(crate) fn end_reopening(&mut self) {
        self.reopening = None;
    }

    /// Whether it may start at an agent only after the client has acknowledged that. Not if the client listed the agent
    /// itself.
    pub(crate) fn client_must_acknowledge(&self, agent: AgentId) -> bool {
        self.spec.request.id.is_some() && !self.reopening.as_ref().is_some_and(|reopening| reopening.is_held_at(agent))
    }

    /// Returns why nothing of it can run, as the client was told; empty: something can.
    pub(crate) fn waiting(&self) -> &str {
        &self.last_status.waiting
    }

    /// Sets how many workers it may have, or why it waits. Returns the message for the client, if anything has changed.
    pub(crate) fn set_status(&mut self, slots: u32, waiting: String) -> Option<client_event::Body> {
        let before = std::mem::replace(&mut self.last_status, LastStatus { slots, waiting });
        let waiting = &self.last_status.waiting;
        if !waiting.is_empty() {
            return (*waiting != before.waiting)
                .then(|| client_event::Body::Waiting(Waiting { reason: waiting.clone() }));
        }
        let is_news = !before.waiting.is_empty() || slots != before.slots;
        is_news.then_some(client_event::Body::PoolOpened(PoolOpened { slots }))
    }

    /// Returns the message that starts it at an agent.
    pub(crate) fn start_message(&self, id: PoolId, processes: u32) -> v1::StartPool {
        let PoolSpec { request, owner, .. } = &self.spec;
        v1::StartPool {
            pool: id.to_bits(),
            processes,
            settings: Some(request.settings.clone()),
            program: request.program.as_ref().map(|program| program.packed.clone()).unwrap_or_default(),
            weight: request.weight,
            id: request.id.map_or_else(bytes::Bytes::new, |id| bytes::Bytes::copy_from_slice(&id)),
            owner: request.id.map(|_| owner.to_message()),
        }
    }
}
