//! Workers without processes: they run an agent's chunks in simulated time.
//!
//! Items wait in their chunks; slots take the next item of the oldest chunk that may run. All numbers are the agent's
//! own, as in real workers.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{
    AgentEvent, Assign, Credit, Draining, Failure, FailureKind, ItemFault, PoolStarted, PoolStopped, Returned, RunDone,
    StartPool, StopPool,
};
use farpool_testkit::random::Random;
use tokio::time::Instant;

use crate::plan::{Fate, Plan, failed_of, result_of};
use crate::trace;

pub(crate) struct Workers {
    plan: Plan,
    random: Random,
    slots: u32,
    pools: BTreeMap<u64, Pool>,
    jobs: BTreeMap<u64, Job>,
    /// Oldest first.
    chunks: VecDeque<Chunk>,
    running: Vec<Run>,
    held: bool,
    draining: bool,
    reported_credit: u32,
    /// Every run takes this many times as long.
    slowness: u32,
    /// There may be chunks of earlier coordinators.
    has_earlier_chunks: bool,
    /// The most slots that were busy at once.
    peak: usize,
    events: Vec<AgentEvent>,
}

struct Pool {
    processes: u32,
    /// When it has started; `None` once it has.
    starts_at: Option<Instant>,
    stopping: bool,
    /// When its killed processes are gone.
    gone_at: Option<Instant>,
    held: bool,
}

struct Job {
    pool: u64,
    /// The items of a chunk run one after another.
    whole_chunks: bool,
    /// No more chunks follow.
    ended: bool,
}

struct Chunk {
    number: u64,
    job: u64,
    attempt: u32,
    items: VecDeque<(u64, Bytes)>,
    running: u32,
    /// Unreported results: the first item, the results, and whether they count as failed.
    done: Option<(u64, Vec<Bytes>, bool)>,
    /// When they are reported at the latest.
    report_by: Option<Instant>,
    busy: Duration,
}

struct Run {
    ends_at: Instant,
    chunk: u64,
    job: u64,
    item: u64,
    data: Bytes,
    fate: Fate,
    took: Duration,
}

impl Workers {
    pub(crate) fn new(plan: Plan, random: Random, slots: u32) -> Self {
        Self {
            plan,
            random,
            slots,
            pools: BTreeMap::new(),
            jobs: BTreeMap::new(),
            chunks: VecDeque::new(),
            running: Vec::new(),
            held: false,
            draining: false,
            reported_credit: 0,
            slowness: 1,
            has_earlier_chunks: false,
            peak: 0,
            events: Vec::new(),
        }
    }

    pub(crate) fn start_pool(&mut self, start: &StartPool) {
        let starts_at = Some(Instant::now() + self.random.millis(1..80));
        let pool = Pool { processes: start.processes, starts_at, stopping: false, gone_at: None, held: false };
        if self.pools.insert(start.pool, pool).is_some() {
            trace::violation(format_args!("pool {} was started twice", start.pool));
        }
    }

    pub(crate) fn command(&mut self, command: Command) {
        match command {
            Command::StartPool(start) => self.start_pool(&start),
            Command::StopPool(StopPool { pool, now }) => self.stop_pool(pool, now),
            Command::StartJob(start) => {
                let job = Job { pool: start.pool, whole_chunks: start.whole_chunks, ended: false };
                if self.jobs.insert(start.job, job).is_some() {
                    trace::violation(format_args!("job {} was started twice", start.job));
                }
            }
            Command::EndJob(end) => {
                if let Some(job) = self.jobs.get_mut(&end.job) {
                    job.ended = true;
                }
                self.drop_chunks(|chunk| end.kill && chunk.job == end.job);
            }
            Command::Assign(assign) => {
                self.assign(&assign);
                self.check_credit();
            }
            Command::Retract(retract) => {
                retract.chunks.iter().for_each(|&chunk| self.give_back(|of| of.number == chunk))
            }
            Command::CancelChunks(cancel) => {
                self.drop_chunks(|chunk| cancel.chunks.contains(&chunk.number));
            }
            Command::ResizePool(resize) => {
                if let Some(pool) = self.pools.get_mut(&resize.pool) {
                    pool.processes = resize.processes;
                }
            }
            Command::Drain(_) => self.drain(),
            Command::Welcome(_) | Command::Settled(_) | Command::AdoptPool(_) | Command::LendSlot(_) => {}
        }
    }

