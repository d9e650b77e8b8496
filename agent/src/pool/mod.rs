//! A pool of workers: its commands, and one round of its work.
//!
//! A round never blocks. It collects outcomes from the rings ([`WorkerPool::collect_all`]), receives its share of the
//! host's slots ([`WorkerPool::allow`]), supervises the processes and feeds the workers ([`WorkerPool::work`]), and
//! queues events for the coordinator. The driver then arms it ([`WorkerPool::arm`]) and sleeps until a descriptor is
//! ready or a deadline has passed.
//!
//! The parts own the state, and none of them calls another: the pool passes events of one part on to the others. [`Work`]
//! has the jobs and chunks, [`Crew`] the workers, [`Launcher`] the fork server, [`Starts`] the history of starts,
//! [`Stop`] how far the pool has stopped, [`Quota`] its share of the slots, [`Output`] what the processes print, and
//! [`Round`] what all of them need to know. The methods that move items are in `items.rs`, those about processes in
//! `processes.rs`.

mod chunks;
mod crew;
mod death;
mod function;
mod items;
mod launcher;
mod lines;
mod not_started;
mod output;
mod pace;
mod processes;
mod quota;
mod rejected;
mod report;
mod results;
mod round;
mod sink;
mod starts;
mod stop;
mod stream;
mod wait;
mod work;
mod worker;

use std::sync::Arc;

use farpool_link::MAX_THREADS;
use farpool_link::clock;
use farpool_proto::v1::agent_event::Body;
use farpool_proto::v1::{AgentEvent, Failure, PoolFault, PoolStarted, Segment, StartJob, StartPool};

use crate::fork_server::Program;
use crate::{Host, ProtocolError};
use crew::Crew;
use launcher::Launcher;
use output::Output;
use pace::Pace;
use quota::{Need, Quota};
use report::Report;
use round::Round;
use starts::Starts;
use stop::{Stop, Stopping};
use work::Work;

pub(crate) use crew::most_exiting;
pub(crate) use quota::{Allowance, Census};
pub use wait::Armed;
pub(crate) use wait::Token;

/// The workers of one pool on this host, and the chunks that they hold.
#[derive(Debug)]
pub(crate) struct WorkerPool {
    round: Round,
    work: Work,
    crew: Crew,
    pace: Pace,
    launcher: Launcher,
    starts: Starts,
    stop: Stop,
    quota: Quota,
    output: Output,
    /// The end of a round changed something that the next round must handle.
    needs_another_round: bool,
}

impl WorkerPool {
    /// Starts a pool: its fork server now, its workers when the fork server is ready. `shipped`: the program came with
    /// the pool.
    pub(crate) fn start(
        start: StartPool,
        serial: u64,
        host: &Arc<Host>,
        program: Program,
        shipped: bool,
    ) -> Result<WorkerPool, Failure> {
        if shipped {
            program.check(&host.name).map_err(|why| not_started::incompatible(host, &program, &why))?;
        }
        rejected::check_pool(&start, host)?;
        let settings = start.settings.unwrap_or_default();
        farpool_link::check_file_limit().map_err(|why| not_started::no_memory(host, &why))?;
        let now = clock::now();
        let forwards = host.settings.forward_output;
        let (started, stderr) = launcher::start_fork_server(&program, forwards)
            .map_err(|error| not_started::spawn_error(host, &program, shipped, &error))?;
        let mut round = Round {
            now,
            held: false,
            report: Report::default(),
            id: start.pool,
            serial,
            threads: (settings.threads as usize).clamp(1, MAX_THREADS),
            settings,
            start_limit: u64::try_from(host.settings.start_limit.as_nanos()).unwrap_or(u64::MAX),
            host: Arc::clone(host),
        };
        round.report.other(Body::PoolStarted(PoolStarted { pool: round.id }));
        let launcher = Launcher::new(program, shipped, started, now);
        launcher.watch(&round);
        Ok(WorkerPool {
            work: Work::default(),
            crew: Crew::default(),
            pace: Pace::new(),
            launcher,
            starts: Starts::new(now, host.settings.retries_starts),
            stop: Stop::new(),
            quota: Quota::new(start.weight, processes(start.processes, host), now),
            output: Output::new(forwards, stderr, &round),
            needs_another_round: false,
            round,
        })
    }

