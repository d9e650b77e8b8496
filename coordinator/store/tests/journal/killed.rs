//! A process that writes a journal is killed again and again: what it reported as durable exists.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use farpool_proto::v1::{OpenJob, OpenPool};
use farpool_store::log::{Journal, Settings};
use farpool_store::{Counts, Ended, Entry, JobStore, Outcomes, Phase};

use crate::scratch::Scratch;
use crate::{HEADER, outcomes};

const DIRECTORY: &str = "FARPOOL_TEST_JOURNAL";
const FIRST: &str = "FARPOOL_TEST_JOURNAL_FIRST";

/// Jobs that are kept; older ones are forgotten.
const KEPT: u64 = 50;

const ROUNDS: u64 = 40;

fn open(directory: &Path, warn: impl FnMut(String)) -> Journal {
    // Small, so that segments are emptied while it is killed.
    let mut settings = Settings::new(directory);
    settings.size = 4 << 20;
    Journal::open(settings, warn).expect("cannot open the journal")
}

fn payload(job: u64) -> (Bytes, Bytes) {
    let long = 1 + (job * 7919 % 3000) as u32;
    (vec![job as u8; 2 * long as usize].into(), [long, 2 * long].iter().flat_map(|end| end.to_le_bytes()).collect())
}

/// Not a test: the process that is killed.
#[test]
fn child() {
    let (Some(directory), Ok(first)) = (env::var_os(DIRECTORY), env::var(FIRST)) else { return };
    let first: u64 = first.parse().expect("the first job's name is not a number");
    let mut journal = open(directory.as_ref(), |_| ());
    // What was not durable may exist, entirely or in part.
    let unsure: Vec<_> = journal.jobs().filter(|job| job.name().parse::<u64>().unwrap() >= first).collect();
    let unsure: Vec<_> = unsure.iter().map(|job| job.number).collect();
    unsure.into_iter().for_each(|job| journal.forget(job).expect("cannot forget the job"));
    let mut waits = Vec::new();
    for number in first.. {
        let known = number.to_string().as_str().into();
        let job =
            journal.open(known, &OpenPool::default(), &OpenJob::default(), number).expect("the journal has no room");
        let (data, ends) = payload(number);
        let mut append = |entry| journal.append(job, entry).expect("the journal refused the entry");
        append(Entry::Items { first: 0, data: data.clone(), ends: ends.clone() });
        append(Entry::ItemsEnded { end: 2, now_ms: number });
        append(Entry::Done { first: 0, data, ends, failed: false, attempts: 0 });
        append(Entry::Ended { cancelled: false, failure: None, now_ms: number });
        if let Some(old) = journal.find("local", &number.wrapping_sub(KEPT).to_string()).map(|job| job.number) {
            journal.forget(old).expect("cannot forget the job");
        }
        waits.push((journal.flush(), number));
        if number % 5 == 0 {
            let durable = journal.sync().expect("cannot sync the journal").acknowledged;
            if let Some((_, number)) = waits.iter().rev().find(|(wait, _)| *wait <= durable) {
                println!("\ndurable {number}");
            }
            waits.retain(|(wait, _)| *wait > durable);
        }
    }
}

#[test]
fn records_reported_as_durable_survive_a_kill() {
    let scratch = Scratch::new("killed");
    let mut next = 1;
    for round in 0..ROUNDS {
        let durable = next_killed(scratch.path(), next, Duration::from_millis(5 + round * 7919 % 120));
        check(scratch.path(), durable);
        next = durable + 1;
    }
    assert!(next > ROUNDS, "something was written: {next}");
}

/// Starts a process that continues with this job, and kills it; returns the last job that it reported as durable.
fn next_killed(directory: &Path, first: u64, after: Duration) -> u64 {
    let mut child = Command::new(env::current_exe().expect("the program's path has no file name"))
        .args(["--exact", "killed::child", "--nocapture"])
        .envs([(DIRECTORY, directory.as_os_str()), (FIRST, first.to_string().as_ref())])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child did not start");
    let lines = BufReader::new(child.stdout.take().expect("the child has no stdout"));
    let reader = std::thread::spawn(move || {
        let lines = lines.lines().map_while(Result::ok);
        lines.filter_map(|line| line.strip_prefix("durable ")?.parse().ok()).last()
    });
    let start = Instant::now();
    while start.elapsed() < after {
        std::thread::sleep(after.saturating_sub(start.elapsed()));
    }
    child.kill().expect("cannot kill the child");
    let status = child.wait().expect("the child has not exited");
    assert_eq!(status.code(), None, "the child was killed: {status}");
    reader.join().expect("nobody reads the child's lines").unwrap_or(first - 1)
}

fn check(directory: &Path, durable: u64) {
    let mut warnings = Vec::new();
    let journal = open(directory, |warning| warnings.push(warning));
    // Fewer bytes than a header are not recognized as part of a record: they are kept, and reported at every start.
    let aside = journal.describe().aside;
    assert!(aside.iter().all(|aside| aside.bytes < HEADER as u64), "{aside:?}");
    assert!(warnings.len() <= 1 + usize::from(!aside.is_empty()), "{warnings:?}");
    for number in durable.saturating_sub(KEPT - 1).max(1)..=durable {
        let Some(job) = journal.find("local", &number.to_string()) else {
            // It was forgotten by a job that came after the last one known to be durable.
            assert!(
                number + KEPT <= durable + 5 + KEPT / 10 * 2,
                "job {number} does not exist, with {durable} durable"
            );
            continue;
        };
        assert_eq!(job.phase(), Phase::Ended(Ended::Finished));
        assert_eq!(job.counts(), Counts { items: 2, done: 2, failed: 0 });
        let (data, ends) = payload(number);
        let done = Outcomes::Done { first: 0, count: 2, data, ends, failed: false, attempts: 0 };
        assert_eq!(outcomes(&journal, job.number), [done]);
    }
    for job in journal.jobs() {
        let number: u64 = job.name().parse().expect("the job's name is not a number");
        assert!(number + KEPT > durable, "job {number} was forgotten");
    }
}
