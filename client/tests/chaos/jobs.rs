//! The kinds of jobs that clients run, and how their outcomes are checked: each item has exactly one, and it is right.

mod detached;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use farpool::{Error, Pool};
use farpool_testkit::random::Random;

use crate::client::{self, ThreadActivity};
use crate::job_records::JobRecords;
use crate::work::{Answer, Behavior, Fate, Task, item_of, judge, work};

/// More than the faults that one item can meet.
const MANY_RETRIES: u32 = 100;

/// How often each thing has happened.
pub(crate) type Counts = BTreeMap<&'static str, u64>;

/// Adds the counts of several threads, as JSON.
pub(crate) fn sum(counts: Vec<Counts>) -> String {
    let mut all = Counts::new();
    for (what, count) in counts.into_iter().flatten() {
        *all.entry(what).or_default() += count;
    }
    serde_json::to_string(&all).expect("cannot write numbers")
}

/// One thread of a client.
pub(crate) struct ClientThread<'p> {
    pool: &'p Pool,
    random: Random,
    folder: &'p str,
    job_records: &'p JobRecords,
    thread: u64,
    jobs: u64,
    activity: ThreadActivity,
    pub(crate) counts: Counts,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Map,
    Unordered,
    Calls,
    AtMostOnce,
    Speculating,
    Heavy,
    Poisoned,
    Dropped,
    SeparatePool,
}

const KINDS: [Kind; 9] = [
    Kind::Map,
    Kind::Unordered,
    Kind::Calls,
    Kind::AtMostOnce,
    Kind::Speculating,
    Kind::Heavy,
    Kind::Poisoned,
    Kind::Dropped,
    Kind::SeparatePool,
];

/// A running job, and its outcomes so far.
struct RunningJob {
    name: String,
    log: String,
    retries: u32,
    tasks: Vec<Task>,
    fates: BTreeMap<u64, Fate>,
}

impl<'p> ClientThread<'p> {
    pub(crate) fn new(
        (pool, job_records): (&'p Pool, &'p JobRecords),
        random: Random,
        folder: &'p str,
        thread: u64,
        activity: ThreadActivity,
    ) -> Self {
        Self { pool, random, folder, job_records, thread, jobs: 0, activity, counts: Counts::new() }
    }

    /// Runs one job to its end, or detaches one, or attaches to one.
    pub(crate) fn run_one_job(&mut self) -> Result<(), String> {
        let result = match self.random.below(12) {
            0 | 1 => self.detach_one(),
            2 | 3 => self.attach_one(),
            _ => self.run_one(),
        };
        self.activity.lock().expect("a thread panicked while it held the lock").remove(&self.thread);
        result
    }

    fn run_one(&mut self) -> Result<(), String> {
        let kind = self.random.pick(&KINDS);
        let mut running = self.prepare(kind);
        self.post_progress(&running, "begins");
        let result = match kind {
            Kind::Map => self.map(&mut running, false),
            Kind::Speculating => self.map(&mut running, true),
            Kind::Unordered | Kind::Poisoned => self.unordered(&mut running),
            Kind::Calls => self.calls(&mut running),
            Kind::AtMostOnce | Kind::Heavy => self.in_order(&mut running),
            Kind::Dropped => self.drop_early(&mut running),
            Kind::SeparatePool => self.separate_pool(&mut running),
        };
        let checked = result.and_then(|()| self.check(kind, &running));
        checked.map_err(|wrong| format!("{}: {wrong}", running.name))
    }

    fn prepare(&mut self, kind: Kind) -> RunningJob {
        self.jobs += 1;
        let retries = match kind {
            Kind::AtMostOnce => 0,
            Kind::Poisoned => self.random.below(3) as u32,
            _ => MANY_RETRIES,
        };
        let name = format!("job {} of thread {}, {kind:?}, retries {retries}", self.jobs, self.thread);
        let once = if retries == 0 { "once" } else { "runs" };
        let log = format!("{}/{once}-{}-{}", self.folder, self.thread, self.jobs);
        fs::write(&log, "").expect("cannot write the test's folder");
        let count = match kind {
            Kind::Map => self.random.within(1..400),
            Kind::Heavy => self.random.within(1..30),
            _ => self.random.within(1..120),
        };
        let longest = self.random.pick(&[1, 5, 20]);
        let tasks = (0..count)
            .map(|item| {
                let behavior = match kind {
                    Kind::Unordered | Kind::AtMostOnce if self.random.one_in(10) => Behavior::Panics,
                    Kind::Poisoned if self.random.one_in(30) => Behavior::KillsItsWorker,
                    _ => Behavior::Returns,
                };
                let straggles = matches!(kind, Kind::Speculating) && self.random.one_in(40);
                let nap = if straggles { Duration::from_millis(700) } else { self.random.millis(0..longest) };
                let bytes = if matches!(kind, Kind::Heavy) { 300_000 } else { 20 };
                let ballast = vec![item as u8; self.random.below(bytes) as usize];
                Task { log: log.clone(), item, nap, behavior, ballast }
            })
            .collect();
        RunningJob { name, log, retries, tasks, fates: BTreeMap::new() }
    }

    fn post_progress(&self, running: &RunningJob, what: &str) {
        let missing = running.tasks.iter().filter(|task| !running.fates.contains_key(&task.item));
        let missing: Vec<u64> = missing.map(|task| task.item).take(5).collect();
        let (done, all) = (running.fates.len(), running.tasks.len());
        self.post(format!("{}: {what}, {done} of {all} outcomes, the first missing are {missing:?}", running.name));
    }