    /// Returns the coordinator's number of the pool.
    pub(crate) fn id(&self) -> u64 {
        self.round.id
    }

    /// Returns its number in this agent, which is never reused.
    pub(crate) fn serial(&self) -> u64 {
        self.round.serial
    }

    // ---- one round

    /// Supervises the workers and gives them items. `room`: most workers that may run at once.
    pub(crate) fn work(&mut self, room: usize, now: u64) {
        self.round.now = now;
        self.quota.limit(room);
        self.supervise();
        self.work.fail_rejected(&mut self.round);
        self.feed();
        self.replace_stuck();
    }

    /// Appends events for the coordinator to `events`.
    pub(crate) fn report_into(&mut self, events: &mut Vec<AgentEvent>) {
        self.round.report.drain_into(events);
    }

    /// Handles a ready descriptor.
    pub(crate) fn ready(&mut self, token: Token, now: u64) {
        self.round.now = now;
        match token {
            Token::ForkServer => self.fork_server_ready(),
            Token::Socket(number) => self.crew.socket_ready(number, &self.round),
            Token::Stdout(_) | Token::Stderr(_) | Token::ForkServerStderr => {
                let server = self.server();
                let crew = &self.crew;
                self.output.ready(token, |number| crew.pid_of(number), server, &mut self.round);
            }
        }
    }

    /// Asks the workers to wake the agent when there is work, so that it may sleep until then.
    pub(crate) fn arm(&mut self) -> Armed {
        let rejected = self.work.has_rejected() && !self.round.held;
        if rejected || std::mem::take(&mut self.needs_another_round) {
            return Armed::Busy;
        }
        let now = clock::now();
        self.round.now = now;
        let quick = self.round.threads == 1 && self.pace.is_quick();
        let Armed::Until(of_workers) = self.crew.arm(quick, self.work.is_timed(), &self.round) else {
            return Armed::Busy;
        };
        let deadlines =
            [of_workers, self.process_deadline(), self.output.due(), self.time_to_move(), self.time_to_replace()];
        match deadlines.into_iter().flatten().min() {
            Some(time) if time <= now => Armed::Busy,
            other => Armed::Until(other),
        }
    }

    // ---- commands

    /// Starts a job and returns its number in this pool.
    pub(crate) fn start_job(&mut self, start: StartJob) -> u32 {
        // An earlier job with another function may have had this number.
        self.forget_functions();
        self.work.start_job(start, &self.round.host)
    }

    /// Ends a job: the coordinator sends no more of it. Its number may be reused.
    pub(crate) fn end_job(&mut self, number: u32, kill: bool) {
        if kill {
            self.cancel(|chunk| chunk.job == number);
        }
        // Only after the cancellation, which would otherwise remove the job with its last chunk.
        self.work.end_job(number);
    }

    /// Takes a chunk of the job with this number.
    pub(crate) fn assign(
        &mut self,
        chunk: &farpool_proto::v1::Chunk,
        job: u32,
        segments: impl Iterator<Item = Segment>,
    ) -> Result<(), ProtocolError> {
        // The coordinator has requeued the chunks of a failed pool, and drops those of a pool that it stops.
        let runs = matches!(self.stop.stage(), Stopping::No | Stopping::WhenIdle);
        self.work.assign(chunk, job, segments, runs)
    }

    /// Cancels the chunks with these ids, which must be sorted. Other items that run on the same worker may be
    /// restarted elsewhere.
    pub(crate) fn cancel_chunks(&mut self, ids: &[u64]) {
        self.cancel(|chunk| ids.binary_search(&chunk.id).is_ok());
    }