    fn stop_pool(&mut self, number: u64, now: bool) {
        let Some(pool) = self.pools.get_mut(&number) else { return };
        pool.stopping = true;
        if now {
            pool.gone_at = Some(Instant::now() + self.random.millis(1..20));
            let jobs: Vec<u64> = self.jobs.iter().filter(|(_, job)| job.pool == number).map(|(job, _)| *job).collect();
            self.drop_chunks(|chunk| jobs.contains(&chunk.job));
        }
    }

    /// Keeps a pool that was about to stop.
    pub(crate) fn cancel_pool_stop(&mut self, pool: u64) {
        if let Some(pool) = self.pools.get_mut(&pool) {
            pool.stopping = false;
        }
    }

    /// Notes that it holds chunks of an earlier coordinator.
    pub(crate) fn note_earlier_chunks(&mut self) {
        self.has_earlier_chunks = true;
    }

    /// Makes everything that starts take this many times as long.
    pub(crate) fn slow_down(&mut self, times: u32) {
        self.slowness = times;
    }

    /// Kills the workers of all running items.
    pub(crate) fn kill_running(&mut self) {
        let now = Instant::now();
        for run in self.running.iter_mut().filter(|run| run.fate != Fate::Dies) {
            (run.fate, run.ends_at) = (Fate::Dies, now);
            self.plan.dies(&run.data);
        }
    }

    /// Returns the most slots that were busy at once since [`Workers::reset_peak`].
    pub(crate) fn peak(&self) -> usize {
        self.peak
    }

    pub(crate) fn reset_peak(&mut self) {
        self.peak = 0;
    }

    pub(crate) fn slots(&self) -> usize {
        self.slots as usize
    }

    pub(crate) fn hold(&mut self, hold: bool) {
        self.held = hold;
    }

    pub(crate) fn hold_pool(&mut self, pool: u64, hold: bool) {
        if let Some(pool) = self.pools.get_mut(&pool) {
            pool.held = hold;
        }
    }

    pub(crate) fn drain(&mut self) {
        if !std::mem::replace(&mut self.draining, true) {
            self.report(Event::Draining(Draining {}));
        }
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.draining && self.events.is_empty() && self.chunks.is_empty()
    }

    pub(crate) fn stop_all(&mut self) {
        let pools: Vec<u64> = self.pools.keys().copied().collect();
        pools.into_iter().for_each(|pool| self.stop_pool(pool, true));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }

    /// Describes what is left, if anything.
    pub(crate) fn remains(&self) -> Option<String> {
        let (pools, jobs) = (self.pools.len(), self.jobs.len());
        let (chunks, running) = (self.chunks.len(), self.running.len());
        (pools + jobs + chunks + running > 0)
            .then(|| format!("{pools} pools, {jobs} jobs, {chunks} chunks and {running} runs"))
    }

    /// Does one round of work, and appends its events.
    pub(crate) fn work(&mut self, events: &mut Vec<AgentEvent>) {
        let now = Instant::now();
        for (&pool, state) in &mut self.pools {
            if state.starts_at.take_if(|at| *at <= now).is_some() {
                self.events.push(AgentEvent { body: Some(Event::PoolStarted(PoolStarted { pool })) });
            }
        }
        if self.draining {
            self.give_back(|_| true);
        }
        self.collect(now);
        self.begin(now);
        self.remove_stopped_pools(now);
        let credit = self.credit();
        if std::mem::replace(&mut self.reported_credit, credit) != credit {
            self.report(Event::Credit(Credit { chunks: credit, bytes: 0 }));
        }
        // Some events are sent twice.
        for event in self.events.drain(..) {
            let again = matches!(event.body, Some(Event::RunDone(_) | Event::ItemFault(_))) && self.random.one_in(50);
            events.extend(again.then(|| event.clone()));
            events.push(event);
        }
    }

    /// Returns when there is work to do without a command.
    pub(crate) fn due(&self) -> Option<Instant> {
        let starts = self.pools.values().filter_map(|pool| pool.starts_at.or(pool.gone_at));
        let runs = self.running.iter().filter(|run| !self.is_held(run.job)).map(|run| run.ends_at);
        let reports = self.chunks.iter().filter_map(|chunk| chunk.report_by);
        starts.chain(runs).chain(reports).min()
    }

