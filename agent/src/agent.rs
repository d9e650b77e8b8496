//! The agent: its pools, and one round of their work.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use farpool_link::item_token::Claim;
use farpool_link::process::ancestors_of;
use farpool_proto::v1::agent_event::Body;
use farpool_proto::v1::{
    AgentEvent, AgentHello, Credit, Draining, Failure, FailureKind, PoolFault, PoolStopped, StartPool,
};
use nix::sys::epoll::Epoll;
use nix::unistd::Pid;

use crate::borrowers::Borrowers;
use crate::fork_server::Program;
use crate::pool::{Allowance, Armed, Token, WorkerPool, most_exiting};
use crate::protocol_error::ProtocolError;
use crate::sharing::Sharing;
use crate::{Host, Settings};

/// How many ended pools are remembered, to tell late messages about them from invalid ones.
const MAX_ENDED: usize = 1024;

/// The pools of one host.
#[derive(Debug)]
pub struct Agent {
    pub(crate) host: Arc<Host>,
    pub(crate) pools: Vec<WorkerPool>,
    /// Number of pools started so far.
    serials: u64,
    /// The pool of each open job.
    pub(crate) jobs: HashMap<u64, PoolJob>,
    /// Pools that ended here before the coordinator stopped them.
    pub(crate) ended: VecDeque<u64>,
    pub(crate) sharing: Sharing,
    /// `None` if the agent has no id: programs could not find it.
    pub(crate) borrowers: Option<Borrowers>,
    pub(crate) draining: bool,
    held: bool,
    pub(crate) events: Vec<AgentEvent>,
}

/// The pool and number of a job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolJob {
    /// The coordinator's number of the pool.
    pub(crate) pool: u64,
    pub(crate) serial: u64,
    /// The job's number within its pool.
    pub(crate) number: u32,
}

impl Agent {
    /// Creates the agent in a client's own process, with `slots` slots, whose workers run `program`. It introduces itself to
    /// the coordinator.
    pub fn new(slots: u32, program: Program) -> io::Result<Agent> {
        let mut agent = Agent::with(Settings::local(slots, program))?;
        let hello = AgentHello { host: agent.host.name.clone(), slots, ..AgentHello::default() };
        agent.emit(Body::Hello(Box::new(hello)));
        Ok(agent)
    }

    /// Creates an agent with these settings. Its driver introduces it to the coordinator.
    pub fn with(settings: Settings) -> io::Result<Agent> {
        let host = Host::new(settings)?;
        let borrowers = host.settings.id.map(|id| Borrowers::listen(id, &host.epoll)).transpose()?;
        Ok(Agent {
            host: Arc::new(host),
            borrowers,
            pools: Vec::new(),
            serials: 0,
            jobs: HashMap::new(),
            ended: VecDeque::new(),
            sharing: Sharing::default(),
            draining: false,
            held: false,
            events: Vec::new(),
        })
    }

    /// Returns the name of its host.
    pub fn host(&self) -> &str {
        &self.host.name
    }

    /// Returns the epoll that becomes readable when there is work. Its events' data is for [`Agent::ready`].
    pub fn epoll(&self) -> &Arc<Epoll> {
        &self.host.epoll
    }

    /// Executes a `StartPool` command with the program that the driver has prepared for it.
    ///
    /// # Errors
    /// If the agent already has the pool.
    pub fn start_pool(&mut self, start: StartPool, program: Program) -> Result<(), ProtocolError> {
        self.open_pool(start, program, true)
    }

    /// Reports why a pool cannot be started here.
    pub fn refuse_pool(&mut self, pool: u64, failure: Failure) {
        self.emit(Body::PoolFault(Box::new(PoolFault { pool, failure: Some(failure) })));
        self.emit(Body::PoolStopped(PoolStopped { pool }));
        self.remember(pool);
    }

