//! The items' behaviour: what each does when it runs, how often it ran, and which of its outcomes are right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use farpool_proto::v1::FailureKind;
use farpool_testkit::random::{Random, mix};

use crate::trace;

/// How many low bits of a mark are the item's index. The bits above are its job.
const INDEX_BITS: u32 = 20;

#[derive(Clone)]
pub(crate) struct Plan {
    seed: u64,
    /// Whether items of some jobs count as failed.
    has_failing: bool,
    state: Arc<Mutex<PlanState>>,
}

#[derive(Default)]
struct PlanState {
    jobs: Vec<JobPlan>,
    /// For each item that started: how often, and how often its worker died.
    runs: BTreeMap<u64, (u32, u32)>,
    /// Jobs that must not run yet.
    held: BTreeSet<u64>,
    /// Agents or clients may have been declared lost.
    losses: bool,
}

/// The properties of all items of a job.
#[derive(Clone, Debug, Default)]
pub(crate) struct JobPlan {
    pub(crate) retries: u32,
    pub(crate) retry_panics: bool,
    pub(crate) retry_failed: bool,
    /// About how long items run, in us.
    pub(crate) duration_us: u64,
    /// One item in this many at first kills its worker, or panics; 0: none.
    pub(crate) deadly: u64,
    pub(crate) panicking: u64,
    /// One in this many at first has a result that counts as failed; 0: none.
    pub(crate) failing: u64,
    /// Its client has stopped retries.
    pub(crate) retries_stopped: bool,
    /// All items take equally long.
    pub(crate) steady: bool,
}

/// An item's outcome: its result, or how its last attempt failed; and how many attempts it took.
pub(crate) type Outcome = Result<(Bytes, u32), (FailureKind, u32)>;

/// How a run of an item ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Done,
    Dies,
    Panics,
    /// It has a result that counts as failed.
    Fails,
}

/// Items count as failed in histories whose seed, modulo `OF_SEEDS`, is one of these. No seed in `found` is, so those
/// histories stay as they were.
const FAILING: [u64; 2] = [4, 9];
const OF_SEEDS: u64 = 11;

impl Plan {
    /// The plan of the history with this seed.
    pub(crate) fn new(seed: u64, history: u64) -> Self {
        Self { seed, has_failing: FAILING.contains(&(history % OF_SEEDS)), state: Arc::default() }
    }

    /// Returns whether items of some jobs count as failed.
    pub(crate) fn has_failing(&self) -> bool {
        self.has_failing
    }

    /// From now on, a panic or a failed result may be the outcome.
    pub(crate) fn stop_retries(&self, job: u64) {
        self.state().jobs[job as usize].retries_stopped = true;
    }

