//! `--retries`: failed commands are retried.

use std::fs;

use farpool_testkit::folder::Folder;

use crate::support::{folder, map, records};

/// Returns a command that fails for each item until it runs for the `run`th time.
fn succeeds_at(folder: &Folder, run: u32) -> String {
    let log = folder.file("log-");
    format!("echo >> {log}{{}}; test $(wc -l < {log}{{}}) -ge {run} && echo done {{}}")
}

fn runs(folder: &Folder, item: &str) -> usize {
    fs::read_to_string(folder.file(&format!("log-{item}"))).unwrap().lines().count()
}

#[test]
fn a_failed_command_is_retried() {
    let folder = folder();
    let done = map(&succeeds_at(&folder, 3), ["--retries", "2"]).input("a\nb\nc\n").run();
    done.assert_prints("done a\ndone b\ndone c\n");
    assert_eq!(["a", "b", "c"].map(|item| runs(&folder, item)), [3, 3, 3]);
}

#[test]
fn an_item_fails_when_its_retries_are_used_up() {
    let folder = folder();
    let done = map(&succeeds_at(&folder, 5), ["--retries", "3", "--keep-going"]).input("a\nb\n").run();
    let failed = |index, item| format!("farpool: item {index} \"{item}\": exit code 1 (4 attempts)\n");
    done.assert(2, "", &(failed(1, "a") + &failed(2, "b")));
    assert_eq!(["a", "b"].map(|item| runs(&folder, item)), [4, 4]);
}

#[test]
fn without_the_option_failed_commands_are_not_retried() {
    let folder = folder();
    let done = map(&succeeds_at(&folder, 2), ["--keep-going"]).input("a\n").run();
    assert_eq!((done.code, runs(&folder, "a")), (Some(1), 1));
}

#[test]
fn only_the_last_runs_output_counts_and_the_order_is_kept() {
    let folder = folder();
    let log = folder.file("log-");
    let program =
        format!("echo run {{#}}; echo >> {log}{{}}; test $(wc -l < {log}{{}}) -ge 3 || test $(({{}} % 2)) = 0");
    let input: String = (1..=200).map(|number| format!("{number}\n")).collect();
    let expected: String = (1..=200).map(|number| format!("run {number}\n")).collect();
    map(&program, ["--retries", "2"]).input(input).run().assert_prints(&expected);
}

#[test]
fn timeouts_are_retried() {
    let folder = folder();
    let log = folder.file("log");
    let program = format!("echo {{}} >> {log}; test $(wc -l < {log}) -ge 2 || sleep 50; echo done");
    map(&program, ["--retries", "1", "--timeout", "500ms"]).input("x\n").run().assert_prints("done\n");
}

#[test]
fn zero_retries_apply_to_lost_workers() {
    let folder = folder();
    let log = folder.file("log");
    let program = format!("echo {{}} >> {log}; kill -KILL $PPID; sleep 50");
    let done = map(&program, ["--retries", "0"]).input("x\n").run();
    assert_eq!(done.code, Some(1));
    assert!(done.stderr().starts_with("farpool: item 1 \"x\": the worker was killed"), "{done:?}");
    assert!(!done.stderr().contains("attempt"), "{done:?}");
    assert_eq!(fs::read_to_string(&log).unwrap().lines().count(), 1);
}

/// A command that fails, then kills its worker, then succeeds.
pub(crate) fn fails_in_two_ways(log: &str) -> String {
    format!("echo {{}} >> {log}; case $(wc -l < {log}) in 1) exit 7;; 2) kill -KILL $PPID; sleep 50;; esac; echo done")
}

#[test]
fn failed_and_lost_attempts_are_counted_together() {
    let folder = folder();
    let (log, results) = (folder.file("log"), folder.file("results"));
    let program = fails_in_two_ways(&log);
    map(&program, ["--retries", "2", "--results", &results]).input("x\n").run().assert_prints("done\n");
    assert_eq!(records(&results)[0]["attempts"], 3);
    // One retry is not enough for both.
    fs::write(&log, "").unwrap();
    let done = map(&program, ["--retries", "1"]).input("x\n").run();
    assert_eq!((done.code, done.stdout()), (Some(1), String::new()));
    assert!(done.stderr().starts_with("farpool: item 1 \"x\": the worker was killed"), "{done:?}");
    assert!(done.stderr().contains("2 attempts"), "{done:?}");
}

#[test]
fn after_a_map_stops_failures_are_not_retried() {
    let folder = folder();
    let log = folder.file("log-");
    // Item b ends after the map has stopped.
    let program = format!("echo >> {log}{{}}; test {{}} = a || sleep 2; exit 3");
    let done = map(&program, ["--retries", "1"]).input("a\nb\n").run();
    let failed = "farpool: item 1 \"a\": exit code 3 (2 attempts)\nfarpool: item 2 \"b\": exit code 3\n";
    done.assert(2, "", failed);
    assert_eq!(["a", "b"].map(|item| runs(&folder, item)), [2, 1]);
}