    /// Records that a pool is not started, because the agent is leaving and the coordinator knows it. Later messages
    /// about the pool are valid.
    pub fn skip_pool(&mut self, pool: u64) {
        self.remember(pool);
    }

    /// Drains the agent: it takes no more items, gives back those that have not started, and finishes those that run.
    pub fn drain(&mut self) {
        if !std::mem::replace(&mut self.draining, true) {
            self.emit(Body::Draining(Draining {}));
        }
    }

    /// Returns whether [`Agent::drain`] is complete: nothing runs, and all outcomes were reported.
    pub fn is_drained(&self) -> bool {
        self.draining && self.events.is_empty() && self.pools.iter().all(WorkerPool::holds_nothing)
    }

    /// Stops reading outcomes and output, so that workers have to wait, or resumes reading them. For a driver that
    /// cannot pass them on; everything else continues.
    pub fn hold(&mut self, hold: bool) {
        self.held = hold;
        self.pools.iter_mut().for_each(|pool| pool.hold(None, hold));
    }

    /// Stops or resumes reading outcomes and output of one pool, if the agent has it. See [`hold`](Self::hold).
    pub fn hold_pool(&mut self, pool: u64, hold: bool) {
        let all = self.held;
        if let Some(pool) = self.pools.iter_mut().find(|known| known.id() == pool) {
            pool.hold(Some(hold), all);
        }
    }

    /// Keeps a pool that was to stop when idle.
    pub fn cancel_pool_stop(&mut self, pool: u64) {
        if let Some(pool) = self.pools.iter_mut().find(|known| known.id() == pool) {
            pool.cancel_stop();
            self.sharing.pools_changed = true;
        }
    }

    /// Kills all workers; [`Agent::is_empty`] returns whether they have ended.
    pub fn stop_all(&mut self) {
        self.pools.iter_mut().for_each(|pool| pool.stop(true));
    }

