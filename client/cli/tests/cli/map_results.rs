//! `--results` records finished work, and `--resume` continues from it.

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use farpool_testkit::cluster::Cluster;
use farpool_testkit::folder::Folder;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Call, Running, farpool, folder, lines, map, records};

fn numbers(count: u32) -> String {
    (1..=count).map(|number| format!("{number}\n")).collect()
}

/// Waits until the file has this many records.
#[track_caller]
fn wait_for(path: &str, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let found = records(path);
        if found.len() >= count {
            return found;
        }
        assert!(Instant::now() < deadline, "{found:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns a command that logs each run and then runs `program`.
fn logged(folder: &Folder, program: &str) -> String {
    format!("echo {{}} >> {}; {program}", folder.file("log"))
}

fn log(folder: &Folder) -> Vec<String> {
    let mut runs: Vec<String> =
        fs::read_to_string(folder.file("log")).unwrap_or_default().lines().map(str::to_owned).collect();
    runs.sort_unstable();
    runs
}

/// Runs six items: the first waits forever for a gate, and the others end.
fn five_of_six_finished(call: impl FnOnce(&str, &[&str]) -> Call, folder: &Folder) -> (Running, String, String) {
    let (gate, results) = (folder.pipe("gate"), folder.file("results"));
    let program =
        logged(folder, &format!("if [ {{}} = 1 ] && ! [ -e {gate}.open ]; then read line < {gate}; fi; echo {{}}"));
    let mut running = call(&program, &["--results", &results]).spawn();
    running.child.stdin.take().unwrap().write_all(numbers(6).as_bytes()).unwrap();
    let found = wait_for(&results, 5);
    let mut indices: Vec<u64> = found.iter().map(|record| record["index"].as_u64().unwrap()).collect();
    indices.sort_unstable();
    assert_eq!(indices, [2, 3, 4, 5, 6]);
    fs::write(format!("{gate}.open"), "").unwrap();
    (running, program, results)
}

#[test]
fn finished_results_are_kept_whatever_ends_the_map() {
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let folder = folder();
        let (running, program, results) =
            five_of_six_finished(|program, options| map(program, options.iter().copied()), &folder);
        running.signal(signal);
        if signal == Signal::SIGINT {
            // The outputs of finished items are printed, too.
            assert_eq!(running.end().stdout(), "2\n3\n4\n5\n6\n");
        } else {
            running.end_killed();
        }
        let done = map(&program, ["--results", &results, "--resume"]).input(numbers(7)).run();
        done.assert_prints("1\n7\n");
        assert_eq!(log(&folder), ["1", "1", "2", "3", "4", "5", "6", "7"]);
        assert_eq!(records(&results).len(), 7);
        // There is nothing left to do.
        map(&program, ["--results", &results, "--resume"]).input(numbers(7)).run().assert_prints("");
    }
}

#[test]
fn a_map_on_a_cluster_resumes() {
    let (cluster, folder) = (Cluster::of(2, 2), folder());
    let on = |program: &str, options: &[&str]| {
        let all = [&["--address", cluster.address(), "map"], options, &[program]].concat();
        farpool(all)
    };
    let (running, program, results) = five_of_six_finished(on, &folder);
    running.signal(Signal::SIGKILL);
    running.end_killed();
    on(&program, &["--results", &results, "--resume"]).input(numbers(6)).run().assert_prints("1\n");
    assert_eq!(log(&folder), ["1", "1", "2", "3", "4", "5", "6"]);
    cluster.end();
}

#[test]
fn failures_are_retried_on_request() {
    let folder = folder();
    let results = folder.file("results");
    let program =
        logged(&folder, &format!("echo {{}}; [ {{}} != 2 ] && [ {{}} != 4 ] || [ -e {} ]", folder.file("well")));
    let options = ["--keep-going", "--results", &results];
    assert_eq!(map(&program, options).input(numbers(5)).run().code, Some(2));
    let resume = ["--keep-going", "--results", &results, "--resume"];
    let message = "farpool: 2 items failed earlier; run failed items again with --retry-failed\n";
    map(&program, resume).input(numbers(6)).run().assert(2, "6\n", message);
    fs::write(folder.file("well"), "").unwrap();
    let again = ["--keep-going", "--results", &results, "--retry-failed"];
    map(&program, again).input(numbers(6)).run().assert_prints("2\n4\n");
    assert_eq!(log(&folder), ["1", "2", "2", "3", "4", "4", "5", "6"]);
    // The last record of an item counts.
    map(&program, again).input(numbers(6)).run().assert_prints("");
}

#[test]
fn existing_results_are_overwritten_only_on_request() {
    let folder = folder();
    let results = folder.file("results");
    fs::write(&results, "precious\n").unwrap();
    let message = format!(
        "farpool: {results}: it already has results; --resume continues from them, --overwrite replaces them\n"
    );
    map("echo {}", ["--results", &results, "--", "1"]).run().assert(125, "", &message);
    // Nor if a later error stops the map.
    for (options, part) in [
        (&["--resume"][..], "line 1 is not a record"),
        (&["--overwrite", "-a", "/nowhere/items"], "/nowhere/items"),
        (&["--overwrite", "--address", "127.0.0.1:1"], "127.0.0.1:1"),
    ] {
        let done =
            map("echo {}", ["--results", &results].into_iter().chain(options.iter().copied())).input("1\n").run();
        assert!(done.code == Some(125) && done.stderr().contains(part), "{options:?}: {done:?}");
        assert_eq!(fs::read_to_string(&results).unwrap(), "precious\n", "{options:?}");
    }
    map("echo {}", ["--results", &results, "--overwrite", "--", "1"]).run().assert_prints("1\n");
    assert_eq!(records(&results).len(), 1);
    map("echo {}", ["--results", &results, "--overwrite"]).input("").run().assert_prints("");
    assert_eq!(fs::read_to_string(&results).unwrap(), "");
    // A map that could not begin leaves no file.
    let other = folder.file("other");
    assert_eq!(map("echo {}", ["--results", &other, "-a", "/nowhere/items"]).run().code, Some(125));
    assert!(!fs::exists(&other).unwrap());
}

#[test]
fn different_commands_and_items_are_rejected_before_anything_runs() {
    let folder = folder();
    let results = folder.file("results");
    let program = logged(&folder, "true");
    map(&program, ["--results", &results]).input("a\nb\nc\n").run().assert_prints("");
    let before = (fs::read(&results).unwrap(), log(&folder));
    for (program, items, part) in [
        (format!("{program}; "), "a\nb\nc\n", "belongs to another command, 'echo {} >>"),
        (program.clone(), "a\nx\nc\n", "item 2 was \"b\", but is \"x\" in the input"),
        (program.clone(), "b\na\nc\n", "item 1 was \"a\", but is \"b\" in the input"),
        (program.clone(), "a\nb\n", "it has a record of item 3, but the input ends after 2 items"),
    ] {
        let done = map(&program, ["--results", &results, "--resume"]).input(items).run();
        assert!(done.code == Some(125) && done.stderr().contains(part), "{done:?}");
        assert!(done.stderr().contains("cannot resume from"), "{done:?}");
        assert_eq!((fs::read(&results).unwrap(), log(&folder)), before);
    }
}

#[test]
fn an_incomplete_last_line_is_ignored_and_replaced() {
    let folder = folder();
    let results = folder.file("results");
    let program = logged(&folder, "true");
    map(&program, ["--results", &results]).input("a\nb\nc\n").run().assert_prints("");
    let text = fs::read_to_string(&results).unwrap();
    let torn = &text[..text.trim_end().rfind('\n').unwrap() + 20];
    fs::write(&results, torn).unwrap();
    let last = records(&results).len();
    assert_eq!(last, 2);
    // Rejected: the file does not change.
    assert_eq!(map("other", ["--results", &results, "--resume"]).input("a\n").run().code, Some(125));
    assert_eq!(fs::read_to_string(&results).unwrap(), torn);
    map(&program, ["--results", &results, "--resume"]).input("a\nb\nc\n").run().assert_prints("");
    assert_eq!((records(&results).len(), log(&folder).len()), (3, 4));
    // An invalid line in the middle is not ignored.
    fs::write(&results, text.replacen("index", "xedni", 1)).unwrap();
    let done = map(&program, ["--results", &results, "--resume"]).input("a\nb\nc\n").run();
    assert!(done.code == Some(125) && done.stderr().contains("line 1 is not a record"), "{done:?}");
}

#[test]
fn two_maps_do_not_write_to_one_file() {
    let folder = folder();
    let (running, _, results) = five_of_six_finished(|program, options| map(program, options.iter().copied()), &folder);
    let message = format!("farpool: {results}: another farpool is writing its results there\n");
    for option in ["--overwrite", "--resume"] {
        map("echo {}", ["--results", &results, option, "--", "1"]).run().assert(125, "", &message);
    }
    running.signal(Signal::SIGKILL);
    running.end_killed();
    assert_eq!(records(&results).len(), 5);
}

#[test]
fn records_may_go_to_stdout_and_to_pipes() {
    let folder = folder();
    let done = map("echo {}", ["--results", "/dev/stdout", "--", "1", "2"]).run();
    let text = done.stdout();
    assert_eq!((done.code, text.lines().count()), (Some(0), 4), "{done:?}");
    assert_eq!(text.lines().filter(|line| line.starts_with("{\"item\":")).count(), 2, "{text}");
    let shell = format!(
        "{} map --results /dev/stdout 'echo {{}}' ::: 1 2 > {}",
        env!("CARGO_BIN_EXE_farpool"),
        folder.file("out")
    );
    assert!(
        std::process::Command::new("sh").args(["-c", &shell]).env_remove("FARPOOL_ADDRESS").status().unwrap().success()
    );
    assert_eq!(fs::read_to_string(folder.file("out")).unwrap().lines().count(), 4);
    let pipe = folder.pipe("pipe");
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read_to_string(pipe).unwrap()
    });
    map("echo {}", ["--results", &pipe, "--", "1", "2"]).run().assert_prints("1\n2\n");
    assert_eq!(reader.join().unwrap().lines().count(), 2);
    let done = map("echo {}", ["--results", "/dev/full", "--", "1", "2"]).run();
    assert_eq!(done.code, Some(125), "{done:?}");
    assert!(done.stderr().contains("cannot write the results to /dev/full: No space left"), "{done:?}");
    let done = map("echo {}", ["--results", "/dev/full", "--resume", "--", "1", "2"]).run();
    assert!(done.code == Some(125) && done.stderr().contains("--resume"), "{done:?}");
}

