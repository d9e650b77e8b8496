//! A client that repeats one action until it is killed.

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{env, thread};

use farpool_testkit::processes::TAG;
use farpool_testkit::random::Random;

use crate::client::{self, ADDRESS, FOLDER, ROLE};
use crate::job_records::{JobRecords, Mark};
use crate::work::work;

/// The role of a visitor whose pool runs only long items.
const WORKING: &str = "visitor";
/// The role of a visitor that detaches jobs.
const DETACHING: &str = "detaching visitor";
const NUMBER: &str = "FARPOOL_CHAOS_VISITOR";

/// Returns the command of the visitor with this number; the test's files are in the folder.
pub(crate) fn command(number: u64, address: &str, tag: &str, folder: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("cannot find this program's path"));
    let role = if number.is_multiple_of(3) { WORKING } else { DETACHING };
    command.env(ROLE, role).env(ADDRESS, address).env(TAG, tag).env(FOLDER, folder);
    command.env(NUMBER, number.to_string());
    command
}

/// Runs the visitor.
pub(crate) fn main() {
    let role = env::var(ROLE).unwrap_or_default();
    let Ok(pool) = client::pool(None) else { return };
    if role == WORKING {
        let _ = pool.map(|seconds: u64| thread::sleep(Duration::from_secs(seconds)), vec![60; 50]);
        return;
    }
    let number: u64 = env::var(NUMBER).ok().and_then(|number| number.parse().ok()).unwrap_or_default();
    let (job_records, mut random) = (JobRecords::of(Path::new(&client::folder())), Random::new(number));
    for job in 0.. {
        let job_spec = job_records.create(&mut random, format!("visitor-{number}-{job}"));
        let mut pauses = random.fork();
        // Slow enough that it is usually killed in the middle.
        let items = job_spec.tasks().inspect(|_| thread::sleep(pauses.millis(0..40)));
        let detached = pool.job(work).retries(job_spec.retries).detach(&job_spec.name).map(items);
        if detached.is_ok() {
            job_records.mark(&job_spec.name, Mark::Detached);
        }
    }
}