    /// Returns whether all processes of all pools have ended.
    pub fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }

    /// Returns the process ids of the workers that take items or are about to, in the order in which they were started.
    pub fn worker_pids(&self) -> impl Iterator<Item = u32> {
        self.pools.iter().flat_map(WorkerPool::worker_pids)
    }

    /// Handles a ready descriptor; `data` is that of its epoll event. `now`: see [`Agent::pump`].
    pub fn ready(&mut self, data: u64, now: u64) {
        for pool in &mut self.pools {
            if let Some(token) = Token::unpack(data, pool.serial()) {
                return pool.ready(token, now);
            }
        }
        if let (Some(borrowers), Some(number)) = (&mut self.borrowers, Borrowers::number(data)) {
            borrowers.ready(number, &self.host.epoll);
        }
    }

    /// Does one round of work, without blocking, and appends events for the coordinator to `events`. `now`: the time that
    /// [`clock::now`](farpool_link::clock::now) returned, in ns. Drivers read it once for all that follows a wait.
    pub fn pump(&mut self, now: u64, events: &mut Vec<AgentEvent>) {
        events.append(&mut self.events);
        self.update_borrowers();
        for pool in &mut self.pools {
            pool.collect_all(now);
            if self.draining {
                pool.give_back_all();
            }
        }
        self.share_slots(now);
        self.run_pools(now);
        self.limit_exiting(now);
        self.report_health(now);
        let unhealthy = self.sharing.is_unhealthy();
        if unhealthy {
            self.report_credit();
        }
        // The coordinator learns first that this agent is unhealthy, so that it sends the returned items to other
        // agents.
        events.append(&mut self.events);
        for pool in self
            .pools
            .iter_mut()
            .filter(|pool| pool.reported_unhealthy() || unhealthy && pool.unhealthy_reason().is_some())
        {
            pool.give_back_all();
        }
        for pool in &mut self.pools {
            pool.report_into(events);
        }
        self.remove_stopped_pools();
        self.report_credit();
        events.append(&mut self.events);
    }

    /// Prepares for sleep: after this, any event wakes the driver.
    pub fn arm(&mut self) -> Armed {
        if self.borrowers.as_ref().is_some_and(Borrowers::has_claims) {
            return Armed::Busy;
        }
        let mut first = self.sharing.due;
        for pool in &mut self.pools {
            match pool.arm() {
                Armed::Busy => return Armed::Busy,
                Armed::Until(None) => {}
                Armed::Until(Some(time)) => first = Some(first.map_or(time, |known| known.min(time))),
            }
        }
        Armed::Until(first)
    }

    /// Starts a pool with the agent's own program ([`Settings::program`]).
    pub(crate) fn start_own_program(&mut self, start: StartPool) -> Result<(), ProtocolError> {
        match self.host.settings.program.clone() {
            Some(program) => self.open_pool(start, program, false),
            None => {
                self.require_new(start.pool)?;
                self.refuse(start.pool, "the coordinator opened a pool without a program");
                Ok(())
            }
        }
    }

    fn open_pool(&mut self, start: StartPool, program: Program, shipped: bool) -> Result<(), ProtocolError> {
        let id = start.pool;
        self.require_new(id)?;
        self.ended.retain(|ended| *ended != id);
        if self.draining {
            self.refuse(id, "the agent is leaving");
            return Ok(());
        }
        self.serials += 1;
        match WorkerPool::start(start, self.serials, &self.host, program, shipped) {
            Ok(mut pool) => {
                pool.hold(None, self.held);
                self.pools.push(pool);
                self.sharing.pools_changed = true;
            }
            Err(failure) => self.refuse_pool(id, failure),
        }
        Ok(())
    }

    /// Decides which programs may borrow slots, and stops lending for those that have ended.
    fn update_borrowers(&mut self) {
        let Some(borrowers) = &mut self.borrowers else { return };
        if borrowers.has_claims() {
            let pools = &self.pools;
            borrowers.retain_workers(|pid| pools.iter().any(|pool| pool.has_worker(pid)));
            borrowers.decide(|pid, claim| worker_of(pools, pid, claim));
        }
        while let Some(secret) = self.borrowers.as_mut().and_then(Borrowers::next_lost) {
            self.lend_slot_of(secret);
        }
    }

    /// Shares the slots between the pools.
    fn share_slots(&mut self, now: u64) {
        self.sharing.begin();
        if let [pool] = &mut self.pools[..]
            && pool.lent() == 0
        {
            let allowance = Allowance::alone(pool.processes());
            return pool.allow(if self.draining { allowance.without_starts() } else { allowance }, now);
        }
        let slots = self.host.settings.slots as usize;
        let census = self.pools.iter_mut().map(|pool| pool.census(now));
        let allowances = self.sharing.share(census, slots, self.draining, now);
        for (pool, allowance) in self.pools.iter_mut().zip(allowances) {
            pool.allow(*allowance, now);
        }
    }

    /// Lets the pools supervise and feed their workers.
    fn run_pools(&mut self, now: u64) {
        let slots = self.host.settings.slots as usize;
        let alone = self.pools.len() == 1;
        let mut running: usize = if alone { 0 } else { self.pools.iter().map(WorkerPool::running).sum() };
        for pool in &mut self.pools {
            let before = if alone { 0 } else { pool.running() };
            pool.work(slots.saturating_sub(running - before), now);
            if !alone {
                running = running - before + pool.running();
            }
        }
    }

    /// Kills exiting workers if there are too many of them. Those that have been exiting longest go first, in the pool
    /// that has most.
    fn limit_exiting(&mut self, now: u64) {
        let most = most_exiting(self.host.settings.slots);
        // There are rarely that many workers at all.
        if self.pools.iter().map(WorkerPool::workers).sum::<usize>() <= most {
            return;
        }
        let exiting: usize = self.pools.iter().map(WorkerPool::exiting).sum();
        for _ in most..exiting {
            if let Some(pool) = self.pools.iter_mut().max_by_key(|pool| pool.exiting()) {
                pool.kill_longest_exiting(now);
            }
        }
    }

    /// Reports when the agent, or one of its pools, becomes unhealthy or recovers.
    fn report_health(&mut self, now: u64) {
        let reason = self.pools.iter().find_map(WorkerPool::unhealthy_reason);
        let reason = reason.filter(|_| !self.pools.iter().any(WorkerPool::can_serve));
        let report = self.sharing.record_health(reason, now).map(Body::HealthReport);
        self.events.extend(report.map(|body| AgentEvent { body: Some(body) }));
        let unhealthy = self.sharing.is_unhealthy();
        for pool in &mut self.pools {
            let report = pool.report_health(unhealthy, now);
            self.events.extend(report.map(|body| AgentEvent { body: Some(body) }));
            self.sharing.wake_at(pool.health_due(now));
        }
    }

    fn report_credit(&mut self) {
        let slots = self.host.settings.slots as usize;
        if !self.draining
            && let Some(chunks) = self.sharing.credit(&self.pools, slots)
        {
            self.emit(Body::Credit(Credit { chunks, bytes: self.host.settings.credit_bytes }));
        }
    }

    fn require_new(&self, id: u64) -> Result<(), ProtocolError> {
        if self.pools.iter().any(|pool| pool.id() == id) {
            return Err(ProtocolError::new(format!("pool {id} was started twice")));
        }
        Ok(())
    }

    fn refuse(&mut self, pool: u64, why: &str) {
        let message = format!("cannot start workers on host {}: {why}", self.host.name);
        let kind = FailureKind::Unavailable.into();
        self.refuse_pool(pool, Failure { kind, message, host: self.host.name.clone(), ..Failure::default() });
    }

    fn remove_stopped_pools(&mut self) {
        if !self.pools.iter().any(WorkerPool::is_stopped) {
            return;
        }
        let over: Vec<(u64, bool)> = self
            .pools
            .iter()
            .filter(|pool| pool.is_stopped())
            .map(|pool| (pool.id(), pool.stop_was_requested()))
            .collect();
        self.pools.extract_if(.., |pool| pool.is_stopped()).for_each(WorkerPool::keep_fork_server);
        self.sharing.pools_changed = true;
        for (id, expected) in over {
            if expected { self.forget_jobs_of(id) } else { self.remember(id) }
        }
    }

    /// Records that messages about this pool may still arrive.
    fn remember(&mut self, pool: u64) {
        self.ended.retain(|ended| *ended != pool);
        self.ended.push_back(pool);
        if self.ended.len() > MAX_ENDED {
            self.ended.pop_front();
        }
    }

    pub(crate) fn emit(&mut self, body: Body) {
        self.events.push(AgentEvent { body: Some(body) });
    }
}

/// Returns the pid of the worker that runs the claimed item, if the process descends from that worker.
fn worker_of(pools: &[WorkerPool], pid: Pid, claim: &Claim) -> Option<u32> {
    let is_worker = |pid: u32| pools.iter().any(|pool| pool.has_worker(pid));
    let is_fork_server = |pid: u32| pools.iter().any(|pool| pool.fork_server() == pid);
    // If a parent ends during the walk, the chain breaks. A second walk follows the new parents.
    let pids = || ancestors_of(pid).map(|pid| pid.as_raw().cast_unsigned());
    let nearest = || pids().find(|pid| is_worker(*pid) || is_fork_server(*pid));
    let nearest = nearest().or_else(nearest)?;
    let mut claimed =
        pools.iter().filter_map(|pool| Some((pool, pool.worker_that_runs(claim.secret, claim.position)?)));
    // A process whose parent has ended is a child of the fork server.
    let (_, worker) = claimed.find(|(pool, worker)| *worker == nearest || pool.fork_server() == nearest)?;
    Some(worker)
}