    fn assign(&mut self, assign: &Assign) {
        let mut segments = assign.segments.iter();
        for chunk in &assign.chunks {
            if self.jobs.get(&chunk.job).is_none_or(|job| job.ended) {
                trace::violation(format_args!(
                    "chunk {} came for job {}, which does not exist",
                    chunk.chunk, chunk.job
                ));
            }
            let (mut items, mut index) = (VecDeque::new(), chunk.first);
            for segment in segments.by_ref().take(chunk.segments as usize) {
                let mut from = 0;
                for end in segment.ends.chunks_exact(4) {
                    let end = u32::from_le_bytes([end[0], end[1], end[2], end[3]]).wrapping_sub(segment.start) as usize;
                    items.push_back((index, segment.data.slice(from..end)));
                    (from, index) = (end, index + 1);
                }
            }
            self.chunks.push_back(Chunk {
                number: chunk.chunk,
                job: chunk.job,
                attempt: chunk.attempt,
                items,
                running: 0,
                done: None,
                report_by: None,
                busy: Duration::ZERO,
            });
        }
    }

    /// Checks that the agent gets no more chunks than its credit. It may also hold chunks of pools that the coordinator
    /// does not know yet, and unwanted items of adopted chunks.
    fn check_credit(&self) {
        let mut of_pools = BTreeMap::<u64, u32>::new();
        for pool in self.chunks.iter().filter_map(|chunk| Some(self.jobs.get(&chunk.job)?.pool)) {
            *of_pools.entry(pool).or_default() += 1;
        }
        let credit = if self.has_earlier_chunks { 2 * self.credit() } else { self.credit() };
        if let Some((pool, chunks)) = of_pools.into_iter().find(|(_, chunks)| *chunks > credit && !self.draining) {
            trace::violation(format_args!(
                "{chunks} chunks of pool {pool} are at an agent that wants to hold {credit}"
            ));
        }
    }

    /// Returns one more than the slots, so that no slot waits for the next chunk.
    fn credit(&self) -> u32 {
        if self.draining { 0 } else { self.slots + 1 }
    }

    fn is_held(&self, job: u64) -> bool {
        let pool = self.jobs.get(&job).and_then(|job| self.pools.get(&job.pool));
        self.held || pool.is_some_and(|pool| pool.held)
    }

    /// Collects the runs that have ended.
    fn collect(&mut self, now: Instant) {
        let mut ended = Vec::new();
        for run in std::mem::take(&mut self.running) {
            if run.ends_at <= now && !self.is_held(run.job) { ended.push(run) } else { self.running.push(run) }
        }
        ended.sort_by_key(|run| (run.ends_at, run.chunk, run.item));
        for run in ended {
            let Some(chunk) = self.chunks.iter_mut().find(|chunk| chunk.number == run.chunk) else { continue };
            chunk.running -= 1;
            chunk.busy += run.took;
            if matches!(run.fate, Fate::Done | Fate::Fails) {
                let fails = run.fate == Fate::Fails;
                let result = if fails { failed_of(&run.data) } else { result_of(&run.data) };
                match &mut chunk.done {
                    Some((first, done, failed)) if *first + done.len() as u64 == run.item && *failed == fails => {
                        done.push(result);
                    }
                    _ => {
                        let report = chunk.report_done();
                        chunk.done = Some((run.item, vec![result], fails));
                        self.events.extend(report);
                    }
                }
            } else {
                let report = chunk.report_done();
                let kind = if run.fate == Fate::Dies { FailureKind::WorkerDied } else { FailureKind::Panicked };
                let failure = Some(Failure { kind: kind.into(), ..Failure::default() });
                let fault = ItemFault { chunk: chunk.number, attempt: chunk.attempt, item: run.item, failure };
                self.events.extend(report);
                self.events.push(AgentEvent { body: Some(Event::ItemFault(Box::new(fault))) });
            }
            // Sometimes several results are reported together, and some late.
            let chunk = self.chunks.iter_mut().find(|chunk| chunk.number == run.chunk).expect("no such chunk");
            if self.random.one_in(2) && !self.draining {
                let most = self.random.pick(&[20, 20, 20, 20, 20, 20, 20, 20, 20, 4000]);
                chunk.report_by = Some(now + self.random.millis(0..most));
            } else {
                let report = chunk.report_done();
                self.events.extend(report);
            }
        }
        for chunk in &mut self.chunks {
            if chunk.report_by.is_some_and(|by| by <= now) {
                self.events.extend(chunk.report_done());
            }
        }
        self.chunks.retain(|chunk| !chunk.is_over());
        self.forget_jobs();
    }

