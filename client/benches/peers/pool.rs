//! farpool's side.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use farpool::{ErrorKind, Pool};
use farpool_testkit::machine::monotonic_ns;

use crate::cluster::Cluster;
use crate::side::{Measures, START_VARIABLE, Values};
use crate::tasks::{self, MIB, POISON, factorial, identity, length, make_mib, nap, poison};

pub(crate) struct Side {
    workload: String,
    /// `None` if opening it is part of the run.
    pool: Option<Pool>,
    /// `None`: local mode. Outlives the pool.
    cluster: Option<Cluster>,
}

impl Side {
    pub(crate) fn local(workload: &str) -> Side {
        Side { workload: workload.to_owned(), cluster: None, pool: None }
    }

    pub(crate) fn on_a_cluster(workload: &str) -> Side {
        let cluster = if is_one_call_at_a_time(workload) { Cluster::start(1, 1) } else { Cluster::start(2, 4) };
        Side { workload: workload.to_owned(), cluster: Some(cluster), pool: None }
    }

    fn open(&self, processes: usize) -> Pool {
        let builder = Pool::builder().processes(processes);
        let builder = match &self.cluster {
            None => builder.local(),
            Some(cluster) => builder.address(cluster.address()),
        };
        builder.build().expect("cannot open a pool")
    }

    fn pool(&self) -> &Pool {
        self.pool.as_ref().expect("this workload was prepared")
    }
}

impl Measures for Side {
    fn prepare(&mut self) {
        match self.workload.as_str() {
            // On a cluster, the first run would include sending the program to the agents.
            "W4" => drop(self.run()),
            "W6" | "W6s" => {
                let pool = self.open(8);
                let pool = self.pool.insert(pool);
                // Until all eight workers have started.
                for _ in 0..2 {
                    pool.job(nap).chunksize(1).map(vec![0.05; 32]).expect("a nap failed");
                }
            }
            workload => {
                let warm = matches!(workload, "W7" | "W9");
                let pool = self.open(if is_one_call_at_a_time(workload) && self.cluster.is_some() { 1 } else { 2 });
                let pool = self.pool.insert(pool);
                assert_eq!(sum_one_by_one(pool, if warm { 20 } else { 200 }), if warm { 190 } else { 19_900 });
            }
        }
        match self.workload.as_str() {
            "W3" | "W3awake" => drop(latencies(self.pool(), 50)),
            // The first run would include faulting in new memory.
            "W5a" | "W5r" => drop(self.run()),
            _ => {}
        }
    }

    fn run(&mut self) -> Values {
        match self.workload.as_str() {
            "W1" => vec![one_by_one(self.pool())],
            "W2" => vec![all_at_once(self.pool(), None)],
            "W2c" => vec![all_at_once(self.pool(), Some(125_000))],
            "W3" | "W3awake" => {
                let microseconds = latencies(self.pool(), 2000);
                let (p50, p99) = (microseconds[1000], microseconds[1980]);
                vec![p50, p99, p50, p99 / p50]
            }
            "W4" => start_to_finish(|| self.open(4)),
            "W5a" => vec![mebibytes_in(self.pool())],
            "W5r" => vec![mebibytes_out(self.pool())],
            "W6" => vec![naps(self.pool(), false)],
            "W6s" => vec![naps(self.pool(), true)],
            "W7" => killed(self.pool()),
            "W8" => {
                let pool = self.open(2);
                let pool = self.pool.insert(pool);
                assert_eq!(pool.apply(identity, (1,)).expect("the item failed"), 1);
                let started: u64 = std::env::var(START_VARIABLE).ok().and_then(|ns| ns.parse().ok()).unwrap_or(0);
                let took = (monotonic_ns() - started) as f64 / 1e6;
                pool.job(nap).chunksize(1).map([0.02; 8]).expect("a nap failed");
                vec![took]
            }
            "W9" => pulled(self.pool()),
            "W10" => submitted(self.pool()),
            unknown => panic!("there is no workload {unknown}"),
        }
    }
}

fn is_one_call_at_a_time(workload: &str) -> bool {
    workload.starts_with("W3")
}

fn sum_one_by_one(pool: &Pool, items: u64) -> u64 {
    let outcomes = pool.job(identity).chunksize(1).imap_unordered((0..items).collect::<Vec<u64>>());
    outcomes.map(|outcome| outcome.expect("an item failed")).sum()
}

fn one_by_one(pool: &Pool) -> f64 {
    const ITEMS: u64 = 20_000;
    let start = Instant::now();
    assert_eq!(sum_one_by_one(pool, ITEMS), ITEMS * (ITEMS - 1) / 2);
    ITEMS as f64 / start.elapsed().as_secs_f64()
}

fn all_at_once(pool: &Pool, chunksize: Option<u64>) -> f64 {
    const ITEMS: u64 = 1_000_000;
    let items: Vec<u64> = (0..ITEMS).collect();
    let start = Instant::now();
    let job = pool.job(identity);
    let job = match chunksize {
        Some(items) => job.chunksize(items),
        None => job,
    };
    let results = job.map(items).expect("an item failed");
    let took = start.elapsed();
    assert_eq!((results.len(), results[999_999]), (1_000_000, 999_999));
    ITEMS as f64 / took.as_secs_f64()
}

