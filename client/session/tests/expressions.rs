//! Pools that run another program whose functions are not Rust: the example of `farpool-worker`, whose functions are
//! expressions. The same must hold on one machine and on a cluster.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use farpool_proto::v1::{OpenJob, Output, WorkerSettings};
use farpool_session::{ErrorKind, Front, Job, Outcome, Program, RECONNECT_TIMEOUT, Session, Settings, Target, address};
use farpool_testkit::binaries;
use farpool_testkit::cluster::Cluster;

/// How long to wait at once: a front that must stay interruptible waits in slices.
const SLICE: Duration = Duration::from_millis(50);

struct Silent;

impl Front for Silent {
    fn output(&self, _: &Output) {}

    fn notice(&self, _: &str) {}

    fn flush(&self, _: Duration) {}
}

fn expressions() -> PathBuf {
    let sources = ["proto", "agent/link", "client/worker", "client/worker/examples"];
    binaries::example("farpool-worker", "expressions", &sources)
}

fn open(target: Target, threads: u32) -> Session {
    let settings = Settings {
        processes: 2,
        program: Program { file: expressions(), arguments: vec!["expressions".into()], keep: false, directory: None },
        settings: WorkerSettings { payload_limit: 1 << 30, threads, ..WorkerSettings::default() },
        require: Vec::new(),
        weight: 1,
        environment: Vec::new(),
        reconnect_timeout: RECONNECT_TIMEOUT,
    };
    Session::open(target, settings, Arc::new(Silent)).expect("cannot open the pool")
}

/// Runs these items, and returns their outcomes by index.
fn run(session: &Session, function: &str, items: &[&str]) -> Vec<Result<String, ErrorKind>> {
    let function = Bytes::copy_from_slice(function.as_bytes());
    let mut job = session.job(OpenJob { function, ..OpenJob::default() }).expect("the pool is closed");
    let mut outcomes = Vec::new();
    let mut rest = items;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(1000));
        while !job.has_room() {
            outcomes.extend(next(&mut job).expect("there are no more items"));
        }
        job.send(now).expect("the pool is closed");
        rest = later;
    }
    job.end_input().expect("the pool is closed");
    while let Some(more) = next(&mut job) {
        outcomes.extend(more);
    }
    assert!(job.error().is_none(), "{:?}", job.error());
    outcomes.sort_by_key(|outcome| outcome.item);
    assert!(outcomes.iter().map(|outcome| outcome.item).eq(0..items.len() as u64));
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("the result is not UTF-8");
    outcomes.into_iter().map(|outcome| outcome.result.map(text).map_err(|error| error.kind())).collect()
}

/// Returns the next outcomes; `None` if the job has ended.
fn next(job: &mut Job) -> Option<Vec<Outcome>> {
    loop {
        match job.take() {
            Some(outcomes) if outcomes.is_empty() => job.wait(Some(Instant::now() + SLICE)),
            outcomes => return outcomes,
        }
    }
}

fn check(target: &dyn Fn() -> Target) {
    for threads in [1, 4] {
        let session = open(target(), threads);
        let results = run(&session, "x * x + 1", &["1", "2", "no number", "4"]);
        let done = |text: &str| Ok(text.to_owned());
        assert_eq!(results, [done("2"), done("5"), Err(ErrorKind::Codec), done("17")]);
        assert_eq!(run(&session, "(x + 1) / 2 - 0.5", &["3"]), [done("1.5")]);
        // The language does not find such a function.
        let refused = || Err(ErrorKind::ProgramRejected);
        assert_eq!(run(&session, "x *", &["1", "2"]), [refused(), refused()]);
        let numbers: Vec<String> = (0..20_000).map(|number: u32| number.to_string()).collect();
        let items: Vec<&str> = numbers.iter().map(String::as_str).collect();
        let doubles = run(&session, "x + x", &items);
        assert!(doubles.into_iter().eq((0..20_000).map(|number: u32| Ok((2 * number).to_string()))));
        // An item far larger than what is read of a worker's memory at once.
        let large = format!("{}7", "0".repeat(20 << 20));
        assert_eq!(run(&session, "x + 1", &[&large]), [done("8")]);
        session.close(false);
        assert!(session.wait_closed(Some(Instant::now() + Duration::from_secs(20))), "the pool does not end");
    }
}

#[test]
fn on_this_machine() {
    check(&|| Target::Here);
}

#[test]
fn on_a_cluster() {
    let cluster = Cluster::of(1, 2);
    check(&|| Target::Cluster(address(cluster.address()).expect("invalid address")));
    cluster.end();
}

#[test]
fn a_job_that_is_dropped_is_cancelled() {
    let session = open(Target::Here, 1);
    let mut job = session.job(OpenJob { function: "x".into(), ..OpenJob::default() }).expect("the pool is closed");
    job.send(&["1"]).expect("the pool is closed");
    drop(job);
    session.close(false);
    assert!(session.wait_closed(Some(Instant::now() + Duration::from_secs(20))), "the job is still open");
}
