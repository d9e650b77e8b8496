//! Clients: the real session of a pool, and programs that have jobs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use farpool_proto::v1::{FailureKind, OpenJob, OpenPool, Program, WorkerSettings};
use farpool_session::caller_driven;
use farpool_session::{Error, ErrorKind, Job, Outcome, Session};
use farpool_testkit::random::Random;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::connector::{ClientConnector, ClientFront};
use crate::coordinator::{self, Address};
use crate::network::{Host, Network};
use crate::plan::{JobPlan, Plan, encode, mark};
use crate::process::Process;
use crate::trace;

/// Longer than any history.
pub(crate) const RECONNECT_TIMEOUT: Duration = Duration::from_secs(3600);

pub(crate) struct Client {
    pub(crate) host: Host,
    process: Process,
    over: Arc<AtomicBool>,
}

impl Client {
    pub(crate) fn start(
        host: Host,
        network: &Network,
        address: &Address,
        plan: &Plan,
        faults: bool,
        random: &mut Random,
    ) -> Self {
        let connector = ClientConnector { host, network: network.clone(), address: address.clone() };
        let (plan, random) = (plan.clone(), random.fork());
        Self::run(host, Script { host, connector, plan, faults, random }.run())
    }

    /// Starts a client that runs this script.
    pub(crate) fn run(host: Host, script: impl Future<Output = ()> + Send + 'static) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let own = over.clone();
        let process = Process::start(async move {
            script.await;
            own.store(true, Ordering::Relaxed);
        });
        Self { host, process, over }
    }

    pub(crate) async fn kill(self, network: &Network) {
        trace::log(format_args!("the client of host {} is killed", self.host));
        network.cut(|host| host == self.host);
        self.process.kill().await;
    }

    pub(crate) fn stop(&self, stop: bool) {
        self.process.stop(stop);
    }

    /// Returns whether its script has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Returns whether it has panicked.
    pub(crate) fn has_crashed(&self) -> bool {
        self.process.is_over() && !self.is_done()
    }
}

/// Runs three items of a second for each slot, without faults. Returns whether all succeeded.
pub(crate) async fn fill(
    host: Host,
    network: &Network,
    address: &Address,
    plan: &Plan,
    slots: u64,
    random: &mut Random,
) -> bool {
    let connector = ClientConnector { host, network: network.clone(), address: address.clone() };
    let (client, _, opened, conversation) =
        caller_driven::open(connector, open_pool(0, random), RECONNECT_TIMEOUT, Arc::new(ClientFront(host)));
    let conversation = tokio::spawn(conversation);
    if opened.await.is_err() {
        return false;
    }
    let duration_us = 1_000_000;
    let tag = plan.add_job(JobPlan { duration_us, steady: true, ..JobPlan::default() });
    let mut jobs = Vec::new();
    // One job for each item, since a window may be small.
    for number in 0..3 * slots {
        let open = OpenJob { function: Bytes::from_static(b"f"), chunksize: 1, ..OpenJob::default() };
        let mut job = client.job(open).expect("the pool is closed");
        job.send(&[encode(mark(tag, number))]).expect("the pool is closed");
        job.end_input().expect("the pool is closed");
        jobs.push(job);
    }
    let mut done = 0;
    for job in &mut jobs {
        while let Some(outcomes) = job.next().await {
            done += outcomes.iter().filter(|outcome| outcome.result.is_ok()).count() as u64;
        }
    }
    client.close(false);
    matches!(conversation.await, Ok(Ok(()))) && done == 3 * slots
}

pub(crate) fn open_pool(processes: u32, random: &mut Random) -> OpenPool {
    OpenPool {
        processes,
        settings: Some(WorkerSettings { payload_limit: 1 << 20, ..WorkerSettings::default() }),
        version: Some(farpool_proto::version()),
        program: Program { digest: vec![7; 32].into(), size: 1, ..Program::default() }.packed(),
        secret: coordinator::secret(random),
        ..OpenPool::default()
    }
}

/// What a client's process does.
struct Script {
    host: Host,
    connector: ClientConnector,
    plan: Plan,
    faults: bool,
    random: Random,
}

impl Script {
    async fn run(mut self) {
        sleep(self.random.millis(0..2000)).await;
        for _ in 0..self.random.within(1..3) {
            while !self.pool().await {
                sleep(Duration::from_secs(1)).await;
            }
        }
    }

