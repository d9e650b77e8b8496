//! `farpool results`, `farpool cancel NAME` and `farpool map --detach`, against a fake service for detached jobs.

use std::fs;
use std::time::{Duration, SystemTime};

use farpool_proto::v1::{DetachedJob, DetachedState, StatusReply};
use serde_json::{Value, json};

use crate::detached_server::{KeptJob, failure, result};
use crate::service::{Service, busy_cluster};
use crate::support::{Done, farpool, folder, map};

fn job(name: &str, state: DetachedState, items: u64, done: u64, failed: u64) -> DetachedJob {
    DetachedJob {
        name: name.to_owned(),
        state: state.into(),
        items,
        done,
        failed,
        result: "f64".to_owned(),
        id: name.as_bytes().to_vec().into(),
        ..DetachedJob::default()
    }
}

/// Starts a service with a finished, a running and a cancelled job.
fn service() -> Service {
    let outcomes = vec![result(0, b"zero"), failure(1), result(2, b"two")];
    let finished = job("nightly", DetachedState::Finished, 3, 3, 1);
    let running = job("weekly", DetachedState::Running, 3, 2, 0);
    let broken = job("hourly", DetachedState::Failed, 3, 0, 0);
    let cancelled = job("yearly", DetachedState::Cancelled, 9, 2, 1);
    Service::keeping(
        busy_cluster(),
        vec![
            KeptJob { job: finished, outcomes: outcomes.clone() },
            KeptJob { job: running, outcomes: vec![result(0, b"zero"), result(2, b"two")] },
            KeptJob { job: cancelled, outcomes },
            KeptJob { job: broken, outcomes: Vec::new() },
        ],
    )
}

fn call(service: &Service, arguments: &[&str]) -> Done {
    farpool(["--address", &service.address].into_iter().chain(arguments.iter().copied())).run()
}

#[test]
fn detached_jobs_are_listed() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let ms = |time: Duration| time.as_millis() as u64;
    let kept = DetachedJob {
        label: "simulate".to_owned(),
        detached_ms: ms(now - Duration::from_secs(7260)),
        ended_ms: ms(now - Duration::from_secs(3660)),
        expires_ms: ms(now + Duration::from_secs(6 * 86400 + 1830)),
        ..job("nightly", DetachedState::Finished, 1000, 1000, 3)
    };
    let coming = job("evil\x1b[2J", DetachedState::Receiving, 7, 0, 0);
    let keep = |job| KeptJob { job, outcomes: Vec::new() };
    let service = Service::keeping(StatusReply::default(), vec![keep(coming), keep(kept)]);
    call(&service, &["results"]).assert_prints(
        "\
NAME           STATE      ITEMS  DONE  FAILED    DETACHED       ENDED    EXPIRES  LABEL
evil\\u{1b}[2J  receiving      7     0       0
nightly        finished    1000  1000       3  2h 01m ago  1h 01m ago  in 6d 00h  simulate
",
    );
    assert_eq!(service.take_requests(), ["list"]);
    let none = Service::start(StatusReply::default());
    call(&none, &["results"]).assert_prints("no detached jobs\n");
}

#[test]
fn the_keys_of_json_are_stable() {
    let kept = DetachedJob {
        label: "simulate".to_owned(),
        detached_ms: 1_500,
        ended_ms: 2_000,
        expires_ms: 3_000,
        ..job("nightly", DetachedState::Failed, 10, 4, 3)
    };
    let keep = |job| KeptJob { job, outcomes: Vec::new() };
    let running = job("weekly", DetachedState::Running, 3, 2, 0);
    let service = Service::keeping(StatusReply::default(), vec![keep(kept), keep(running)]);
    let shown: Value = serde_json::from_slice(&call(&service, &["results", "--json"]).stdout).unwrap();
    assert_eq!(
        shown,
        json!({
            "results": [{
                "name": "nightly",
                "label": "simulate",
                "state": "failed",
                "items": 10,
                "done": 4,
                "failed": 3,
                "result": "f64",
                "detached_at": 1.5,
                "ended_at": 2.0,
                "expires_at": 3.0,
            }, {
                "name": "weekly",
                "label": "",
                "state": "running",
                "items": 3,
                "done": 2,
                "failed": 0,
                "result": "f64",
                "detached_at": null,
                "ended_at": null,
                "expires_at": null,
            }],
        })
    );
}

const FAILED: &str = "farpool: results \"nightly\", item 1: oh no (host node7, pid 7, 1 attempt)\n";

#[test]
fn results_of_other_programs_are_summarised() {
    let service = service();
    let expected = "2 results of type f64, 7 bytes; --raw DIR writes each to a file\n";
    call(&service, &["results", "nightly"]).assert(1, expected, FAILED);
    assert_eq!(service.take_requests(), [""; 0]);
    call(&service, &["results", "nightly", "--discard"]).assert(1, expected, FAILED);
    assert_eq!(service.take_requests(), ["discard nightly"]);
}