    /// Returns all items that have not begun to the coordinator.
    pub(crate) fn give_back_all(&mut self) {
        for key in self.work.keys() {
            self.work.queue_in_front(self.crew.take_back_chunk(key));
        }
        self.work.give_back_queue(&mut self.round.report);
    }

    /// Returns the items of a chunk that have not begun to the coordinator. False if the chunk is not here.
    pub(crate) fn retract(&mut self, id: u64) -> bool {
        let Some(key) = self.work.find(id) else { return false };
        self.work.queue_in_front(self.crew.take_back_chunk(key));
        self.work.give_back_chunk(key, &mut self.round.report);
        true
    }

    /// Changes the number of workers.
    pub(crate) fn resize(&mut self, wanted: u32) {
        self.quota.resize(processes(wanted, &self.round.host));
    }

    /// Stops or resumes reading outcomes and output: for this pool (`of_this`, if it changes) and for all pools.
    pub(crate) fn hold(&mut self, of_this: Option<bool>, of_all: bool) {
        self.round.held = self.output.hold(of_this, of_all);
    }

    /// Stops the workers: now, or when they are idle.
    pub(crate) fn stop(&mut self, now: bool) {
        if self.stop.begin(now) {
            self.work.clear_queue();
            self.work.clear_rejected();
        }
    }

    /// Stops the pool at the coordinator's request. The coordinator sends nothing more about it.
    pub(crate) fn request_stop(&mut self, now: bool) {
        self.stop.request();
        self.stop(now);
    }

    /// Cancels a stop, unless its workers are being killed.
    pub(crate) fn cancel_stop(&mut self) {
        self.stop.cancel();
    }

    /// Returns whether the coordinator requested the stop.
    pub(crate) fn stop_was_requested(&self) -> bool {
        self.stop.was_requested()
    }

