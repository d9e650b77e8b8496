//! Items that fail: how that is reported, and what happens to the others.

use std::time::{Duration, Instant};

use crate::support::{folder, map};

fn numbers(count: u32) -> String {
    (1..=count).map(|number| format!("{number}\n")).collect()
}

#[test]
fn a_failed_item_is_named_with_its_exit_code() {
    let done = map("exit {}", ["--keep-going"]).input("0\n7\n").run();
    done.assert(1, "", "farpool: item 2 \"7\": exit code 7\n");
    let done = map("{}", []).input("no-such-command\n").run();
    assert!(done.stderr().ends_with("exit code 127\n"), "{done:?}");
}

#[test]
fn a_signal_is_named() {
    let done = map("kill -{} $$", ["--keep-going"]).input("KILL\nTERM\nSEGV\n").run();
    assert_eq!(done.code, Some(3));
    for (item, signal) in [("KILL", "9 (SIGKILL)"), ("TERM", "15 (SIGTERM)"), ("SEGV", "11 (SIGSEGV)")] {
        assert!(done.stderr().contains(&format!("\"{item}\": killed by signal {signal}\n")), "{done:?}");
    }
}

#[test]
fn the_exit_code_counts_failed_items() {
    for (count, code) in [(0, 0), (1, 1), (2, 2), (100, 100), (101, 101), (130, 101)] {
        let done = map("test {} -gt 0", ["--keep-going"]).input("0\n".repeat(count) + "1\n").run();
        assert_eq!(done.code, Some(code), "{count} failed");
        assert_eq!(done.stderr().lines().count(), count);
    }
}

#[test]
fn keep_going_runs_every_item() {
    let done = map("echo {}; test $(({} % 3)) -gt 0", ["--keep-going"]).input(numbers(30)).run();
    assert_eq!((done.code, done.stdout()), (Some(10), numbers(30)));
}

#[test]
fn the_first_failure_stops_the_rest_and_lets_running_items_finish() {
    let done = map("sleep 0.05; echo {}; test {} -ne 3", []).input(numbers(1000)).run();
    let text = done.stdout();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(done.code, Some(1));
    // Two items run, and one more waits for each slot.
    assert!((3..=3 + 4).contains(&lines.len()), "{done:?}");
    assert_eq!(text, numbers(lines.len() as u32));
    assert!(done.stderr().contains("item 3 \"3\": exit code 1"), "{done:?}");
    assert!(
        done.stderr().ends_with("farpool: stopped because an item failed; use --keep-going to continue\n"),
        "{done:?}"
    );
}

#[test]
fn a_failure_of_the_last_item_stops_nothing() {
    let done = map("false", []).input("x\n").run();
    assert_eq!((done.code, done.stderr().lines().count()), (Some(1), 1));
}

#[test]
fn a_timeout_ends_the_command_and_everything_it_started() {
    let start = Instant::now();
    let program = "echo before; sleep 50 | sleep 51; echo after; : {}";
    let done = map(program, ["--timeout", "200ms"]).input("x\n").run();
    assert!(start.elapsed() < Duration::from_secs(20));
    // Output before the timeout is not lost.
    assert_eq!((done.code, &*done.stdout()), (Some(1), "before\n"));
    assert!(done.stderr().contains("item 1 \"x\": timed out and was killed after 2"), "{done:?}");
}

#[test]
fn a_timeout_applies_to_each_item() {
    let done = map("sleep {}; echo {}", ["--timeout=600ms", "--keep-going"]).input("0.01\n50\n0.02\n").run();
    assert_eq!((done.code, &*done.stdout()), (Some(1), "0.01\n0.02\n"));
    map("sleep 0.2; echo {}", ["--timeout", "5s"]).input(numbers(4)).run().assert_prints(&numbers(4));
}

#[test]
fn a_command_may_handle_sigterm_on_a_timeout() {
    let program = "trap 'echo bye; exit 3' TERM; while :; do sleep 0.01; done; : {}";
    let done = map(program, ["--timeout", "300ms"]).input("x\n").run();
    assert_eq!((done.code, &*done.stdout()), (Some(1), "bye\n"));
    let program = "trap '' TERM; while :; do sleep 0.01; done; : {}";
    let done = map(program, ["--timeout", "300ms"]).input("x\n").run();
    assert_eq!(done.code, Some(1), "{done:?}");
}

#[test]
fn a_dead_worker_fails_only_its_item() {
    // The shell's parent is the worker.
    let folder = folder();
    let runs = folder.file("runs");
    let program = format!("if [ {{}} = b ]; then echo >> {runs}; kill -KILL $PPID; sleep 50; else echo {{}}; fi");
    let done = map(&program, ["--keep-going"]).input("a\nb\nc\n").run();
    assert_eq!((done.code, &*done.stdout()), (Some(1), "a\nc\n"));
    assert!(done.stderr().contains("item 2 \"b\": the worker was killed by signal 9"), "{done:?}");
    assert!(done.stderr().contains("3 attempts"), "{done:?}");
    assert_eq!(std::fs::read_to_string(&runs).unwrap().lines().count(), 3);
}