#[test]
fn raw_results_are_written_to_files() {
    let (service, folder) = (service(), folder());
    let raw = folder.file("a/b");
    call(&service, &["results", "nightly", "--raw", &raw]).assert(1, "", FAILED);
    let read = |item: u32| fs::read(format!("{raw}/{item}")).ok();
    assert_eq!([read(0), read(1), read(2)], [Some(b"zero".to_vec()), None, Some(b"two".to_vec())]);
    let inside = format!("{raw}/0/x");
    let done = call(&service, &["results", "nightly", "--discard", "--raw", &inside]);
    assert_eq!(done.code, Some(125));
    assert!(done.stderr().contains("cannot write the results to"), "{done:?}");
    assert_eq!(service.take_requests(), [""; 0]);
}

#[test]
fn a_running_job_is_not_discarded_and_its_results_are_shown() {
    let service = service();
    let expected = "2 results of type f64, 7 bytes; --raw DIR writes each to a file\n";
    let message = "farpool: job weekly is still running: 2 of its 3 items have an outcome, and it was not discarded; \
                 --wait waits for the others\n";
    call(&service, &["results", "weekly", "--discard"]).assert(125, expected, message);
    assert_eq!(service.take_requests(), [""; 0]);
}

#[test]
fn a_cancelled_job_is_reported() {
    let service = service();
    let done = call(&service, &["results", "yearly", "--discard"]);
    assert_eq!(done.code, Some(125));
    let message = "farpool: job yearly was cancelled before all of its 9 items had an outcome; it was discarded now, with its \
                 results\n";
    assert!(done.stderr().ends_with(message), "{done:?}");
    assert_eq!(service.take_requests(), ["discard yearly"]);
}

#[test]
fn a_job_that_cannot_run_has_a_reason_and_can_be_discarded() {
    let service = service();
    let done = call(&service, &["results", "hourly", "--discard"]);
    assert_eq!(done.code, Some(125));
    assert!(done.stderr().contains("results \"hourly\": no table"), "{done:?}");
    assert!(done.stderr().ends_with("; it was discarded now, with its results\n"), "{done:?}");
    assert_eq!(service.take_requests(), ["discard hourly"]);
}

#[test]
fn a_job_with_missing_outcomes_is_an_error() {
    let service = service();
    // The job claims to have finished, but has no outcome of item 1.
    let done = call(&service, &["results", "weekly", "--wait"]);
    assert_eq!(done.code, Some(125));
    assert!(done.stderr().contains("outcomes of items are missing"), "{done:?}");
}

#[test]
fn unknown_names_are_reported_with_advice() {
    let service = service();
    let message = "farpool: there is no detached job \"x\"; `farpool results` lists the detached jobs\n";
    call(&service, &["results", "x"]).assert(125, "", message);
    let done = farpool(["--address", "127.0.0.1:1", "results", "x"]).run();
    assert_eq!(done.code, Some(125));
    assert!(done.stderr().contains("start one there with `farpool-coordinator`"), "{done:?}");
    assert_eq!(farpool(["--address", "127.0.0.1:1", "results"]).run().code, Some(125));
}

#[test]
fn a_detached_job_is_cancelled_by_its_name() {
    let service = service();
    call(&service, &["cancel", "weekly"]).assert_prints("job weekly is cancelled\n");
    assert_eq!(service.take_requests(), ["cancel detached weekly"]);
    let message = "farpool: job \"nightly\" has finished: nothing is left\n";
    call(&service, &["cancel", "nightly"]).assert(1, "", message);
    assert_eq!(call(&service, &["cancel", "week"]).code, Some(1));
}

#[test]
fn invalid_options_are_rejected() {
    for (arguments, part) in [
        (&["results", "--wait"][..], "<NAME>"),
        (&["results", "--discard"], "<NAME>"),
        (&["results", "x", "--json"], "--json"),
        (&["results", "x", "--raw", "y", "--tag"], "--tag"),
        (&["results", "x", "y"], "'y'"),
        (&["map", "--detach"], "--detach"),
        (&["map", "--detach", "y", "--unordered", "x"], "--unordered"),
        (&["map", "--detach", "y", "--tag", "x"], "--tag"),
        (&["map", "--detach", "y", "--results", "z", "x"], "--results"),
    ] {
        let done = farpool(arguments.iter().copied()).run();
        assert_eq!((done.code, done.stdout()), (Some(125), String::new()), "{arguments:?}");
        assert!(done.stderr().contains(part), "{arguments:?}: {}", done.stderr());
    }
    let service = service();
    let done = call(&service, &["results", "nightly", "--tag"]);
    assert_eq!(done.code, Some(125));
    assert!(done.stderr().contains("job nightly was not detached by `farpool map`"), "{done:?}");
}

#[test]
fn a_map_can_only_be_detached_to_a_cluster() {
    let message = "farpool: --detach needs a cluster to keep the job: give its coordinator with --address or \
                 FARPOOL_ADDRESS\n";
    map("echo", ["--detach", "nightly", "--", "1"]).run().assert(125, "", message);
    map("echo", ["--detach", "nightly", "--dry-run", "--", "1"]).run().assert_prints("echo 1\n");
}

#[test]
fn a_map_speculates_where_commands_may_run_twice() {
    map("echo {}", ["--speculate", "--", "1", "2"]).run().assert_prints("1\n2\n");
    let message = "farpool: --speculate may run a command twice, but --retries 0 forbids that: use only one of them\n";
    map("echo {}", ["--speculate", "--retries", "0", "--", "1"]).run().assert(125, "", message);
}