    /// Notes what this thread is doing, which is reported if it takes too long.
    fn post(&self, text: String) {
        let mut activity = self.activity.lock().expect("a thread panicked while it held the lock");
        let since = activity.get(&self.thread).map_or_else(Instant::now, |(since, _)| *since);
        activity.insert(self.thread, (since, text));
    }

    fn chunked<'j, F>(&mut self, job: farpool::Job<'j, F>) -> farpool::Job<'j, F> {
        if self.random.one_in(2) { job } else { job.chunksize(self.random.within(1..20)) }
    }

    fn map(&mut self, running: &mut RunningJob, speculate: bool) -> Result<(), String> {
        let job = self.pool.job(work).retries(running.retries).speculate(speculate);
        take_all(running, self.chunked(job).map(running.tasks.clone()))
    }

    fn unordered(&mut self, running: &mut RunningJob) -> Result<(), String> {
        let job = self.pool.job(work).retries(running.retries);
        let outcomes = self.chunked(job).imap_unordered(running.tasks.clone());
        for outcome in outcomes {
            take(running, item_of(&outcome), &outcome)?;
            self.post_progress(running, "continues");
        }
        Ok(())
    }

    fn in_order(&mut self, running: &mut RunningJob) -> Result<(), String> {
        let job = self.pool.job(work).retries(running.retries);
        let outcomes = self.chunked(job).imap(running.tasks.clone());
        for (item, outcome) in (0..).zip(outcomes) {
            take(running, Some(item), &outcome)?;
            self.post_progress(running, "continues");
        }
        Ok(())
    }

    fn calls(&mut self, running: &mut RunningJob) -> Result<(), String> {
        let job = || self.pool.job(work).retries(running.retries);
        let calls: Vec<_> = running.tasks.iter().map(|task| job().apply_async((task.clone(),))).collect();
        for (item, call) in (0..).zip(calls) {
            take(running, Some(item), &call.get())?;
            self.post_progress(running, "continues");
        }
        Ok(())
    }

    fn drop_early(&mut self, running: &mut RunningJob) -> Result<(), String> {
        let wanted = self.random.below(running.tasks.len() as u64) as usize;
        let job = self.pool.job(work).retries(running.retries);
        let outcomes = self.chunked(job).imap_unordered(running.tasks.clone());
        for outcome in outcomes.take(wanted) {
            take(running, item_of(&outcome), &outcome)?;
        }
        // The others may no longer have outcomes.
        running.tasks.retain(|task| running.fates.contains_key(&task.item));
        Ok(())
    }

    fn separate_pool(&mut self, running: &mut RunningJob) -> Result<(), String> {
        let pool = client::pool(Some(self.random.within(1..5) as usize))?;
        take_all(running, pool.job(work).retries(running.retries).map(running.tasks.clone()))?;
        if self.random.one_in(2) {
            self.post_progress(running, "closes");
            pool.close();
            pool.join().map_err(|error| format!("the pool does not end properly: {error}"))?;
        }
        self.post_progress(running, "drops");
        Ok(())
    }

    /// Checks that every item has an outcome, and that items with outcomes of their own have run.
    fn check(&mut self, kind: Kind, running: &RunningJob) -> Result<(), String> {
        let missing = running.tasks.iter().find(|task| !running.fates.contains_key(&task.item));
        if let Some(task) = missing {
            return Err(format!("item {} has no outcome", task.item));
        }
        let lines = fs::read_to_string(&running.log).expect("cannot read the log");
        let began: BTreeSet<u64> = lines.lines().filter_map(|line| line.parse().ok()).collect();
        for (item, fate) in &running.fates {
            if matches!(fate, Fate::Done | Fate::Panicked) && !began.contains(item) {
                return Err(format!("item {item} has an outcome but never ran"));
            }
            *self.counts.entry(fate.name()).or_default() += 1;
        }
        *self.counts.entry("jobs").or_default() += 1;
        *self.counts.entry("items").or_default() += running.fates.len() as u64;
        let runs = lines.lines().count().saturating_sub(running.fates.len());
        *self.counts.entry("runs again").or_default() += if matches!(kind, Kind::Dropped) { 0 } else { runs as u64 };
        if running.retries > 0 {
            let _ = fs::remove_file(&running.log);
        }
        Ok(())
    }
}

fn take(running: &mut RunningJob, item: Option<u64>, outcome: &Result<Answer, Error>) -> Result<(), String> {
    let task = item.and_then(|item| running.tasks.get(item as usize));
    let task = task.ok_or_else(|| format!("this belongs to no item: {outcome:?}"))?;
    let of_item = item_of(outcome);
    // A call's only item is its first.
    let is_call = outcome.is_err() && running.name.contains("Calls") && of_item == Some(0);
    if of_item != item && !is_call {
        return Err(format!("the outcome of item {item:?} belongs to {of_item:?}"));
    }
    let fate = judge(task, running.retries, outcome)?;
    match running.fates.insert(task.item, fate) {
        None => Ok(()),
        Some(_) => Err(format!("item {} has two outcomes", task.item)),
    }
}

fn take_all(running: &mut RunningJob, results: Result<Vec<Answer>, Error>) -> Result<(), String> {
    let results = results.map_err(|error| format!("not even {MANY_RETRIES} retries were enough: {error}"))?;
    let wanted = running.tasks.len();
    if results.len() != wanted {
        return Err(format!("{} results of {wanted} items", results.len()));
    }
    (0..).zip(results).try_for_each(|(item, result)| take(running, Some(item), &Ok(result)))
}