    fn state(&self) -> MutexGuard<'_, PlanState> {
        self.state.lock().expect("a thread panicked while it held the lock")
    }

    /// Adds a job. Returns the tag of its items.
    pub(crate) fn add_job(&self, job: JobPlan) -> u64 {
        let mut state = self.state();
        state.jobs.push(job);
        state.jobs.len() as u64 - 1
    }

    /// Forbids a job's items to run, until [`allow`](Self::allow).
    pub(crate) fn hold(&self, job: u64) {
        self.state().held.insert(job);
    }

    pub(crate) fn allow(&self, job: u64) {
        self.state().held.remove(&job);
    }

    /// From now on agents and their runs may be lost.
    pub(crate) fn expect_losses(&self) {
        self.state().losses = true;
    }

    /// Starts an item. Returns how long it runs, and how that ends.
    pub(crate) fn begin(&self, item: &[u8]) -> (Duration, Fate) {
        let Some(mark) = read(item) else {
            trace::violation(format_args!("an item of {} bytes", item.len()));
            return (Duration::ZERO, Fate::Done);
        };
        let mut state = self.state();
        let Some(job) = state.jobs.get((mark >> INDEX_BITS) as usize).cloned() else {
            trace::violation(format_args!("an item of no job: {mark:x}"));
            return (Duration::ZERO, Fate::Done);
        };
        if state.held.contains(&(mark >> INDEX_BITS)) {
            trace::violation(format_args!("item {} runs before its job is complete", name(mark)));
        }
        let (runs, deaths) = state.runs.entry(mark).or_default();
        *runs += 1;
        if job.retries == 0 && *runs > 1 {
            trace::violation(format_args!("item {} runs again and must not", name(mark)));
        }
        let mut random = Random::new(self.seed ^ mix(mark));
        let fate = match (job.deadly, job.panicking) {
            // Some do it each time, others once or twice.
            (deadly @ 1.., _) if random.one_in(deadly) && *runs as u64 <= random.pick(&[1, 1, 2, 100]) => Fate::Dies,
            (_, panicking @ 1..) if random.one_in(panicking) && *runs as u64 <= random.pick(&[1, 2, 100]) => {
                Fate::Panics
            }
            _ if job.failing > 0 && random.one_in(job.failing) && *runs as u64 <= random.pick(&[1, 2, 3, 100]) => {
                Fate::Fails
            }
            _ => Fate::Done,
        };
        if fate == Fate::Dies {
            *deaths += 1;
        }
        let slow = if random.one_in(200) && !job.steady { 50 } else { 1 };
        let us = match job.steady {
            true => job.duration_us,
            false => random.within(job.duration_us / 2..job.duration_us * 3 / 2 + 1) * slow,
        };
        let (runs, fate_now) = (*runs, fate);
        drop(state);
        trace::note(mark ^ u64::from(runs), || {
            format!("item {} begins, run {runs}: {us} us, {fate_now:?}", name(mark))
        });
        (Duration::from_micros(us), fate)
    }

    /// Notes that the worker of a running item dies.
    pub(crate) fn dies(&self, item: &[u8]) {
        let Some(mark) = read(item) else { return };
        if let Some((_, deaths)) = self.state().runs.get_mut(&mark) {
            *deaths += 1;
        }
    }

    /// Checks an outcome that has reached its client.
    pub(crate) fn check(&self, mark: u64, outcome: &Outcome) {
        let state = self.state();
        let Some(job) = state.jobs.get((mark >> INDEX_BITS) as usize) else { return };
        let (runs, deaths) = state.runs.get(&mark).copied().unwrap_or_default();
        let none_left = |retry: bool, attempts: u32| !retry || job.retries_stopped || attempts > job.retries;
        let explained = match outcome {
            Ok((_, attempts)) if !(1..=job.retries + 1).contains(attempts) => false,
            Ok((result, attempts)) if is_failed(result) => {
                job.failing > 0
                    && runs > 0
                    && *result == failed_of(&encode(mark))
                    && none_left(job.retry_failed, *attempts)
            }
            Ok((result, _)) => runs > 0 && *result == result_of(&encode(mark)),
            Err((FailureKind::WorkerDied, attempts)) => deaths > 0 && *attempts > job.retries,
            Err((FailureKind::Panicked, attempts)) => {
                job.panicking > 0 && runs > 0 && none_left(job.retry_panics, *attempts)
            }
            Err((FailureKind::AgentLost, attempts)) => state.losses && *attempts > job.retries,
            Err(_) => false,
        };
        if !explained {
            trace::violation(format_args!(
                "item {} of {job:?}, which ran {runs} times and killed {deaths} workers, has the outcome {outcome:?}",
                name(mark)
            ));
        }
    }
}

/// Returns the mark of an item.
pub(crate) fn mark(job: u64, index: u64) -> u64 {
    job << INDEX_BITS | index
}

/// Encodes the item of a mark.
pub(crate) fn encode(mark: u64) -> Vec<u8> {
    let mut item = mark.to_le_bytes().to_vec();
    // Some are larger.
    item.resize(8 + (mix(mark) % 24) as usize, 7);
    item
}

/// Returns the result of an item, which may be empty.
pub(crate) fn result_of(item: &[u8]) -> Bytes {
    let digest = trace::of_bytes(item);
    Bytes::copy_from_slice(&mix(digest).to_le_bytes()[..(digest % 9) as usize])
}

/// Returns the item's result if it counts as failed. Only such results are 16 bytes long.
pub(crate) fn failed_of(item: &[u8]) -> Bytes {
    let digest = mix(trace::of_bytes(item));
    [digest.to_le_bytes(), (!digest).to_le_bytes()].concat().into()
}

pub(crate) fn is_failed(result: &[u8]) -> bool {
    result.len() == 16
}

fn read(item: &[u8]) -> Option<u64> {
    let mark = u64::from_le_bytes(item.get(..8)?.try_into().ok()?);
    (encode(mark) == item).then_some(mark)
}

pub(crate) fn name(mark: u64) -> String {
    format!("{}/{}", mark >> INDEX_BITS, mark & ((1 << INDEX_BITS) - 1))
}
