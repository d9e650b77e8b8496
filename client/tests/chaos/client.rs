//! A client: a process of its own that runs jobs of all kinds on several threads until its input ends, and checks every
//! outcome. It ends with an error at the first wrong one.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use farpool::{ErrorKind, Pool};
use farpool_testkit::processes::TAG;
use farpool_testkit::random::Random;

use crate::job_records::JobRecords;
use crate::jobs::{self, ClientThread, Counts};
use crate::visitor;

/// Set in a client: its seed, or the kind of visitor that it is.
pub(crate) const ROLE: &str = "FARPOOL_CHAOS_CLIENT";
pub(crate) const FOLDER: &str = "FARPOOL_CHAOS_FOLDER";
pub(crate) const ADDRESS: &str = "FARPOOL_ADDRESS";

const THREADS: u64 = 3;
/// A job that takes longer hangs: without faults it would take two seconds at most.
const JOB_TIMEOUT: Duration = Duration::from_secs(120);
/// After the last fault, a job that takes longer hangs.
const END_TIMEOUT: Duration = Duration::from_secs(45);
/// Longer than any fault keeps the coordinator away.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Sets a client's environment.
pub(crate) fn settings(command: &mut Command, address: &str, seed: u64, folder: &str) {
    command.env(ROLE, seed.to_string()).env(ADDRESS, address).env(FOLDER, folder);
}

/// Returns the folder that the test has named.
pub(crate) fn folder() -> String {
    env::var(FOLDER).expect("the folder is not in the environment")
}

pub(crate) fn address() -> String {
    env::var(ADDRESS).expect("the coordinator is not in the environment")
}

/// Opens a pool whose workers have the tag; retries while the coordinator cannot be reached.
pub(crate) fn pool(processes: Option<usize>) -> Result<Pool, String> {
    let start = Instant::now();
    loop {
        let builder = Pool::builder().env(TAG, env::var(TAG).unwrap_or_default());
        match processes.into_iter().fold(builder, farpool::Builder::processes).build() {
            Ok(pool) => return Ok(pool),
            Err(error) if error.kind() == ErrorKind::Unavailable && start.elapsed() < OPEN_TIMEOUT => {
                thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(format!("no pool opens for {:.1?}: {error}", start.elapsed())),
        }
    }
}

/// What each thread is doing, and since when.
pub(crate) type ThreadActivity = Arc<Mutex<BTreeMap<u64, (Instant, String)>>>;

pub(crate) fn main() -> ExitCode {
    let Ok(seed) = env::var(ROLE).unwrap_or_default().parse() else {
        visitor::main();
        return ExitCode::SUCCESS;
    };
    let pool = match pool(None) {
        Ok(pool) => pool,
        Err(wrong) => {
            println!("{wrong}");
            return ExitCode::FAILURE;
        }
    };
    let folder = folder();
    let test = Path::new(&folder).parent().expect("the client's folder has no parent");
    let job_records = JobRecords::of(test);
    let (activity, stop) = (ThreadActivity::default(), Arc::new(AtomicBool::new(false)));
    watch(&activity, &stop);
    let mut random = Random::new(seed);
    let counts: Vec<Counts> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let client_thread =
                    ClientThread::new((&pool, &job_records), random.fork(), &folder, number, Arc::clone(&activity));
                let stop = Arc::clone(&stop);
                scope.spawn(move || run_jobs(client_thread, &stop))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread panicked")).collect()
    });
    pool.close();
    if let Err(error) = pool.join() {
        println!("the pool does not end as it should: {error}");
        return ExitCode::FAILURE;
    }
    fs::write(format!("{folder}/counts"), jobs::sum(counts)).expect("cannot write the test's folder");
    ExitCode::SUCCESS
}

fn run_jobs(mut client_thread: ClientThread<'_>, stop: &AtomicBool) -> Counts {
    while !stop.load(Ordering::Relaxed) {
        if let Err(wrong) = client_thread.run_one_job() {
            println!("{wrong}");
            std::process::exit(1);
        }
    }
    client_thread.counts
}

/// Watches for the end of the input, and for jobs that hang.
fn watch(activity: &ThreadActivity, stop: &Arc<AtomicBool>) {
    let stopping = Arc::clone(stop);
    thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        stopping.store(true, Ordering::Relaxed);
    });
    let (activity, stop) = (Arc::clone(activity), Arc::clone(stop));
    thread::spawn(move || {
        let mut stopped = None;
        loop {
            thread::sleep(Duration::from_millis(100));
            if stop.load(Ordering::Relaxed) {
                stopped.get_or_insert_with(Instant::now);
            }
            let late = stopped.is_some_and(|at: Instant| at.elapsed() > END_TIMEOUT);
            let activity = activity.lock().expect("a thread panicked while it held the lock");
            let hang: Vec<_> = activity.values().filter(|(since, _)| late || since.elapsed() > JOB_TIMEOUT).collect();
            if !hang.is_empty() {
                hang.iter().for_each(|(since, what)| println!("hangs for {:.1?}: {what}", since.elapsed()));
                std::process::exit(1);
            }
        }
    });
}