    /// Runs one pool, from its opening to its end. Returns false if there was no coordinator.
    async fn pool(&mut self) -> bool {
        let (host, random) = (self.host, &mut self.random);
        let processes = random.pick(&[0, 0, 1, 3]);
        let open = open_pool(processes, random);
        let (client, handle, opened, conversation) =
            caller_driven::open(self.connector.clone(), open, RECONNECT_TIMEOUT, Arc::new(ClientFront(host)));
        let mut tasks = JoinSet::new();
        let (sender, mut receiver) = tokio::sync::oneshot::channel();
        tasks.spawn(async move { drop(sender.send(conversation.await)) });
        if let Err(error) = opened.await {
            trace::log(format_args!("client {host} has no pool: {error}"));
            return false;
        }
        trace::log(format_args!("client {host} has a pool"));
        let mut jobs = JoinSet::new();
        for number in 0..self.random.within(1..4) {
            sleep(self.random.pick(&[0, 0, 1, 500]).max(1) * Duration::from_millis(1)).await;
            let job = JobRun::new(host, number, &client, &self.plan, self.faults, self.random.fork());
            jobs.spawn(job.run());
        }
        let ending = self.random.below(8);
        match ending {
            // Terminated while jobs run.
            0 => {
                sleep(self.random.millis(0..3000)).await;
                client.close(true);
                jobs.abort_all();
            }
            // Closed before the jobs have ended.
            1 | 2 => client.close(false),
            // Dropped with its jobs.
            3 => {
                sleep(self.random.millis(0..3000)).await;
                handle.abandon();
                jobs.abort_all();
            }
            _ => {}
        }
        while let Some(ended) = jobs.join_next().await {
            if ![0, 3].contains(&ending) && ended.is_err() {
                trace::violation(format_args!("a job of client {host} has crashed: {ended:?}"));
            }
        }
        client.close(false);
        match (&mut receiver).await {
            Ok(Ok(())) if ending != 3 && handle.kept() != (0, 0) => {
                trace::violation(format_args!("client {host} still keeps {:?} in the end", handle.kept()));
            }
            Ok(Ok(())) => trace::log(format_args!("the pool of client {host} is closed")),
            Ok(Err(error)) => trace::violation(format_args!("the pool of client {host} has failed: {error}")),
            Err(_) => trace::violation(format_args!("the session of client {host} has crashed")),
        }
        true
    }
}

/// Draws a job: what its items do, how many there are, and how it is opened. `fails`: items may count as failed.
pub(crate) fn draw_job(number: u64, faults: bool, fails: bool, random: &mut Random) -> (JobPlan, u64, OpenJob) {
    let retries = random.pick(&[0, 1, 2, 3]);
    let mut job = JobPlan {
        retries,
        retry_panics: retries > 0 && random.one_in(3),
        duration_us: random.pick(&[100, 1000, 20_000, 200_000]),
        deadly: if faults { random.pick(&[0, 0, 5, 50]) } else { 0 },
        panicking: random.pick(&[0, 0, 20]),
        ..JobPlan::default()
    };
    if fails {
        job.failing = random.pick(&[0, 2, 5, 20]);
        // With no retries this has no effect.
        job.retry_failed = random.below(4) > 0;
    }
    let items = match job.duration_us {
        200_000 => random.within(0..30),
        _ => random.pick(&[1, 10, 60, 200]) + random.below(10),
    };
    let open = OpenJob {
        job: number,
        function: Bytes::from_static(b"f"),
        chunksize: random.pick(&[0, 0, 1, 3, 20]),
        retries,
        retry_panics: job.retry_panics,
        retry_failed: job.retry_failed,
        priority: random.pick(&[0, 0, 1]),
        speculate: retries > 0 && random.one_in(2),
        ..OpenJob::default()
    };
    (job, items, open)
}

/// A job and the task that waits for it.
struct JobRun {
    name: String,
    job: Job,
    plan: Plan,
    tag: u64,
    items: u64,
    /// The most items that are sent at once.
    batch: u64,
    cancel_at: Option<u64>,
    /// After how many outcomes the client stops retries.
    stop_at: Option<u64>,
    /// How many items could not be sent.
    refused: u64,
    random: Random,
}

