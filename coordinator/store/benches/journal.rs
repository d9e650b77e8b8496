//! Measures the journal's throughput on this disk.
//!
//! Run with `cargo bench -p farpool-store --bench journal -- [DIRECTORY]`; the default is the directory for temporary
//! files. One thread appends and waits for the journal as a coordinator would, with a bounded number of records that
//! are not durable.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use farpool_proto::v1::{OpenJob, OpenPool};
use farpool_store::log::{Journal, Settings};
use farpool_store::{Entry, JobStore};

/// Jobs whose results alternate, so that no two records are joined.
const JOBS: u64 = 16;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let measure = words.iter().any(|word| word == "--bench");
    let time = Duration::from_millis(if measure { 2000 } else { 20 });
    let base = words.iter().find(|word| !word.starts_with('-')).map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = base.join(format!("farpool-journal-bench-{}", std::process::id()));
    println!("{:>10} {:>10} {:>12} {:>10} {:>12}", "bytes", "ahead", "records/s", "MiB/s", "syncs/s");
    for (bytes, ahead) in [(100, 1), (100, 10), (100, 100), (100, 1000), (100, 10_000), (65_536, 64), (1 << 20, 16)] {
        let (records, syncs) = records(&directory, bytes, ahead, time);
        let mib = records * bytes as f64 / f64::from(1 << 20);
        println!("{bytes:>10} {ahead:>10} {records:>12.0} {mib:>10.1} {syncs:>12.0}");
    }
    println!("{:>10.0} results/s of 8 bytes, one by one and in order", in_order(&directory, time));
    let (records, mib) = opened(&directory, if measure { 1_000_000 } else { 1000 });
    println!("{records:>10.0} records/s of 100 bytes are read when the journal is opened, {mib:.0} MiB/s");
    let (_, mib) = opened_large(&directory, if measure { 200 } else { 2 });
    println!("{mib:>10.0} MiB/s of records of 1 MiB");
}

fn open(directory: &Path) -> (Journal, Vec<u64>) {
    let _ = std::fs::remove_dir_all(directory);
    let mut journal = Journal::open(Settings::new(directory), |_| ()).expect("cannot open the journal");
    let (pool, job) = (OpenPool::default(), OpenJob::default());
    let open = |at| journal.open(format!("{at}").as_str().into(), &pool, &job, 0).expect("cannot open the job");
    let jobs = (0..JOBS).map(open).collect();
    journal.sync().expect("cannot sync the journal");
    (journal, jobs)
}

fn payload(bytes: usize) -> (Bytes, Bytes) {
    (vec![7; bytes].into(), Bytes::copy_from_slice(&(bytes as u32).to_le_bytes()))
}

fn done(store: &mut dyn JobStore, job: u64, first: u64, data: &Bytes, ends: &Bytes) {
    let (data, ends) = (data.clone(), ends.clone());
    store
        .append(job, Entry::Done { first, data, ends, failed: false, attempts: 0 })
        .expect("the journal refused the outcomes");
}

/// Returns records and syncs per second, with at most this many records that are not durable. They are flushed one by
/// one.
fn records(directory: &Path, bytes: usize, ahead: u64, time: Duration) -> (f64, f64) {
    let (mut journal, jobs) = open(directory);
    let (data, ends) = payload(bytes);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("cannot create a runtime");
    let wakeup = journal.wakeup();
    let (base, start) = (journal.flush(), Instant::now());
    let (mut number, mut durable, mut syncs) = (base, base, 0);
    while start.elapsed() < time {
        while number < durable + ahead {
            let at = number - base;
            let job = jobs[(at % JOBS) as usize];
            done(&mut journal, job, at / JOBS, &data, &ends);
            number = journal.flush();
        }
        runtime.block_on(wakeup.wait());
        let now = journal.progress().acknowledged;
        syncs += u64::from(now > durable);
        durable = now;
    }
    let time = start.elapsed().as_secs_f64();
    drop(journal);
    let _ = std::fs::remove_dir_all(directory);
    ((durable - base) as f64 / time, syncs as f64 / time)
}

/// Returns results per second if results are consecutive, in rounds like a coordinator's.
fn in_order(directory: &Path, time: Duration) -> f64 {
    const ROUND: u64 = 1000;
    let (mut journal, jobs) = open(directory);
    let (data, ends) = payload(8);
    let start = Instant::now();
    let mut item = 0;
    while start.elapsed() < time {
        for _ in 0..ROUND {
            done(&mut journal, jobs[0], item, &data, &ends);
            item += 1;
        }
        let number = journal.flush();
        if number > journal.progress().acknowledged + 100 {
            journal.sync().expect("cannot sync the journal");
        }
    }
    journal.sync().expect("cannot sync the journal");
    let rate = item as f64 / start.elapsed().as_secs_f64();
    drop(journal);
    let _ = std::fs::remove_dir_all(directory);
    rate
}

fn opened(directory: &Path, count: u64) -> (f64, f64) {
    read_again(directory, count, 100)
}

fn opened_large(directory: &Path, count: u64) -> (f64, f64) {
    read_again(directory, count, 1 << 20)
}

/// Returns records and MiB per second when a journal with this many records is opened.
fn read_again(directory: &Path, count: u64, bytes: usize) -> (f64, f64) {
    let (mut journal, jobs) = open(directory);
    let (data, ends) = payload(bytes);
    for at in 0..count {
        let job = jobs[(at % JOBS) as usize];
        done(&mut journal, job, at / JOBS, &data, &ends);
        if at % 1000 == 0 {
            journal.sync().expect("cannot sync the journal");
        }
    }
    drop(journal);
    let start = Instant::now();
    let journal = Journal::open(Settings::new(directory), |_| ()).expect("cannot open the journal");
    let time = start.elapsed().as_secs_f64();
    let all = journal.describe().bytes as f64;
    drop(journal);
    let _ = std::fs::remove_dir_all(directory);
    (count as f64 / time, all / f64::from(1 << 20) / time)
}