/// Submits all calls without waiting, then gets all results.
fn submitted(pool: &Pool) -> Vec<f64> {
    const CALLS: u64 = 100_000;
    let start = Instant::now();
    let results: Vec<_> = (0..CALLS).map(|number| pool.apply_async(identity, (number,))).collect();
    let submitted = start.elapsed();
    let sum: u64 = results.into_iter().map(|result| result.get().expect("an item failed")).sum();
    let all = start.elapsed();
    assert_eq!(sum, CALLS * (CALLS - 1) / 2);
    vec![submitted.as_secs_f64() * 1e6 / CALLS as f64, all.as_secs_f64() * 1e6 / CALLS as f64]
}

/// Returns the latencies in sorted microseconds.
fn latencies(pool: &Pool, calls: usize) -> Vec<f64> {
    let one = || {
        let start = Instant::now();
        pool.apply(identity, (1,)).expect("the item failed");
        start.elapsed().as_secs_f64() * 1e6
    };
    let mut latencies: Vec<f64> = (0..calls).map(|_| one()).collect();
    latencies.sort_by(f64::total_cmp);
    latencies
}

fn start_to_finish(open: impl Fn() -> Pool) -> Values {
    let milliseconds = |since: Instant| since.elapsed().as_secs_f64() * 1e3;
    let start = Instant::now();
    let pool = open();
    let results = pool.map(factorial, 1..=100).expect("an item failed");
    let to_results = milliseconds(start);
    let mut warm: Vec<f64> = (0..5)
        .map(|_| {
            let start = Instant::now();
            pool.map(factorial, 1..=100).expect("an item failed");
            milliseconds(start)
        })
        .collect();
    let end = Instant::now();
    pool.close();
    pool.join().expect("closing the pool failed");
    let to_end = milliseconds(end);
    assert_eq!((results.len(), &results[99]), (100, &factorial(100)));
    warm.sort_by(f64::total_cmp);
    vec![to_results + to_end, to_results, warm[2]]
}

fn mebibytes_in(pool: &Pool) -> f64 {
    let mut word = 1_u64;
    let mut noise = || {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        word.to_le_bytes()
    };
    let items: Vec<Vec<u8>> = (0..200).map(|_| (0..MIB / 8).flat_map(|_| noise()).collect()).collect();
    let start = Instant::now();
    let outcomes = pool.job(length).chunksize(1).imap_unordered(items);
    let good = outcomes.filter(|outcome| matches!(outcome, Ok(MIB))).count();
    finish_transfer(start, good)
}

fn mebibytes_out(pool: &Pool) -> f64 {
    let start = Instant::now();
    let outcomes = pool.job(make_mib).chunksize(1).imap_unordered(0..200);
    let good = outcomes.filter(|outcome| outcome.as_ref().is_ok_and(|bytes| bytes.len() == MIB)).count();
    finish_transfer(start, good)
}

fn finish_transfer(start: Instant, good: usize) -> f64 {
    let rate = 200.0 / start.elapsed().as_secs_f64();
    assert_eq!(good, 200);
    std::thread::sleep(Duration::from_millis(300));
    rate
}

fn naps(pool: &Pool, ascending: bool) -> f64 {
    let sleeps = tasks::sleeps(ascending);
    let start = Instant::now();
    let results = pool.map(nap, sleeps).expect("a nap failed");
    assert_eq!(results.len(), 400);
    start.elapsed().as_secs_f64() * 1e3
}

/// Returns the milliseconds from the first kill to the error at the caller, including the retries, and how many other items ran
/// more than once.
fn killed(pool: &Pool) -> Values {
    let log = std::env::temp_dir().join(format!("farpool-bench-{}", std::process::id()));
    let name = log.to_string_lossy().into_owned();
    let (mut good, mut known_at) = (0, 0);
    let job = pool.job(|(item, log): (u32, String)| poison(item, log));
    for outcome in job.imap_unordered((0..100).map(|item| (item, name.clone()))) {
        match outcome {
            Ok(_) => good += 1,
            Err(error) => {
                assert_eq!((error.kind(), error.item()), (ErrorKind::WorkerDied, Some(u64::from(POISON))), "{error}");
                known_at = monotonic_ns();
            }
        }
    }
    assert_eq!(good, 99);
    assert_eq!(pool.apply(identity, (7,)).expect("the pool failed"), 7);
    let text = std::fs::read_to_string(&log).expect("the items have not written it");
    let _ = std::fs::remove_file(&log);
    let runs = text.lines().filter_map(|line| line.split_once(' ')?.0.parse::<u32>().ok());
    let mut times: HashMap<u32, usize> = HashMap::new();
    runs.for_each(|item| *times.entry(item).or_default() += 1);
    let twice = times.iter().filter(|(item, runs)| **item != POISON && **runs > 1).count();
    let poison = format!("{POISON} ");
    let killed_at = text.lines().find_map(|line| line.strip_prefix(&poison)?.parse::<u64>().ok()).unwrap_or(0);
    vec![(known_at - killed_at) as f64 / 1e6, twice as f64]
}

fn pulled(pool: &Pool) -> Values {
    let count = std::cell::Cell::new(0_u64);
    let endless = (0..1_000_000_u64).inspect(|_| count.set(count.get() + 1));
    let mut outcomes = pool.imap(identity, endless);
    for expected in 0..10 {
        assert_eq!(outcomes.next().map(|outcome| outcome.expect("an item failed")), Some(expected));
    }
    let after_ten = count.get();
    std::thread::sleep(Duration::from_secs(1));
    vec![after_ten as f64, count.get() as f64]
}