impl JobRun {
    fn new(host: Host, number: u64, client: &Session, plan: &Plan, faults: bool, mut random: Random) -> Self {
        let (job, items, open) = draw_job(number, faults, plan.has_failing(), &mut random);
        let name = format!("{host}.{number}");
        trace::log(format_args!("job {name} of {items} items: {job:?} {open:?}"));
        let tag = plan.add_job(job);
        let job = client.job(open).expect("the pool is closed");
        let batch = random.pick(&[1, 5, 100]);
        let cancel_at = random.one_in(10).then(|| random.below(items + 1));
        let stop_at = (plan.has_failing() && random.one_in(6)).then(|| random.below(items + 1));
        Self { name, job, plan: plan.clone(), tag, items, batch, cancel_at, stop_at, refused: 0, random }
    }

    async fn run(mut self) {
        let mut sent = 0;
        let (mut ended, mut cancelled) = (false, false);
        let (mut seen, mut refused) = (BTreeSet::new(), BTreeSet::new());
        loop {
            while !ended && self.job.has_room() {
                // Some items cannot be encoded: they leave a gap.
                if sent < self.items && self.random.one_in(30) {
                    self.job.refuse(Error::new(ErrorKind::Codec, "it cannot be encoded"));
                    refused.insert(sent);
                    self.refused += 1;
                    sent += 1;
                }
                let count = self.random.within(1..self.batch + 1).min(self.items - sent);
                let items: Vec<Bytes> = (sent..sent + count).map(|at| encode(mark(self.tag, at)).into()).collect();
                if count > 0 {
                    self.job.send(&items).expect("the session refused a message");
                }
                sent += count;
                if sent == self.items {
                    self.job.end_input().expect("the session refused a message");
                    ended = true;
                }
                if self.random.one_in(20) {
                    sleep(self.random.millis(1..300)).await;
                }
            }
            if !cancelled && self.cancel_at.is_some_and(|at| seen.len() as u64 >= at) {
                trace::log(format_args!("job {} is cancelled", self.name));
                self.job.cancel();
                cancelled = true;
            }
            if self.stop_at.take_if(|at| seen.len() as u64 >= *at).is_some() {
                trace::log(format_args!("job {} stops retries", self.name));
                self.plan.stop_retries(self.tag);
                self.job.stop_retries();
            }
            match self.job.next().await {
                None => break,
                Some(outcomes) => {
                    let outcomes = outcomes.into_iter().filter(|outcome| !refused.remove(&outcome.item));
                    outcomes.for_each(|outcome| self.take(outcome, sent, &mut seen));
                }
            }
            // Some clients are slow.
            if self.random.one_in(200) {
                sleep(self.random.millis(1..3000)).await;
            }
        }
        match self.job.error() {
            None if seen.len() as u64 != self.items - self.refused && !cancelled => trace::violation(format_args!(
                "job {} has ended with outcomes of {} of its {} items",
                self.name,
                seen.len(),
                self.items
            )),
            None => trace::log(format_args!("job {} has ended", self.name)),
            Some(error) if error.kind() == ErrorKind::Cancelled && cancelled => {
                trace::log(format_args!("job {} has ended, cancelled", self.name));
            }
            Some(error) => trace::violation(format_args!("job {} has failed: {error}", self.name)),
        }
    }

    fn take(&self, Outcome { item, result, attempts }: Outcome, sent: u64, seen: &mut BTreeSet<u64>) {
        if item >= sent || !seen.insert(item) {
            trace::violation(format_args!(
                "item {item} of job {} has an outcome again, or before it was sent",
                self.name
            ));
        }
        let outcome = result.map(|result| (result, attempts)).map_err(|error| failure_of(&error));
        self.plan.check(mark(self.tag, item), &outcome);
    }
}

/// Returns how an item has failed, and at which attempt.
pub(crate) fn failure_of(error: &farpool_session::Error) -> (FailureKind, u32) {
    let kind = match error.kind() {
        ErrorKind::WorkerDied => FailureKind::WorkerDied,
        ErrorKind::Panicked => FailureKind::Panicked,
        ErrorKind::AgentLost => FailureKind::AgentLost,
        _ => FailureKind::Unspecified,
    };
    (kind, error.attempts())
}