#[test]
fn a_gap_in_the_results_is_filled() {
    let folder = folder();
    let results = folder.file("results");
    let program = logged(&folder, "echo {}");
    map(&program, ["--results", &results]).input(numbers(100)).run().assert_prints(&numbers(100));
    // Keep every third record.
    let text = fs::read_to_string(&results).unwrap();
    let kept: Vec<&str> = text
        .lines()
        .filter(|line| serde_json::from_str::<Value>(line).unwrap()["index"].as_u64().unwrap().is_multiple_of(3))
        .collect();
    fs::write(&results, kept.join("\n") + "\n").unwrap();
    let expected: String = (1..=120).filter(|n| *n > 99 || n % 3 != 0).map(|n| format!("{n}\n")).collect();
    map(&program, ["--results", &results, "--resume"]).input(numbers(120)).run().assert_prints(&expected);
    assert_eq!(records(&results).len(), 120);
    // A dead worker is reported with its item, also after a gap.
    let (other, item) = (folder.file("other"), "kill -KILL $PPID; sleep 9");
    let options = ["--keep-going", "--results", &other, "--retries", "0"];
    map("eval {}", options).input("true\nfalse\ntrue\n").run();
    let text = fs::read_to_string(&other).unwrap();
    fs::write(&other, text.lines().find(|line| line.contains("\"index\":3,")).unwrap().to_owned() + "\n").unwrap();
    let options = [&options[..], &["--resume"]].concat();
    let done = map("eval {}", options).input(format!("true\n{item}\ntrue\n{item}\n")).run();
    for index in [2, 4] {
        assert!(done.stderr().contains(&format!("item {index} \"{item}\": the worker")), "{done:?}");
    }
    assert_eq!(done.stderr().lines().count(), 2, "{done:?}");
}

#[test]
fn many_records_are_read_back_completely() {
    let folder = folder();
    let results = folder.file("results");
    map("true", ["--results", &results]).input(numbers(500)).run().assert_prints("");
    map("true", ["--results", &results, "--resume"]).input(numbers(500)).run().assert_prints("");
    let mut running = map("true", ["--results", &results, "--resume"]).spawn();
    running.child.stdin.take().unwrap().write_all(numbers(499).as_bytes()).unwrap();
    let message = lines(running.child.stderr.as_mut().unwrap(), 1);
    assert!(message.contains("record of item 500, but the input ends after 499 items"), "{message}");
    assert_eq!(running.end().code, Some(125));
}
