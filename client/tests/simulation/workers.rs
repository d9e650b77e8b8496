//! Workers without processes: what an agent does with chunks, in simulated time.
//!
//! Items wait in their chunks; slots take the next item of the oldest chunk that may run. Everything is in the agent's own
//! numbers, as the real thing has it.

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
    /// The oldest first.
    chunks: VecDeque<Chunk>,
    running: Vec<Run>,
    held: bool,
    draining: bool,
    told_credit: u32,
    /// Everything takes so many times as long.
    slowness: u32,
    /// Chunks of other coordinators may be here.
    outlives: bool,
    /// Most slots that were busy at once.
    peak: usize,
    events: Vec<AgentEvent>,
}

struct Pool {
    processes: u32,
    /// When it is there; none: it is.
    starts_at: Option<Instant>,
    stopping: bool,
    /// When its processes are gone, if they were killed.
    gone_at: Option<Instant>,
    held: bool,
}

struct Job {
    pool: u64,
    /// The items of a chunk run one after another.
    whole_chunks: bool,
    /// No more chunks come.
    ended: bool,
}

struct Chunk {
    number: u64,
    job: u64,
    attempt: u32,
    items: VecDeque<(u64, Bytes)>,
    running: u32,
    /// Results that were not reported yet: the first item, the results, and whether they count as failed.
    done: Option<(u64, Vec<Bytes>, bool)>,
    /// When they are told at the latest.
    told_by: Option<Instant>,
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
            told_credit: 0,
            slowness: 1,
            outlives: false,
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

    /// A pool that was to stop goes on.
    pub(crate) fn cancel_pool_stop(&mut self, pool: u64) {
        if let Some(pool) = self.pools.get_mut(&pool) {
            pool.stopping = false;
        }
    }

    /// It has told a coordinator what it has of another one.
    pub(crate) fn outlive(&mut self) {
        self.outlives = true;
    }

    /// Everything that begins takes so many times as long.
    pub(crate) fn slow_down(&mut self, times: u32) {
        self.slowness = times;
    }

    /// All that run die at once.
    pub(crate) fn kill_running(&mut self) {
        let now = Instant::now();
        for run in self.running.iter_mut().filter(|run| run.fate != Fate::Dies) {
            (run.fate, run.ends_at) = (Fate::Dies, now);
            self.plan.dies(&run.data);
        }
    }

    /// The most slots that were busy at once since [`Workers::forget_peak`].
    pub(crate) fn peak(&self) -> usize {
        self.peak
    }

    pub(crate) fn forget_peak(&mut self) {
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
            self.tell(Event::Draining(Draining {}));
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

    /// What is left, in words; nothing if that is nothing.
    pub(crate) fn remains(&self) -> Option<String> {
        let (pools, jobs) = (self.pools.len(), self.jobs.len());
        let (chunks, running) = (self.chunks.len(), self.running.len());
        (pools + jobs + chunks + running > 0)
            .then(|| format!("{pools} pools, {jobs} jobs, {chunks} chunks and {running} runs"))
    }

    /// One round of work; what there is to tell is appended.
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
        self.bury(now);
        let credit = self.credit();
        if std::mem::replace(&mut self.told_credit, credit) != credit {
            self.tell(Event::Credit(Credit { chunks: credit, bytes: 0 }));
        }
        // Some things are said twice.
        for event in self.events.drain(..) {
            let again = matches!(event.body, Some(Event::RunDone(_) | Event::ItemFault(_))) && self.random.one_in(50);
            events.extend(again.then(|| event.clone()));
            events.push(event);
        }
    }

    /// When there is something to do, if nothing is said.
    pub(crate) fn due(&self) -> Option<Instant> {
        let starts = self.pools.values().filter_map(|pool| pool.starts_at.or(pool.gone_at));
        let runs = self.running.iter().filter(|run| !self.is_held(run.job)).map(|run| run.ends_at);
        let told = self.chunks.iter().filter_map(|chunk| chunk.told_by);
        starts.chain(runs).chain(told).min()
    }