    /// Returns whether all its processes have ended.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.is_done()
    }

    // ---- sharing slots

    /// Counts its workers and its demand.
    pub(crate) fn census(&mut self, now: u64) -> Census {
        // Before the program has started, its requested workers are not processes yet.
        let up = self.launcher.is_up();
        let (exiting, slot_held_until) = if up { self.crew.held_slots(now) } else { (0, None) };
        let usable = self.usable().max(usize::from(up && self.starts.should_probe(now)));
        let need = Need {
            usable,
            workers: if up { self.crew.serving() } else { 0 },
            lent: self.crew.lent(),
            runs: self.crew.iter().any(|worker| worker.runs()),
            may_have_workers: up && (self.stop.stage() == Stopping::No || usable > 0),
        };
        Census { demand: self.quota.demand(need, now), exiting, slot_held_until }
    }

    /// Returns how many workers have work now.
    fn usable(&self) -> usize {
        if !self.launcher.is_up() || matches!(self.stop.stage(), Stopping::Now | Stopping::Closing { .. }) {
            return 0;
        }
        let chunks = self.work.chunks().saturating_sub(self.crew.runs_of_lent());
        let most = self.quota.processes().saturating_sub(self.crew.lent());
        self.crew.running().max(chunks.div_ceil(self.round.threads)).min(most)
    }

    /// Applies a new allowance.
    pub(crate) fn allow(&mut self, allowance: Allowance, now: u64) {
        self.quota.allow(allowance, self.has_chunks(), now);
        self.work.queue_in_front(self.crew.stop_giving(self.quota.running()));
        self.crew.retire_idle(self.quota.workers());
    }

    /// Returns the number of workers that have items and do not lend their slots.
    pub(crate) fn running(&self) -> usize {
        self.crew.running()
    }

    /// Returns the most workers that it may have at once.
    pub(crate) fn processes(&self) -> usize {
        self.quota.processes()
    }

    /// Returns whether it holds chunks.
    pub(crate) fn has_chunks(&self) -> bool {
        self.work.chunks() > 0
    }

    /// Returns whether it holds no chunks and has reported all outcomes.
    pub(crate) fn holds_nothing(&self) -> bool {
        !self.has_chunks() && self.round.report.is_empty()
    }

    /// Returns how many chunks each worker should hold, so that none waits for the next.
    pub(crate) fn chunks_a_worker(&self) -> usize {
        self.round.threads + self.pace.depth() - 1
    }

    /// Returns the number of chunks that no worker can begin, because all wait for other items.
    pub(crate) fn blocked_chunks(&self) -> usize {
        if self.lent() >= self.processes() { self.work.queued() } else { 0 }
    }

    // ---- lending slots

    /// Returns the number of workers that lend their slots.
    pub(crate) fn lent(&self) -> usize {
        self.crew.lent()
    }

    /// Records the positions of the items whose clients wait. Returns whether the worker with this secret belongs to
    /// this pool.
    pub(crate) fn lend_slot(&mut self, secret: u128, positions: &[u32]) -> bool {
        self.crew.set_waiting_clients(secret, positions)
    }

    /// Forgets which clients wait.
    pub(crate) fn clear_lending(&mut self) {
        self.crew.clear_waiting_clients();
    }

    /// Returns the process id of the worker with this secret, if it runs the item at this position.
    pub(crate) fn worker_that_runs(&self, secret: u128, position: u32) -> Option<u32> {
        let threads = self.round.threads;
        let mut workers = self.crew.iter();
        workers.find(|worker| worker.has_secret(secret) && worker.runs_item(position, threads)).map(|found| found.pid())
    }

    /// Returns whether the process is one of its workers.
    pub(crate) fn has_worker(&self, pid: u32) -> bool {
        self.crew.iter().any(|worker| worker.pid() == pid)
    }

    /// Returns the process ids of its workers. Those that are exiting, or have not reported theirs yet, are left out.
    pub(crate) fn worker_pids(&self) -> impl Iterator<Item = u32> {
        let workers = self.crew.iter().filter(|worker| !worker.is_exiting());
        workers.map(|worker| worker.known_pid()).filter(|pid| *pid != 0)
    }

    /// Returns the process id of its fork server.
    pub(crate) fn fork_server(&self) -> u32 {
        self.launcher.pid()
    }

    // ---- health

    /// Returns why its workers die before they become ready, if they do.
    pub(crate) fn unhealthy_reason(&self) -> Option<&str> {
        self.starts.unhealthy_reason()
    }

    /// Returns whether a worker can run items, or could when it is started.
    pub(crate) fn can_serve(&self) -> bool {
        self.starts.can_serve() || self.crew.iter().any(|worker| worker.works())
    }

    /// Returns whether the coordinator was last told that this pool is unhealthy while others are not.
    pub(crate) fn reported_unhealthy(&self) -> bool {
        self.starts.reported_unhealthy()
    }

    /// Returns the change of its health to report now, if any. `all`: the whole agent was reported unhealthy.
    pub(crate) fn report_health(&mut self, all: bool, now: u64) -> Option<Body> {
        self.round.now = now;
        self.starts.report_health(all, self.stop.has_begun(), &self.round)
    }

    /// Returns when to report its health or to start a probe, if that is later than `now`.
    pub(crate) fn health_due(&self, now: u64) -> Option<u64> {
        self.starts.health_due(now)
    }

    /// Reports that the pool has failed, and stops it.
    fn fail(&mut self, failure: Failure) {
        if self.stop.has_begun() {
            return;
        }
        let pool = self.round.id;
        self.round.report.other(Body::PoolFault(Box::new(PoolFault { pool, failure: Some(failure) })));
        self.stop(true);
    }
}

/// Returns the number of workers on this host for the requested number; 0: one for each slot.
fn processes(wanted: u32, host: &Host) -> usize {
    let slots = host.settings.slots;
    (if wanted == 0 { slots } else { wanted.min(slots) }) as usize
}