    /// Starts items on free slots.
    fn begin(&mut self, now: Instant) {
        while self.running.len() < self.slots as usize {
            let runs_of = |number: u64| {
                let of = |run: &&Run| self.jobs.get(&run.job).is_some_and(|job| job.pool == number);
                self.running.iter().filter(of).count()
            };
            let may_run = |chunk: &&mut Chunk| {
                let Some(&Job { pool: number, whole_chunks: whole, .. }) = self.jobs.get(&chunk.job) else {
                    return false;
                };
                let Some(pool) = self.pools.get(&number) else { return false };
                let room = pool.processes == 0 || runs_of(number) < pool.processes as usize;
                room && pool.starts_at.is_none() && !chunk.items.is_empty() && !(whole && chunk.running > 0)
            };
            let Some(chunk) = self.chunks.iter_mut().find(may_run) else { return };
            let Some((item, data)) = chunk.items.pop_front() else { return };
            chunk.running += 1;
            let (took, fate) = self.plan.begin(&data);
            let took = took * self.slowness;
            let run = Run { ends_at: now + took, chunk: chunk.number, job: chunk.job, item, data, fate, took };
            self.running.push(run);
            self.peak = self.peak.max(self.running.len());
        }
    }

    /// Removes stopped pools that have no more work.
    fn remove_stopped_pools(&mut self, now: Instant) {
        let (jobs, chunks) = (&self.jobs, &self.chunks);
        let busy = |number: u64| chunks.iter().any(|chunk| jobs.get(&chunk.job).is_some_and(|job| job.pool == number));
        let over: Vec<u64> = self
            .pools
            .iter()
            .filter(|(number, pool)| pool.stopping && !busy(**number) && pool.gone_at.is_none_or(|at| at <= now))
            .map(|(number, _)| *number)
            .collect();
        for pool in over {
            self.pools.remove(&pool);
            self.jobs.retain(|_, job| job.pool != pool);
            self.report(Event::PoolStopped(PoolStopped { pool }));
        }
    }

    fn drop_chunks(&mut self, unwanted: impl Fn(&Chunk) -> bool) {
        let dropped: Vec<u64> = self.chunks.iter().filter(|chunk| unwanted(chunk)).map(|chunk| chunk.number).collect();
        self.running.retain(|run| !dropped.contains(&run.chunk));
        // Results of items that have just ended are sometimes still reported.
        for chunk in self.chunks.iter_mut().filter(|chunk| dropped.contains(&chunk.number)) {
            if self.random.one_in(2) {
                self.events.extend(chunk.report_done());
            }
        }
        self.chunks.retain(|chunk| !dropped.contains(&chunk.number));
        self.forget_jobs();
    }

    /// Forgets jobs that have ended and have no chunks here.
    fn forget_jobs(&mut self) {
        let chunks = &self.chunks;
        self.jobs.retain(|&number, job| !job.ended || chunks.iter().any(|chunk| chunk.job == number));
    }

    /// Returns items that have not started, from the end, and sometimes not all of them.
    fn give_back(&mut self, which: impl Fn(&Chunk) -> bool) {
        for chunk in self.chunks.iter_mut().filter(|chunk| which(chunk) && !chunk.items.is_empty()) {
            // An item may start just when it would be returned.
            let keep = if !self.draining && self.random.one_in(4) { 1 } else { 0 };
            let back = chunk.items.split_off(keep.min(chunk.items.len()));
            let Some(&(first, _)) = back.front() else { continue };
            let (number, attempt, count) = (chunk.number, chunk.attempt, back.len() as u64);
            let report = chunk.report_done();
            self.events.extend(report);
            let returned = Returned { chunk: number, attempt, first, count };
            self.events.push(AgentEvent { body: Some(Event::Returned(returned)) });
        }
        self.chunks.retain(|chunk| !chunk.is_over());
        self.forget_jobs();
    }

    fn report(&mut self, body: Event) {
        self.events.push(AgentEvent { body: Some(body) });
    }
}

impl Chunk {
    fn is_over(&self) -> bool {
        self.items.is_empty() && self.running == 0 && self.done.is_none()
    }

    fn report_done(&mut self) -> Option<AgentEvent> {
        self.report_by = None;
        let (first, results, failed) = self.done.take()?;
        let (mut data, mut ends) = (BytesMut::new(), BytesMut::new());
        for result in results {
            data.extend_from_slice(&result);
            ends.extend_from_slice(&(data.len() as u32).to_le_bytes());
        }
        let busy_ns = std::mem::take(&mut self.busy).as_nanos() as u64;
        let done = RunDone {
            chunk: self.number,
            attempt: self.attempt,
            first,
            data: data.freeze(),
            ends: ends.freeze(),
            busy_ns,
            failed,
        };
        Some(AgentEvent { body: Some(Event::RunDone(done)) })
    }
}