    fn assign(&mut self, assign: &Assign) {
        let mut segments = assign.segments.iter();
        for chunk in &assign.chunks {
            if self.jobs.get(&chunk.job).is_none_or(|job| job.ended) {
                trace::violation(format_args!("chunk {} came for job {}, which is not here", chunk.chunk, chunk.job));
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
                told_by: None,
                busy: Duration::ZERO,
            });
        }
    }

    /// An agent gets no more than it wants to hold, beside what it holds of pools that the coordinator does not know yet. Of
    /// chunks that were adopted it may hold items for nobody.
    fn check_credit(&self) {
        let mut of_pools = BTreeMap::<u64, u32>::new();
        for pool in self.chunks.iter().filter_map(|chunk| Some(self.jobs.get(&chunk.job)?.pool)) {
            *of_pools.entry(pool).or_default() += 1;
        }
        let credit = if self.outlives { 2 * self.credit() } else { self.credit() };
        if let Some((pool, chunks)) = of_pools.into_iter().find(|(_, chunks)| *chunks > credit && !self.draining) {
            trace::violation(format_args!(
                "{chunks} chunks of pool {pool} are at an agent that wants to hold {credit}"
            ));
        }
    }

    /// More than there are slots, so that nobody waits for the next chunk.
    fn credit(&self) -> u32 {
        if self.draining { 0 } else { self.slots + 1 }
    }

    fn is_held(&self, job: u64) -> bool {
        let pool = self.jobs.get(&job).and_then(|job| self.pools.get(&job.pool));
        self.held || pool.is_some_and(|pool| pool.held)
    }

    /// Takes what has ended.
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
                        let told = chunk.tell_done();
                        chunk.done = Some((run.item, vec![result], fails));
                        self.events.extend(told);
                    }
                }
            } else {
                let told = chunk.tell_done();
                let kind = if run.fate == Fate::Dies { FailureKind::WorkerDied } else { FailureKind::Panicked };
                let failure = Some(Failure { kind: kind.into(), ..Failure::default() });
                let fault = ItemFault { chunk: chunk.number, attempt: chunk.attempt, item: run.item, failure };
                self.events.extend(told);
                self.events.push(AgentEvent { body: Some(Event::ItemFault(Box::new(fault))) });
            }
            // Sometimes several results travel together, and some come late.
            let chunk = self.chunks.iter_mut().find(|chunk| chunk.number == run.chunk).expect("it was there");
            if self.random.one_in(2) && !self.draining {
                let most = self.random.pick(&[20, 20, 20, 20, 20, 20, 20, 20, 20, 4000]);
                chunk.told_by = Some(now + self.random.millis(0..most));
            } else {
                let told = chunk.tell_done();
                self.events.extend(told);
            }
        }
        for chunk in &mut self.chunks {
            if chunk.told_by.is_some_and(|by| by <= now) {
                self.events.extend(chunk.tell_done());
            }
        }
        self.chunks.retain(|chunk| !chunk.is_over());
        self.forget_jobs();
    }

    /// Has free slots take items.
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

    /// Pools that are through.
    fn bury(&mut self, now: Instant) {
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
            self.tell(Event::PoolStopped(PoolStopped { pool }));
        }
    }

    fn drop_chunks(&mut self, unwanted: impl Fn(&Chunk) -> bool) {
        let dropped: Vec<u64> = self.chunks.iter().filter(|chunk| unwanted(chunk)).map(|chunk| chunk.number).collect();
        self.running.retain(|run| !dropped.contains(&run.chunk));
        // What has ended just now is told all the same.
        for chunk in self.chunks.iter_mut().filter(|chunk| dropped.contains(&chunk.number)) {
            if self.random.one_in(2) {
                self.events.extend(chunk.tell_done());
            }
        }
        self.chunks.retain(|chunk| !dropped.contains(&chunk.number));
        self.forget_jobs();
    }

    /// Forgets jobs that have ended, and of which nothing is here.
    fn forget_jobs(&mut self) {
        let chunks = &self.chunks;
        self.jobs.retain(|&number, job| !job.ended || chunks.iter().any(|chunk| chunk.job == number));
    }

    /// Gives back what has not begun, from the end, and sometimes not all of it.
    fn give_back(&mut self, which: impl Fn(&Chunk) -> bool) {
        for chunk in self.chunks.iter_mut().filter(|chunk| which(chunk) && !chunk.items.is_empty()) {
            // An item may be begun just when it would be given back.
            let keep = if !self.draining && self.random.one_in(4) { 1 } else { 0 };
            let back = chunk.items.split_off(keep.min(chunk.items.len()));
            let Some(&(first, _)) = back.front() else { continue };
            let (number, attempt, count) = (chunk.number, chunk.attempt, back.len() as u64);
            let told = chunk.tell_done();
            self.events.extend(told);
            let returned = Returned { chunk: number, attempt, first, count };
            self.events.push(AgentEvent { body: Some(Event::Returned(returned)) });
        }
        self.chunks.retain(|chunk| !chunk.is_over());
        self.forget_jobs();
    }

    fn tell(&mut self, body: Event) {
        self.events.push(AgentEvent { body: Some(body) });
    }
}

impl Chunk {
    fn is_over(&self) -> bool {
        self.items.is_empty() && self.running == 0 && self.done.is_none()
    }

    fn tell_done(&mut self) -> Option<AgentEvent> {
        self.told_by = None;
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
